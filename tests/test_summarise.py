"""The table of a sweep, from a sweep that our own command line ran (with a task that only writes its figures)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import summarise
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vilamp.cli import app
from vilamp.evaluation.compare import Run

ACCURACY = {("near", "none"): 0.5, ("near", "mean"): 0.75, ("distant", "none"): 0.125, ("distant", "mean"): 1.0}
MARKERS = ("<!-- table:needle -->", "<!-- /table:needle -->")
TRAIN = """\
defaults:
  - _self_
  - selector: near
  - merger: mean
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
hydra:
  sweep: {dir: OUT, subdir: "${hydra:job.num}"}
"""


@pytest.fixture
def sweep(source_tree) -> Path:
    """The folder of a sweep over two selectors and two mergers."""
    folder = source_tree.root / "sweep"
    source_tree.write("conf/train.yaml", TRAIN.replace("OUT", str(folder)))
    for group, name in (("merger", "mean"), ("merger", "none"), ("selector", "near"), ("selector", "distant")):
        source_tree.write(f"conf/{group}/{name}.yaml", f"# One\n_target_: none.{name.title()}{group.title()}\n")

    def task(cfg: DictConfig) -> None:
        runtime = HydraConfig.get().runtime
        OmegaConf.save(cfg, Path(runtime.output_dir) / "config.yaml")
        names = runtime.choices["selector"], runtime.choices["merger"]
        figures = {"val/accuracy": ACCURACY[names], "visual_tokens": 200.4, "val/loss": 1.0}
        (Path(runtime.output_dir) / "metrics.json").write_text(json.dumps(figures))

    assert app.run(task, "train", ["-m", "selector=near,distant", "merger=none,mean"]) == 0
    return folder


def test_the_table_holds_every_figure_and_the_command(sweep, capsys) -> None:
    assert summarise.main([str(sweep)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "| accuracy | `merger=none` | `merger=mean` |",
        "|---|---|---|",
        "| `selector=near` | 0.500 | 0.750 |",
        "| `selector=distant` | 0.125 | 1.000 |",
    ]
    assert "Measured with `python train.py -m selector=near,distant merger=none,mean`." in lines
    assert "| selector | merger | accuracy | visual tokens |" in lines  # what no run measured has no column
    assert "| near | none | 0.500 | 200 |" in lines
    assert len([line for line in lines if line.startswith(("| near |", "| distant |"))]) == 4


def test_a_point_that_was_not_run_leaves_its_cell_empty() -> None:
    settings = ({"selector": "a", "merger": "x"}, {"selector": "b", "merger": "y"})
    runs = [Run(str(number), each, {"accuracy": float(number)}) for number, each in enumerate(settings)]
    lines = summarise.render(runs, ["python train.py -m"]).splitlines()
    assert lines[2:4] == ["| `selector=a` | 0.000 |  |", "| `selector=b` |  | 1.000 |"]


def test_what_differs_in_one_setting_is_one_table() -> None:
    runs = [Run(str(tau), {"selector.tau": tau}, {"accuracy": tau}) for tau in (0.5, 0.75)]
    lines = summarise.render(runs, ["python evaluate.py -m"]).splitlines()
    assert lines[0] == "| selector.tau | accuracy |"
    assert lines[-1] == "Measured with `python evaluate.py -m`."


def test_writing_replaces_what_stands_between_the_markers_and_nothing_else(sweep, tmp_path) -> None:
    start, end = MARKERS
    file = tmp_path / "page.md"
    file.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    assert summarise.main([str(sweep), "--write", str(file)]) == 0
    once = file.read_text()
    assert summarise.main([str(sweep), "--write", str(file)]) == 0
    assert file.read_text() == once
    assert once.startswith(f"before\n{start}\n\n| accuracy |")
    assert once.endswith(f"\n\n{end}\nafter\n")
    assert "old" not in once


@pytest.mark.parametrize("text", ["nothing", "{start} {end} {end}", "{end} {start}"])
def test_a_file_without_a_clear_place_is_refused_and_left_alone(sweep, tmp_path, capsys, text) -> None:
    file = tmp_path / "page.md"
    before = text.format(start=MARKERS[0], end=MARKERS[1])
    file.write_text(before)
    assert summarise.main([str(sweep), "--write", str(file)]) == 1
    assert "needs <!-- table:needle -->" in capsys.readouterr().err
    assert file.read_text() == before


def test_a_run_that_did_not_end_is_named(sweep, capsys) -> None:
    (sweep / "2" / "metrics.json").unlink()
    assert summarise.main([str(sweep)]) == 1
    assert "metrics.json in 2; these runs did not end" in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path, capsys) -> None:
    assert summarise.main([str(tmp_path)]) == 1
    assert "no run ended there" in capsys.readouterr().err


def test_one_run_of_a_sweep_has_its_command(sweep, capsys) -> None:
    assert summarise.main([str(sweep / "0"), str(sweep / "3")]) == 0
    assert "Measured with `python train.py -m selector=near,distant merger=none,mean`." in capsys.readouterr().out


def test_what_is_no_sweep_is_refused(sweep, tmp_path, capsys) -> None:
    (sweep / "0").rename(tmp_path / "alone")
    assert summarise.main([str(tmp_path / "alone")]) == 1
    assert "has no multirun.yaml: name the folder of a sweep" in capsys.readouterr().err


def test_a_sweep_that_ran_in_parts_is_one_table(sweep, tmp_path, capsys) -> None:
    assert summarise.main([str(sweep)]) == 0
    whole = capsys.readouterr().out.splitlines()
    part = tmp_path / "part"
    part.mkdir()
    (sweep / "3").rename(part / "3")
    (part / "multirun.yaml").write_text((sweep / "multirun.yaml").read_text().replace("near,distant", "distant"))
    assert summarise.main([str(sweep), str(part)]) == 0
    parts = capsys.readouterr().out.splitlines()
    told = [line for line in parts if line.startswith("Measured with")]
    assert [line for line in parts if line not in told] == [line for line in whole if not line.startswith("Measured")]
    assert told == [
        "Measured with `python train.py -m selector=near,distant merger=none,mean` and "
        "`python train.py -m selector=distant merger=none,mean`."
    ]
