"""The checks of continuous integration find what they are there for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import check_listing
import check_pins
import check_run
import pytest

PROMISE = ["--accuracy", "0.95", "--rss-gib", "4"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that kept every promise."""
    for name in check_run.LEFT:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("something")
    return _with_metrics(tmp_path)


def _with_metrics(run: Path, **changed: float) -> Path:
    metrics = {"val/accuracy": 0.95, "memory/peak_rss_gib": 4.0, "data/skipped": 0.0} | changed
    (run / "metrics.json").write_text(json.dumps(metrics))
    return run


def test_a_good_run_passes(run: Path, capsys) -> None:
    assert check_run.main([str(run), *PROMISE]) == 0
    assert "accuracy 0.9500" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("val/accuracy", 0.9499),
        ("val/accuracy", float("nan")),
        ("memory/peak_rss_gib", 4.01),
        ("memory/peak_rss_gib", float("nan")),
        ("data/skipped", 1.0),
    ],
)
def test_a_broken_promise_is_told(run: Path, capsys, name: str, value: float) -> None:
    assert check_run.main([str(_with_metrics(run, **{name: value})), *PROMISE]) == 1
    assert capsys.readouterr().err.startswith(f"error: {name} is {value}")


@pytest.mark.parametrize("name", check_run.LEFT)
@pytest.mark.parametrize("lose", [Path.unlink, lambda file: file.write_text("")], ids=["missing", "empty"])
def test_a_file_that_is_not_there_is_told(run: Path, capsys, name: str, lose) -> None:
    lose(run / name)
    assert check_run.main([str(run), *PROMISE]) == 1
    assert f"{run / name} is missing or empty" in capsys.readouterr().err


def test_a_folder_without_a_run_is_told_file_by_file(tmp_path: Path) -> None:
    assert len(check_run.faults(tmp_path / "nowhere", 0.95, 4)) == len(check_run.LEFT)


def test_pins_that_agree_pass() -> None:
    pins = "# a comment\ntorch==2.13.0\ntyping-extensions==4.16.0\nunused==1\n"
    installed = [("torch", "2.13.0+cpu"), ("typing_extensions", "4.16.0"), ("pip", "1"), ("ViLaMP.Lightning", "9")]
    assert check_pins.differences(pins, installed) == []


def test_another_version_and_a_package_without_a_pin_are_told() -> None:
    found = check_pins.differences("one==1.0\n", [("one", "1.1"), ("two", "2.0")])
    assert found == ["one==1.1 is installed, pinned: 1.0", "two==2.0 is installed, pinned: not at all"]


@pytest.fixture
def project(source_tree) -> Path:
    """A plugin project of its own, installed nowhere."""
    return source_tree.drop_in("acme-far", folder="elsewhere/acme-far")


def _listing(origin: str = "acme-far 1.2 (installed)", name: str = "far", error: str | None = None) -> dict:
    return {"entries": [{"group": "selector", "name": name, "origin": origin, "error": error}], "broken": []}


def test_an_installed_plugin_that_is_listed_passes(project: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(check_listing.sys, "prefix", str(project))
    assert check_listing.faults(_listing(), project) == []


@pytest.mark.parametrize(
    "listing",
    [
        _listing(origin="acme-far 1.2 (drop-in plugins/acme-far)"),
        _listing(origin="acme-far 1.1 (installed)"),
        _listing(name="near"),
        _listing(error="it has no folder conf/ with yaml files"),
    ],
)
def test_a_part_that_is_not_listed_as_installed_is_told(project: Path, listing: dict) -> None:
    assert "selector=far is not listed with the origin acme-far 1.2 (installed)" in check_listing.faults(
        listing, project
    )


def test_a_package_from_outside_the_environment_is_told(project: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    assert "which is not in the environment" in check_listing.faults(_listing(), project)[0]


def test_a_project_without_yaml_files_is_told(project: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setattr(check_listing.sys, "prefix", str(project))
    shutil.rmtree(project / "conf")
    assert check_listing.faults(_listing(), project) == [f"{project / 'conf'} holds no yaml file"]


def test_a_broken_plugin_is_told(project: Path, capsys) -> None:
    file = project / "listing.json"
    file.write_text(json.dumps(_listing() | {"broken": [{"origin": "acme", "error": "no such package"}]}))
    assert check_listing.main([str(file), str(project)]) == 1
    assert "error: acme: no such package" in capsys.readouterr().err
