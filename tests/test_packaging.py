"""What is built and shipped: the wheel, the source archive, and the versions that they are tested with."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vilamp

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
INFO = f"vilamp_lightning-{vilamp.__version__}.dist-info"


@dataclass(frozen=True)
class Built:
    """What one build made.

    Attributes:
        wheel: names of the files in the wheel, which was built from the source archive.
        sdist: names of the files in the source archive, below its top folder.
        site: the folder that the wheel was unpacked into, as pip does.
    """

    wheel: set[str]
    sdist: set[str]
    site: Path

    def python(self, *arguments: str, cwd: Path) -> str:
        """Run Python with the unpacked wheel before everything else; returns what it printed."""
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        command = [sys.executable, "-P", *arguments]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the source archive, and the wheel from it, once."""
    out, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        archive.extractall(site)
        return Built(set(archive.namelist()), sdist, site)


def _shipped(folder: str) -> set[str]:
    """The files of one folder of the checkout that belong to the project."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    package = _shipped("vilamp") | {f"vilamp/{name}" for name in _shipped("conf")}
    assert {"vilamp/interfaces.py", "vilamp/data/shards.py", "vilamp/conf/selector/differential.yaml"} <= package
    about = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert built.wheel == package | {f"{INFO}/{name}" for name in about}


def test_the_source_archive_holds_what_is_needed_to_build_and_read(built: Built) -> None:
    tops = {name.partition("/")[0] for name in built.sdist}
    texts = {"README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}
    assert tops == texts | {"vilamp", "conf", "train.py", "evaluate.py", "pyproject.toml", "constraints.txt"}
    assert _shipped("vilamp") | _shipped("conf") <= built.sdist


def test_there_is_one_version(built: Built) -> None:
    metadata = email.message_from_string((built.site / INFO / "METADATA").read_text())
    newest = re.search(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert metadata["Version"] == vilamp.__version__ == newest[1]
    assert metadata["License-Expression"] == "Apache-2.0"


def test_an_installed_wheel_lists_its_parts_from_anywhere(built: Built, tmp_path: Path) -> None:
    (tmp_path / "conf" / "selector").mkdir(parents=True)
    (tmp_path / "conf" / "selector" / "stray.yaml").touch()  # nobody's: the current directory is never searched
    code = (
        "import sys\n"
        "from importlib.metadata import distribution\n"
        "command, = distribution('vilamp-lightning').entry_points.select(group='console_scripts', name='vilamp')\n"
        "sys.exit(command.load()(['plugins', '--json']))"
    )
    told = json.loads(built.python("-c", code, cwd=tmp_path))
    assert told["broken"] == []
    found = {(entry["group"], entry["name"]) for entry in told["entries"]}
    groups = {"selector", "merger", "decoder", "benchmark"}
    assert found == {(group, path.stem) for group in groups for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert {entry["origin"] for entry in told["entries"]} == {"built-in"}


def test_an_installed_wheel_finds_its_configuration_and_its_models(built: Built, tmp_path: Path) -> None:
    code = (
        "import json, vilamp.config as c\n"
        "cfg = c.compose('train')\n"
        "print(json.dumps([str(c.conf_dir()), cfg.model.scorer.path]))"
    )
    conf, scorer = (Path(path) for path in json.loads(built.python("-c", code, cwd=tmp_path)))
    assert conf == built.site / "vilamp" / "conf"
    assert scorer == built.site / "vilamp" / "assets" / "tiny" / "scorer"
    assert (scorer / "model.safetensors").is_file()


def test_importing_the_wheel_imports_no_library(built: Built, tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import vilamp\n"
        "print(vilamp.__file__, *sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    file, *modules = built.python("-c", code, cwd=tmp_path).split()
    assert Path(file) == built.site / "vilamp" / "__init__.py"
    assert set(modules) <= {"vilamp", "__future__"}


def test_every_dependency_is_pinned_within_its_range() -> None:
    asked = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    assert len(asked) > 20
    for text in asked:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in PINS, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(PINS[name]), f"{name}=={PINS[name]} is outside {requirement.specifier}"


def test_the_pins_are_in_order_and_name_each_package_once() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert names == [canonicalize_name(name) for name in names]
    assert len(names) == len(PINS) == len(lines)
    assert lines == sorted(lines)
