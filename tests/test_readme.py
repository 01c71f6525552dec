"""The README keeps its word: its commands compose, its selector works, its links lead somewhere."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme_block
from hydra.utils import get_class
from pytest import MonkeyPatch

import vilamp
from vilamp import plugins
from vilamp.config import compose
from vilamp.testing import selector_checks

ROOT = Path(vilamp.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUN = "pip install -c constraints.txt -e . && python train.py selector=differential merger=differential\n"
TEST = "pip install -c constraints.txt -e '.[dev]' && pytest\n"
BLOCKS = readme_block.marked_blocks(README)
FILES = {name.removeprefix("file:"): code for name, code in BLOCKS.items() if name.startswith("file:")}
COMMANDS = re.findall(r"python train\.py ([^`\n&]+)", README)


@pytest.fixture
def drop_in(tmp_path: Path, monkeypatch: MonkeyPatch) -> Iterator[None]:
    """The README's plugin in a folder of its own, forgotten afterwards."""
    for path, code in FILES.items():
        file = tmp_path / "my_selector" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.setenv(plugins.PATH_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_selector", None)


def test_the_two_commands_are_there_and_each_stands_alone() -> None:
    assert (BLOCKS["command:run"], BLOCKS["command:test"]) == (RUN, TEST)


def test_the_selector_takes_20_lines() -> None:
    assert set(FILES) == {"pyproject.toml", "conf/selector/my_selector.yaml", "my_selector/__init__.py"}
    assert sum(bool(line.strip()) for code in FILES.values() for line in code.splitlines()) <= 20


def test_the_selector_is_found_and_keeps_the_contract(drop_in: None) -> None:
    entry = next(entry for entry in plugins.listing() if entry.name == "my_selector")
    assert entry.origin.startswith("my-selector 0.1 (drop-in")
    assert entry.summary == "The most relevant frame of each of K equal parts of the video."
    selector = get_class(compose("train", ["selector=my_selector"]).selector._target_)
    for check in selector_checks():
        check(selector)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "..." not in c and "--help" not in c])
def test_every_command_composes(drop_in: None, command: str) -> None:
    sweep, overrides = command.startswith("-m "), shlex.split(command.removeprefix("-m "))
    choices = [[f"{key}={value}" for value in values.split(",")] for key, _, values in map(_parted, overrides)]
    for point in itertools.product(*choices) if sweep else [overrides]:
        assert compose("train", point)


def _parted(override: str) -> tuple[str, str, str]:
    return override.partition("=")


def test_commands_were_found() -> None:
    assert {"selector=differential merger=differential", "selector=my_selector"} <= set(COMMANDS)
    assert any("data.train=" in command for command in COMMANDS)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_every_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_script_prints_a_block_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme_block.main(["command:run"]) == 0
    assert capsys.readouterr().out == RUN


def test_the_script_refuses_a_block_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme_block.main(["command:tset"]) == 1
    assert "no block marked command:tset; there are: command:run, command:test" in capsys.readouterr().err


def test_the_script_refuses_a_marker_that_is_used_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "twice.md"
    file.write_text("<!-- a:b -->\n```bash\none\n```\n\n<!-- a:b -->\n```bash\ntwo\n```\n")
    assert readme_block.main(["a:b", str(file)]) == 1
    assert "two blocks are marked a:b" in capsys.readouterr().err
