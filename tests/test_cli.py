"""The command ``vilamp``, the two scripts of a checkout, and how mistakes end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from omegaconf import DictConfig

import vilamp
from vilamp import cli
from vilamp.cli import app
from vilamp.errors import ConfigError, DataError

ROOT = Path(vilamp.__file__).parents[1]


class Recorder:
    """A task that keeps what it was given, and fails where K is 13 (the user's fault) or 14 (ours)."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.__module__ = "some.module"

    def __call__(self, cfg: DictConfig) -> None:
        self.seen.append(cfg.num_keyframes)
        if cfg.num_keyframes == 13:
            raise DataError("13 is unlucky; set num_keyframes")
        if cfg.num_keyframes == 14:
            raise RuntimeError("a fault of ours")


@pytest.fixture
def task() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VILAMP_TRACEBACK", raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)


def test_a_run_gets_the_composed_configuration(source_tree, task) -> None:
    assert app.run(task, "train", ["num_keyframes=5"]) == 0
    assert task.seen == [5]


def test_a_sweep_runs_every_point(source_tree, task) -> None:
    assert app.run(task, "train", ["selector=near,distant", "-m", "num_keyframes=5,6"]) == 0
    assert task.seen == [5, 6, 5, 6]


@pytest.mark.parametrize(
    ("benchmark", "asks"), [([], "validation"), (["benchmark=needle", "data=needle"], "benchmark")]
)
def test_an_evaluation_is_of_a_benchmark_or_else_a_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: list[str], asks: str
) -> None:
    asked = []
    monkeypatch.setattr("vilamp.training.run.evaluate", lambda cfg: asked.append("validation"))
    monkeypatch.setattr("vilamp.evaluation.run.evaluate", lambda cfg: asked.append("benchmark"))
    assert cli.main(["evaluate", "checkpoint=some", f"hydra.run.dir={tmp_path}", *benchmark]) == 0
    assert asked == [asks]


def test_a_run_stays_in_its_directory_and_leaves_the_environment_alone(source_tree, task) -> None:
    cwd, environment = Path.cwd(), dict(os.environ)
    app.run(lambda cfg: task.seen.append(Path.cwd() == cwd), "train", [])
    assert task.seen == [True]
    assert dict(os.environ) == environment


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "multirun"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("selector=neer", "error: there is no selector=neer; did you mean near?; choices of selector: distant, near\n"),
        ("data.bach_size=2", "error: there is no setting 'data.bach_size'; did you mean data.batch_size?"),
        ("selector", "error: cannot read 'selector'"),
        ("data.train='${nowhere}'", "data.train: Interpolation key 'nowhere' not found"),
        ("data.train=???", "no value for data.train; set it on the command line: data.train=..."),
        ("num_keyframes=many", "num_keyframes must be a whole number, got 'many'\n"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_1(source_tree, task, capsys, mode, override, message) -> None:
    def reads_all(cfg: DictConfig) -> None:
        task.seen.append(cfg.data.train)

    assert app.run(reads_all, "train", [*mode, override]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert task.seen == []


def test_a_misspelt_point_of_a_sweep_is_told_before_the_first_point_runs(source_tree, task, capsys) -> None:
    assert app.run(task, "train", ["-m", "selector=near,neer"]) == 1
    assert "did you mean near?" in capsys.readouterr().err
    assert task.seen == []


def test_a_task_that_the_user_can_mend_ends_as_one_message(source_tree, task, capsys) -> None:
    assert app.run(task, "train", ["num_keyframes=13"]) == 1
    assert capsys.readouterr().err == "error: 13 is unlucky; set num_keyframes\n"


def test_a_sweep_goes_on_after_a_point_that_failed(source_tree, task, capsys) -> None:
    assert app.run(task, "train", ["-m", "num_keyframes=5,13,6"]) == 1
    assert task.seen == [5, 13, 6]
    assert "error in num_keyframes=13: 13 is unlucky; set num_keyframes\n" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [[], ["-m"]], ids=["run", "multirun"])
def test_a_fault_of_ours_keeps_its_traceback(source_tree, task, mode) -> None:
    with pytest.raises(RuntimeError, match="a fault of ours"):
        app.run(task, "train", [*mode, "num_keyframes=14"])


def test_a_key_that_the_program_misspells_is_a_fault_of_ours(source_tree) -> None:
    with pytest.raises(Exception, match="no_such_key"):
        app.run(lambda cfg: cfg.no_such_key, "train", [])


@pytest.mark.parametrize("variable", ["VILAMP_TRACEBACK", "HYDRA_FULL_ERROR"])
@pytest.mark.parametrize("override", ["num_keyframes=13", "selector=neer"])
def test_tracebacks_on_demand(source_tree, task, monkeypatch, variable, override) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(Exception, match=r"unlucky|neer"):
        app.run(task, "train", [override])


@pytest.mark.parametrize(
    "argv", [["--no-such-flag"], ["--resolve"], ["-m", "--cfg", "job"], ["--experimental-rerun", "a.pickle"]]
)
def test_misuse_of_the_flags_is_exit_code_2(source_tree, task, capsys, argv) -> None:
    with pytest.raises(SystemExit) as stopped:
        app.run(task, "train", argv, prog="vilamp train")
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: vilamp train")
    assert task.seen == []


def test_the_configuration_can_be_printed(source_tree, task, capsys) -> None:
    assert app.run(task, "train", ["--cfg", "job", "selector=distant"]) == 0
    assert "_target_: none.Distant" in capsys.readouterr().out
    assert task.seen == []


def test_the_help_lists_the_choices_with_those_of_the_plugins(source_tree, task, capsys) -> None:
    source_tree.drop_in("acme-far")
    with pytest.raises(SystemExit) as stopped:
        app.run(task, "train", ["--help"])
    assert stopped.value.code == 0
    assert "selector: distant, far, near" in capsys.readouterr().out


def test_a_name_clash_stops_the_run_with_a_message(source_tree, task, capsys) -> None:
    source_tree.drop_in("acme-far", option="selector/near")
    assert app.run(task, "train", []) == 1
    assert "two owners of selector=near: built-in" in capsys.readouterr().err


def test_the_command_lists_its_subcommands(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for name, (_, text) in cli.COMMANDS.items():
        assert f"{name} " in said
        assert text in said


def test_the_command_tells_its_version(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"vilamp {vilamp.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "name a command"),
        (["tarin"], "did you mean 'train'?"),
        (
            ["zzz"],
            "there are: train, evaluate, compare, report, export, ask, demo, memory, pack, videoniah, index, inspect, "
            "plugins",
        ),
    ],
)
def test_an_unknown_subcommand_is_exit_code_2(capsys, argv, message) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_plugins_prints_a_table_and_warns_of_broken_ones(source_tree, capsys) -> None:
    source_tree.drop_in("acme-far")
    source_tree.write("plugins/broken/pyproject.toml", "[project\n")
    assert cli.main(["plugins"]) == 0
    said = capsys.readouterr()
    assert all(word in said.out for word in ("selector", "near", "built-in", "far", "acme-far 1.2", "By acme-far"))
    assert said.err.startswith("warning: broken (drop-in plugins/broken) cannot be used: cannot read ")


def test_plugins_prints_json(source_tree, capsys) -> None:
    source_tree.drop_in("acme-far")
    source_tree.write("plugins/broken/pyproject.toml", "[project\n")
    source_tree.write("plugins/broken/conf/selector/gone.yaml", "# Gone\n")
    assert cli.main(["plugins", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in told["entries"]] == ["distant", "near", "far", "gone"]
    assert told["entries"][2] == {
        "group": "selector",
        "name": "far",
        "origin": "acme-far 1.2 (drop-in plugins/acme-far)",
        "summary": "By acme-far",
        "error": None,
    }
    assert "cannot read" in told["entries"][3]["error"]
    assert [broken["origin"] for broken in told["broken"]] == ["broken (drop-in plugins/broken)"]


def test_plugins_ends_with_1_where_two_own_one_name(source_tree, capsys) -> None:
    source_tree.drop_in("acme-far", option="selector/near")
    assert cli.main(["plugins"]) == 1
    assert capsys.readouterr().err.startswith("error: two owners of selector=near")


def test_report_needs_no_configuration(capsys) -> None:
    assert app.report(ConfigError("wrong; set it right")) == 1
    assert capsys.readouterr().err == "error: wrong; set it right\n"


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_scripts_help_without_torch_and_hide_no_package(script: str, tmp_path: Path) -> None:
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "__init__.py").touch()  # a package that others import, as Hugging Face's of that name
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = [{script!r}, '--help']\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as stopped: assert not stopped.code, stopped.code\n"
        "import evaluate\n"
        "assert evaluate.__file__.endswith('__init__.py'), evaluate.__file__\n"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    # -P: of the folders on the path only the script's own is the one under test, not the current directory.
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "differential" in done.stdout


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_scripts_are_thin_and_end_with_the_exit_code(script: str, tmp_path: Path) -> None:
    assert len((ROOT / script).read_text().splitlines()) <= 15
    done = subprocess.run([sys.executable, ROOT / script, "no_such=1"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: there is no setting 'no_such'")


def test_threads_sleep_while_they_wait_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for before, after in ((None, "passive"), ("active", "active")):
        monkeypatch.setenv("OMP_WAIT_POLICY", before or "")  # so that what the run sets is undone as well
        if before is None:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        app.run(lambda cfg: None, "train", ["--cfg", "job"])
        assert os.environ["OMP_WAIT_POLICY"] == after


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_another_rank_than_the_first_leaves_no_folder(source_tree, task, monkeypatch, tmp_path, variable) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv(variable, "1")
    assert app.run(task, "train", ["num_keyframes=5"]) == 0
    assert task.seen == [5] and not (source_tree.root / "runs").exists()
    assert not list(temporary.iterdir())
    # Nor does one that is killed: while its task runs there is none.
    app.run(lambda cfg: task.seen.append(list(temporary.iterdir())), "train", [])
    assert task.seen.pop() == []
    monkeypatch.setenv(variable, "0")
    assert app.run(task, "train", ["num_keyframes=6"]) == 0
    assert task.seen == [5, 6] and (source_tree.root / "runs" / ".hydra").is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes")
@pytest.mark.parametrize("command", [["plugins", "--json"], ["--help"], ["pack", "--help"], ["plugins"]])
def test_output_that_nobody_reads_is_no_error(command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"import sys; from vilamp.cli import main; sys.exit(main({command!r}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    # argparse takes no notice, rich ends with 1 by itself.
    assert done.returncode in {"--help": (0, cli.NOT_READ), "--json": (cli.NOT_READ,)}.get(command[-1], (1,))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, which is as full as a disk can be")
@pytest.mark.parametrize("command", [["plugins", "--json"], ["plugins"]])
def test_output_that_finds_no_room_is_one_message(command: list[str]) -> None:
    code = f"import sys; from vilamp.cli import main; sys.exit(main({command!r}))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "error: No space left on device while writing the output\n"
    assert done.returncode == 1


def test_another_broken_pipe_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(argv: list[str], prog: str) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("vilamp.cli.plugins.main", breaks)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        cli.main(["plugins"])
