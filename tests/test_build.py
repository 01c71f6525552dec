"""From one node of the configuration to an object, and what a node can get wrong."""

from __future__ import annotations

import pytest
import torch
from lightning import Trainer
from omegaconf import OmegaConf

from vilamp.build import build_data, build_merger, build_model, build_object, portable
from vilamp.config import compose
from vilamp.errors import ConfigError, DataError, PluginError
from vilamp.interfaces import FrameMerger, FrameSelector
from vilamp.selectors.differential import DifferentialSelector

SELECTOR = """\
from vilamp.errors import ConfigError
from vilamp.interfaces import FrameMerger, FrameSelector, Selection

class Far(FrameSelector):
    def __init__(self, reach: float = 1.0, query_dim: int | None = None):
        super().__init__()
        if reach < 0:
            raise ConfigError(f"selector.reach must be 0 or more, got {reach}")
        if reach > 100:
            raise RuntimeError("out of reach")
        self.reach, self.query_dim = reach, query_dim

    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        raise NotImplementedError

class Merger(FrameMerger):
    def __init__(self, space, dim):
        super().__init__()
        self.space, self.dim = space, dim

    def forward(self, patches, anchors, anchor_of, query, *, generator=None):
        raise NotImplementedError
"""


@pytest.fixture
def far(source_tree):
    """Builds the selector of a drop-in whose code is given, with some settings, as a run does."""

    def build(code: str = SELECTOR, *overrides: str, **runtime: object) -> FrameSelector:
        source_tree.drop_in("acme-far", code=code)
        return build_object(
            compose("train", ["selector=far", *overrides]).selector, FrameSelector, "selector", **runtime
        )

    return build


def test_a_plugin_is_built_with_its_settings_and_with_the_widths_it_asks_for(far) -> None:
    selector = far(SELECTOR, "+selector.reach=3", query_dim=32, dim=16)
    assert (type(selector).__name__, selector.reach, selector.query_dim) == ("Far", 3, 32)


def test_a_plugin_that_fails_to_import_is_one_message(far, caplog) -> None:
    with pytest.raises(PluginError) as caught:
        far("import no_such_library\n")
    assert str(caught.value) == (
        "selector: cannot import acme_far.Far: ModuleNotFoundError: No module named 'no_such_library'"
    )
    assert caplog.records == [], "nothing else is told"


@pytest.mark.parametrize(
    ("code", "overrides", "message"),
    [
        ("raise OSError('no disk')\n", [], "cannot import acme_far.Far: OSError: no disk"),
        ("raise SystemExit(3)\n", [], "cannot import acme_far.Far: SystemExit: 3"),
        ("class Fear: ...\n", [], "cannot import acme_far.Far: ModuleNotFoundError: No module named 'acme_far.Far'"),
        ("class Far: ...\n", [], "acme_far.Far is a Far, expected a FrameSelector"),
        (SELECTOR, ["+selector.reach=101"], "cannot construct acme_far.Far: RuntimeError: out of reach"),
        (SELECTOR, ["+selector.raech=1"], "cannot construct acme_far.Far: TypeError: .*unexpected keyword .*'raech'"),
    ],
    ids=["import raises", "import ends", "no such class", "wrong type", "constructor raises", "unknown setting"],
)
def test_a_broken_plugin_is_told_with_its_root_cause(far, code, overrides, message) -> None:
    with pytest.raises(PluginError, match=f"^selector: {message}"):
        far(code, *overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+selector.reach=-1", r"^selector\.reach must be 0 or more, got -1$"),
        ("+selector.reach=some", r"^selector\.reach must be a number, got 'some'$"),
        ("+selector.query_dim=4", r"^selector\.query_dim is set by the model's widths"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(far, override, message) -> None:
    with pytest.raises(ConfigError, match=message):
        far(SELECTOR, override, query_dim=32)


def test_a_number_may_be_left_out_and_a_text_may_be_a_text() -> None:
    node = compose("train", ["selector.relevance_floor=null"]).selector
    assert isinstance(build_object(node, FrameSelector, "selector"), DifferentialSelector)
    cfg = compose("train", ["trainer.max_epochs=x"])
    with pytest.raises(ConfigError, match=r"^trainer\.max_epochs must be a number, got 'x'$"):
        build_object(cfg.trainer, Trainer, "trainer")


@pytest.mark.parametrize("node", [None, "uniform", OmegaConf.create({"tau": 1})])
def test_a_node_without_a_target_is_told(node) -> None:
    with pytest.raises(ConfigError, match=r"model\.scorer needs a _target_, .* choose one with model/scorer=NAME"):
        build_object(node, FrameMerger, "model.scorer")


@pytest.mark.parametrize(("space", "width"), [("vision", 96), ("language", 64)])
def test_a_merger_gets_the_width_of_the_space_it_works_in(source_tree, space: str, width: int) -> None:
    source_tree.drop_in("acme-far", code=SELECTOR)
    compose("train", ["selector=far"])  # as a run does, which makes the package importable
    node = OmegaConf.create({"_target_": "acme_far.Merger", "space": space})
    merger = build_merger(node, vision_dim=96, language_dim=64, query_dim=32)
    assert merger.dim == width


@pytest.mark.parametrize("overrides", [["data=shards", "data.val=null"], ["data=needle"]])
def test_a_pattern_that_matches_nothing_is_told_before_anything_is_made(tmp_path, overrides: list[str]) -> None:
    cfg = compose("train", [*overrides, f"data.train={tmp_path}/nope-*.tar", f"paths.data_dir={tmp_path}/data"])
    with pytest.raises(DataError, match=r"^data\.train: no file matches '.*nope-\*\.tar'"):
        build_data(cfg, encode=lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_a_projector_is_random_only_if_that_was_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"set init=llava_onevision or init=release, or model\.projector\.path"):
        build_model(compose("train", ["model=vilamp_7b"]))  # before anything is fetched
    with pytest.raises(ConfigError, match=r"model\.projector\.path to a safetensors file, or to random"):
        build_model(compose("train", ["model.projector.path=null"]))
    first, second = (build_model(compose("train", ["model.projector.path=random"])).projector for _ in range(2))
    assert not torch.equal(first.keyframe[0].weight, second.keyframe[0].weight)


def test_without_weights_a_projector_needs_none() -> None:
    cfg = compose("train", ["model.projector.path=null"])
    assert build_model(cfg, weights=False).language_model.lm.lm_head.weight.is_meta


def test_a_portable_configuration_is_resolved_but_for_locations() -> None:
    cfg = OmegaConf.create(
        {
            "paths": {"data_dir": "/here"},
            "seed": 3,
            "model": {"architecture": "${asset:tiny}", "scorer": {"path": "${model.architecture}/scorer"}},
            "data": {
                "root": "${paths.data_dir}/${seed}",
                "files": ["${ paths.data_dir}/a", 1],
                "seed": "${seed}",
            },
            "price": "5 $",
        }
    )
    carried = portable(cfg)
    assert carried["data"] == {"root": "${paths.data_dir}/3", "files": ["${ paths.data_dir}/a", 1], "seed": 3}
    assert carried["model"] == {"architecture": "${asset:tiny}", "scorer": {"path": "${asset:tiny}/scorer"}}
    assert carried["price"] == "5 $"
    carried["paths"]["data_dir"] = "/there"
    assert OmegaConf.create(carried).data.root == "/there/3"
