"""The documentation keeps its word: every command is run, composed, or marked as needing a GPU; its plugin works.

A block of commands is marked on the line before it:

* ``run:NAME``: the blocks of a page are run here, in their order, in a folder with the page's own files and a video;
* ``composes:NAME``: they take minutes or need what only a user has, so their settings are composed;
* ``gpu:NAME``: they need a GPU; their settings are composed too;
* ``readme:NAME``: the README's block ``command:NAME``, which continuous integration runs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docs_hooks
import pytest
import readme_block
from hydra.utils import get_class

import vilamp
from vilamp import plugins
from vilamp.cli import COMMANDS
from vilamp.config import compose
from vilamp.testing import merger_checks
from vilamp.testing.clips import clips

ROOT = Path(vilamp.__file__).parents[1]
PAGES = {page.relative_to(ROOT / "docs").as_posix(): page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md")}
BLOCKS = {name: readme_block.marked_blocks(text) for name, text in PAGES.items()}
MARKED = [(page, mark) for page, blocks in BLOCKS.items() for mark in blocks]
CONFIGS = {
    "python train.py": "train",
    "vilamp train": "train",
    "python evaluate.py": "evaluate",
    "vilamp evaluate": "evaluate",
    "vilamp memory": "memory",
}
SHELL = 'set -euo pipefail; vilamp() { "$PYTHON" -c "import sys, vilamp.cli as c; sys.exit(c.main())" "$@"; }\n'


def files_of(page: str, folder: Path) -> None:
    """Write the files that a page shows."""
    for mark, code in BLOCKS[page].items():
        if mark.startswith("file:"):
            file = folder / mark.removeprefix("file:")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code)


@pytest.fixture
def drop_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of the docs in a folder of its own, forgotten afterwards."""
    files_of("plugins.md", tmp_path / "my_merger")
    monkeypatch.setenv(plugins.PATH_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_merger", None)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_is_marked(page: str) -> None:
    marks = re.findall(r"(?:<!-- (\w+):\S+ -->)?\n```(?:bash|sh)\n", PAGES[page])
    assert set(marks) <= {"run", "composes", "gpu", "readme"}, f"see {Path(__file__).name} for the marks of a block"


@pytest.mark.parametrize("page", sorted({page for page, mark in MARKED if mark.startswith("run:")}))
def test_commands_run(page: str, tmp_path: Path) -> None:
    files_of(page, tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "kitchen.mp4").write_bytes(clips()[0].source)
    commands = "".join(code for mark, code in BLOCKS[page].items() if mark.startswith("run:"))
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", SHELL + commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    if page == "own_videos.md":
        assert (tmp_path / "runs" / "first" / "report.html").is_file()


@pytest.mark.parametrize(("page", "mark"), [(p, m) for p, m in MARKED if m.startswith(("composes:", "gpu:"))])
def test_settings_compose(drop_in: None, page: str, mark: str) -> None:
    for line in BLOCKS[page][mark].replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        programs = [(" ".join(words[i : i + 2]), i + 2) for i in range(len(words))]
        programs += [(f"python {word}", i + 1) for i, word in enumerate(words)]  # torchrun and the like
        found = next(((CONFIGS[name], words[at:]) for name, at in programs if name in CONFIGS), None)
        if found is None:
            assert not words or words[0] not in ("vilamp", "python") or words[1] in COMMANDS, line
            continue
        config, given = found
        sweep = "-m" in given
        given = [word.split(",")[0] if sweep else word for word in given if "=" in word and not word.startswith("-")]
        assert compose(config, given), line


def test_blocks_of_the_readme_are_those_of_the_readme() -> None:
    readme = readme_block.marked_blocks((ROOT / "README.md").read_text("utf-8"))
    taken = [(page, mark) for page, mark in MARKED if mark.startswith("readme:")]
    assert taken
    assert all(BLOCKS[page][mark] == readme[f"command:{mark.removeprefix('readme:')}"] for page, mark in taken)


def test_the_merger_of_the_docs_keeps_the_contract_and_tells_its_weights(drop_in: None) -> None:
    merger = get_class(compose("train", ["merger=my_merger"]).merger._target_)
    for check in merger_checks():
        check(merger)


def test_the_nav_has_every_page_that_there_is_and_no_other() -> None:
    nav = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert set(PAGES) <= set(nav)
    kept = docs_hooks.existing([{"A": "index.md"}, {"B": "none.md"}, {"C": [{"D": "none.md"}]}], ROOT / "docs")
    assert kept == [{"A": "index.md"}]


def test_references_of_docstrings_become_names() -> None:
    shown = docs_hooks.on_page_content("see :class:<code>~vilamp.interfaces.FrameMerger</code>, :func:<code>f</code>")
    assert shown == "see <code>FrameMerger</code>, <code>f</code>"
