"""The projector: what it has under which settings, and what it reads from a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vilamp.errors import ConfigError
from vilamp.models.projector import Projector


def make(path: Path | None = None, newline: bool = False, merges: bool = True) -> Projector:
    return Projector(None if path is None else str(path), None, newline, vision_dim=3, language_dim=5, merges=merges)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A file of a projector that has everything."""
    torch.manual_seed(0)
    save_file(make(newline=True).state_dict(), tmp_path / "whole.safetensors")
    return tmp_path / "whole.safetensors"


@pytest.mark.parametrize("newline", [False, True])
@pytest.mark.parametrize("merges", [False, True])
def test_it_has_no_parameter_that_its_settings_leave_unused(newline: bool, merges: bool) -> None:
    projector = make(newline=newline, merges=merges)
    parts = {name.split(".")[0] for name, _ in projector.named_parameters()}
    assert parts == {"keyframe"} | ({"newline"} if newline else set()) | ({"merged"} if merges else set())
    sequence = torch.randn(4, 5)
    ended = projector.end([sequence[:1], sequence[1:]])
    assert len(ended) == 4 + projector.tokens_per_video == 4 + newline
    assert torch.equal(ended[:4], sequence)
    if newline:
        assert torch.equal(ended[4], projector.newline)


def test_a_file_gives_what_the_settings_ask_for(whole: Path) -> None:
    torch.manual_seed(0)
    expected = make(newline=True).state_dict()
    for merges in (False, True):
        loaded = make(whole, newline=True, merges=merges).state_dict()
        assert loaded.keys() == {name for name in expected if merges or not name.startswith("merged.")}
        assert all(torch.equal(value, expected[name]) for name, value in loaded.items())


def test_a_file_of_keyframes_alone_starts_the_merged_tokens_as_a_copy(tmp_path: Path) -> None:
    alone = make(merges=False)
    save_file(alone.state_dict(), tmp_path / "alone.safetensors")
    loaded = make(tmp_path / "alone.safetensors", newline=True)
    tokens = torch.randn(2, 1, 3)
    assert torch.equal(loaded.project_merged(tokens), alone.project_keyframes(tokens))
    assert loaded.newline is not None and loaded.newline.abs().sum() > 0


def test_a_newline_that_nobody_asked_for_is_an_error(whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)projector\.path=.*whole.* does not fit the model: .*newline"):
        make(whole)


@pytest.mark.parametrize("grid", [0, -1])
def test_a_grid_without_tokens_is_refused(grid: int) -> None:
    with pytest.raises(ConfigError, match=f"keyframe_grid must be at least 1, or null, got {grid}"):
        Projector(keyframe_grid=grid, vision_dim=2, language_dim=2)


def test_tokens_that_are_projected_already_are_not_projected_again() -> None:
    with pytest.raises(RuntimeError, match="need no projection"):
        make(merges=False).project_merged(torch.zeros(1, 1, 3))
