"""Fixtures that more than one test file uses."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Several processes run the tests, and each starts more; were each to use all cores, they would wait for each other most
# of the time.  OpenMP reads these once, so they stand before anything that imports torch.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from vilamp import locations, plugins  # noqa: E402

# A busy machine is no failure: nothing in these tests is about time.
settings.register_profile("vilamp", deadline=None)
settings.load_profile("vilamp")

_TRAIN = """\
defaults:
  - _self_
  - selector: near
  - data: shards
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
hydra:
  run: {dir: OUT}
  sweep: {dir: OUT, subdir: "${hydra:job.num}"}
num_keyframes: 8
"""


class SourceTree:
    """A small checkout of its own: ``conf/`` with a few options, and ``plugins/`` to fill.

    Attributes:
        root: the folder of the checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("pyproject.toml", "")
        self.write("conf/train.yaml", _TRAIN.replace("OUT", str(root / "runs")))
        self.write("conf/selector/near.yaml", "# The nearest frames\n_target_: none.Near\ntau: 0.5\n")
        self.write("conf/selector/distant.yaml", "# The most distant frames\n_target_: none.Distant\n")
        self.write("conf/data/shards.yaml", "# Any shards\nbatch_size: 4\ntrain: some\n")

    def write(self, path: str, text: str) -> Path:
        """Write one file below the root, with the folders on the way."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def drop_in(
        self, name: str, option: str = "selector/far", code: str = "class Far: ...\n", folder: str | None = None
    ) -> Path:
        """Write a complete plugin project with one option whose target is ``<package>.Far``; returns its folder."""
        package, folder = name.replace("-", "_"), folder or f"plugins/{name}"
        points = f'[project.entry-points."{plugins.ENTRY_POINTS}"]\n{name} = "{package}"\n'
        self.write(f"{folder}/pyproject.toml", f'[project]\nname = "{name}"\nversion = "1.2"\n{points}')
        self.write(f"{folder}/{package}/__init__.py", code)
        self.write(f"{folder}/conf/{option}.yaml", f"# By {name}\n_target_: {package}.Far\n")
        return self.root / folder

    def installed(self, name: str, option: str = "selector/far") -> Path:
        """The same plugin as a wheel unpacks it into site-packages; returns that folder, which is on ``sys.path``."""
        package, site = name.replace("-", "_"), "site-packages"
        self.write(f"{site}/{package}/__init__.py", "class Far: ...\n")
        self.write(f"{site}/{package}/conf/{option}.yaml", f"# By {name}\n_target_: {package}.Far\n")
        self.write(f"{site}/{package}-3.4.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 3.4\n")
        points = f"[{plugins.ENTRY_POINTS}]\n{name} = {package}\n"
        self.write(f"{site}/{package}-3.4.dist-info/entry_points.txt", points)
        return self.root / site


@pytest.fixture(autouse=True)
def no_log_of_an_earlier_test() -> Iterator[None]:
    """Hydra logs to the streams that it finds, which are a test's own and closed behind it."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in list(root.handlers):
        # Those of pytest, which come and go by themselves, are of classes of its own.
        if handler not in before and type(handler).__module__ == "logging":
            root.removeHandler(handler)
            handler.close()


@pytest.fixture
def source_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SourceTree]:
    """A checkout in a temporary folder that stands in for ours while the test runs."""
    tree = SourceTree(tmp_path / "checkout")
    monkeypatch.setattr(locations, "PACKAGE", tree.root / "vilamp")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tree.root / "site-packages")])
    monkeypatch.delenv(plugins.PATH_VARIABLE, raising=False)
    before = set(sys.modules)
    yield tree
    for name in set(sys.modules) - before:
        if str(tree.root) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
