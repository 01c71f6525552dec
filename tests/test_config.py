"""Composition: every yaml that ships, and every mistake a user can make in a setting."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset

from vilamp import locations, plugins
from vilamp.config import compose, conf_dir, explain, register, require_complete, require_whole_numbers
from vilamp.errors import ConfigError, OutputError

CONF = conf_dir()
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/**/*.yaml"))
MAINS = sorted(path.stem for path in CONF.glob("*.yaml"))


def _groups(name: str) -> set[str]:
    return {group for item in OmegaConf.load(CONF / f"{name}.yaml").defaults if item != "_self_" for group in item}


TRAINING, EVALUATION = _groups("train"), _groups("evaluate")
SELECTABLE = [entry for entry in plugins.listing() if entry.group in plugins.GROUPS]


def _main(group: str) -> str:
    return "train" if group in TRAINING else "evaluate"


def _id(path: Path) -> str:
    return path.with_suffix("").as_posix()


def test_the_globs_find_what_ships() -> None:
    assert {"train", "evaluate"} <= set(MAINS)
    assert {"selector/differential", "merger/differential", "data/needle"} <= {_id(path) for path in OPTIONS}
    assert {("selector", "aks"), ("merger", "tome")} <= {(entry.group, entry.name) for entry in SELECTABLE}


@pytest.mark.parametrize("name", MAINS)
def test_every_main_configuration_composes(name: str) -> None:
    cfg = compose(name)
    of_a_run = {"trainer", "logger", "seed"} if name not in ("memory", "ask") else set()  # which are no runs
    assert set(cfg) >= {"paths", "num_keyframes", *of_a_run}


def test_training_has_every_part_and_an_evaluation_takes_them_from_its_checkpoint() -> None:
    parts = {"model", "selector", "merger", "data"}
    assert set(compose("train")) >= parts
    assert parts <= EVALUATION, "each must be replaceable"
    assert not parts & set(compose("evaluate"))


@pytest.mark.parametrize("option", OPTIONS, ids=_id)
def test_every_option_composes_into_the_configuration_that_it_is_for(option: Path) -> None:
    group, name = option.parent.as_posix(), option.stem
    cfg = compose(_main(group), [f"{group}={name}"], return_hydra_config=True)
    assert cfg.hydra.runtime.choices[group] == name


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.parent.as_posix() in EVALUATION], ids=_id)
def test_every_part_can_be_replaced_in_an_evaluation(option: Path) -> None:
    assert compose("evaluate", ["checkpoint=some.ckpt", f"{option.parent.as_posix()}={option.stem}"])


@pytest.mark.parametrize("entry", SELECTABLE, ids=lambda entry: f"{entry.group}={entry.name}")
def test_a_yaml_registers_its_class_with_all_its_settings(entry: plugins.Entry) -> None:
    node = compose(_main(entry.group), [f"{entry.group}={entry.name}"])[entry.group]
    if node._target_ is None:
        pytest.fail(f"{entry.path} has no _target_")
    settings = [key for key in node if not key.startswith("_")]
    parameters = inspect.signature(get_class(node._target_)).parameters.values()
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}  # a class without an __init__ has them
    given_at_run_time = {"dim", "query_dim"}
    assert settings == [p.name for p in parameters if p.kind not in variadic and p.name not in given_at_run_time]


@pytest.mark.parametrize("entry", SELECTABLE, ids=lambda entry: f"{entry.group}={entry.name}")
def test_a_yaml_opens_with_what_it_does_and_the_command(entry: plugins.Entry) -> None:
    header = [line for line in entry.path.read_text().splitlines() if line.startswith("#")]
    assert len(entry.summary.split()) >= 3
    assert any(f"{entry.group}={entry.name}" in line for line in header), "the exact command is missing"
    assert any(re.match(r"#\s*score:", line, re.IGNORECASE) for line in header), "the score is missing"


def test_composing_leaves_no_trace_in_hydra() -> None:
    GlobalHydra.instance().clear()
    compose("train")
    assert not GlobalHydra.instance().is_initialized()


def test_assets_are_absolute_paths_in_the_package() -> None:
    register()
    cfg = OmegaConf.create({"path": "${asset:tiny/scorer}"})
    assert Path(cfg.path) == locations.PACKAGE / "assets" / "tiny" / "scorer"


def test_the_configuration_of_a_checkout_lies_beside_the_package(source_tree) -> None:
    assert conf_dir() == source_tree.root / "conf"


def test_the_configuration_of_a_wheel_lies_in_the_package(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "conf").mkdir()  # somebody's top-level package of that name in site-packages
    monkeypatch.setattr(locations, "PACKAGE", tmp_path / "vilamp")
    assert conf_dir() == tmp_path / "vilamp" / "conf"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("selector=neer", "there is no selector=neer; did you mean near?; choices of selector: distant, near"),
        ("selector=xyz", "there is no selector=xyz; choices of selector: distant, near"),
        ("selctor=near", "there is no setting 'selctor'; did you mean selector?"),
        ("data.bach_size=2", "there is no setting 'data.bach_size'; did you mean data.batch_size?"),
        ("batch_size=2", "there is no setting 'batch_size'; did you mean data.batch_size?"),
        ("data.xyz=2", "there is no setting 'data.xyz'; there are: data.batch_size, data.train"),
        ("selector", "cannot read 'selector': missing EQUAL"),
        ("data.train=s{0..3}.tar", "cannot read 'data.train=s{0..3}.tar': mismatched input '{'"),
        ("selector=near,distant", "Ambiguous value for argument 'selector=near,distant'"),
        ("~nothing", "Could not delete from config. 'nothing' does not exist."),
        ("benchmark=any", "there is no setting 'benchmark'"),
    ],
)
def test_a_wrong_setting_is_told_with_what_could_be_meant(source_tree, override, message) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose("train", [override])


def test_the_suggestion_knows_the_keys_of_the_parts_that_were_chosen(source_tree) -> None:
    with pytest.raises(ConfigError, match=r"did you mean selector\.tau"):
        compose("train", ["selector=near", "selector.tua=1"])
    with pytest.raises(ConfigError, match=r"there are: selector\._target_ "):
        compose("train", ["selector=distant", "selector.tua=1"])


def test_an_unknown_main_configuration_is_told(source_tree) -> None:
    with pytest.raises(ConfigError, match="'tarin'"):
        compose("tarin")


def test_settings_without_a_value_are_told_by_name() -> None:
    cfg = OmegaConf.create({"data": {"train": "???", "fps": 1}, "checkpoint": "???"})
    with pytest.raises(ConfigError, match=r"no value for checkpoint, data\.train; .*: checkpoint=\.\.\."):
        require_complete(cfg)
    cfg.data.train = cfg.checkpoint = "here"
    require_complete(cfg)


def test_what_an_evaluation_takes_from_the_run_of_its_checkpoint_is_not_missing() -> None:
    require_complete(compose("evaluate", ["checkpoint=some.ckpt", "selector=differential", "benchmark=needle"]))


@pytest.mark.parametrize("key", ["seed", "num_keyframes"])
@pytest.mark.parametrize("value", ["many", "8", 8.0, True, [8]])
def test_what_is_no_whole_number_is_told(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} must be a whole number, got "):
        require_whole_numbers(OmegaConf.create({key: value}))


@pytest.mark.parametrize("value", [0, 8, None])
def test_a_whole_number_is_taken_and_so_is_the_one_of_the_checkpoint(value: int | None) -> None:
    require_whole_numbers(OmegaConf.create({"seed": value, "num_keyframes": value}))


class Refusing(Dataset[None]):
    """Its items cannot be written."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int) -> None:
        try:
            raise OSError("No space left on device")
        except OSError as error:
            raise OutputError("the disk is full; set data.frames_dir\nto another folder") from error


def test_an_error_of_a_worker_is_told_without_its_traceback() -> None:
    with pytest.raises(OutputError, match="Traceback") as caught:
        list(DataLoader(Refusing(), num_workers=1))
    told = explain(caught.value, "", ())
    assert isinstance(told, OutputError)
    assert str(told) == "the disk is full; set data.frames_dir\nto another folder"
    own = OutputError("as it is")
    assert explain(own, "", ()) is own
