"""The walls of the house: who may import whom, and how long a room may be.

Imports are read from the syntax tree, those inside functions included, so nothing is imported here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "vilamp").rglob("*.py"))
}

STOREYS = [
    {"credentials", "errors", "locations", "disk"},
    {"file_kinds", "probe", "video", "benchmark"},
    {"embedding_cache", "frame_file"},
    {"interfaces", "samples", "plugins"},
    {"config", "testing", "report"},
    {"selectors", "mergers", "decoders", "models", "data"},
    {"build", "training", "session", "memory", "benchmarks", "videoniah"},
    {"evaluation", "demo"},
    {"cli", "__init__"},
]
"""From the ground up; a room imports from its own storey and those below, never from one above.

``__init__`` is the front door, which leads to ``session`` when somebody loads a model.
"""

STRANGERS = {"selectors", "mergers", "decoders", "models", "data"}
"""Rooms that must not know each other: what passes between them is typed in interfaces.py and samples.py."""

FORBIDDEN = {
    "interfaces": {"hydra", "omegaconf", "lightning", "transformers"},
    "embedding_cache": {"hydra", "omegaconf", "lightning", "transformers"},
    "frame_file": {"hydra", "omegaconf", "lightning", "transformers"},
    "samples": {"hydra", "omegaconf", "lightning", "transformers"},
    "selectors": {"hydra", "omegaconf", "lightning", "transformers"},
    "mergers": {"hydra", "omegaconf", "lightning", "transformers"},
    "testing": {"hydra", "omegaconf", "lightning", "transformers"},
    "models": {"hydra", "omegaconf", "lightning"},
    "data": {"hydra", "omegaconf"},
    "file_kinds": {"torch", "hydra", "omegaconf", "lightning"},
    "probe": {"torch", "hydra", "omegaconf", "lightning"},
    "video": {"torch", "hydra", "omegaconf", "lightning"},
    "benchmark": {"torch", "hydra", "omegaconf", "lightning"},
    "benchmarks": {"torch", "hydra", "omegaconf", "lightning", "transformers"},
    "videoniah": {"torch", "hydra", "omegaconf", "lightning", "transformers"},
    "decoders": {"hydra", "omegaconf", "lightning", "transformers"},
    "credentials": {"torch", "hydra", "omegaconf", "lightning"},
    "errors": {"torch", "hydra", "omegaconf", "lightning"},
    "disk": {"torch", "hydra", "omegaconf", "lightning"},
    "locations": {"torch", "hydra", "omegaconf", "lightning"},
    "report": {"torch", "hydra", "lightning", "transformers"},
    "plugins": {"torch", "omegaconf", "lightning", "rich"},
    "config": {"torch", "lightning"},
    "__init__": {"torch", "hydra", "omegaconf", "lightning"},
}
"""Libraries that a room must do without."""


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports; of ``from a import b`` that is ``a.b`` where it is a module, else both."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names
            if not set(names) <= set(MODULES):
                yield str(node.module)


GRAPH = {
    module: {name for name in _imports(path) if name in MODULES and name not in ("vilamp", module)}
    for module, path in MODULES.items()
}


def test_every_room_stands_on_a_storey() -> None:
    rooms = {_room(module) for module in MODULES}
    assert {"interfaces", "selectors", "mergers", "models", "data", "training", "cli"} <= rooms
    assert rooms <= set().union(*STOREYS), "give the new room its storey in this file"


def test_imports_run_downwards_only() -> None:
    storey = {room: height for height, rooms in enumerate(STOREYS) for room in rooms}
    upwards = [
        f"{module} imports {name}"
        for module, names in GRAPH.items()
        for name in names
        if storey[_room(name)] > storey[_room(module)]
    ]
    assert not upwards


def test_selectors_mergers_models_and_data_do_not_know_each_other() -> None:
    acquainted = [
        f"{module} imports {name}"
        for module, names in GRAPH.items()
        for name in names
        if _room(module) != _room(name) and {_room(module), _room(name)} <= STRANGERS
    ]
    assert not acquainted


def test_there_is_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for name in sorted(GRAPH[module]):
                visit(name, (*trail, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())
    assert done == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_does_without_what_it_must_not_know(module: str) -> None:
    libraries = {name.partition(".")[0] for name in _imports(MODULES[module])}
    assert not libraries & FORBIDDEN.get(_room(module), set())


def test_only_the_builder_instantiates() -> None:
    makers = {module for module, path in MODULES.items() if "hydra.utils.instantiate" in set(_imports(path))}
    assert makers <= {"vilamp.build"}


def test_folders_that_are_no_packages_are_never_imported() -> None:
    folders = {"data", "plugins", "conf", "tests", "scripts", "benchmarks", "docs"}
    files = [path for folder in ("vilamp", "tests", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > len(MODULES)
    strays = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in _imports(path)
        if name.partition(".")[0] in folders
    ]
    assert not strays


def test_plugins_import_only_what_is_public_to_them() -> None:
    files = list((ROOT / "plugins").glob("*/vilamp_*/**/*.py"))
    assert files
    allowed = {"vilamp.interfaces", "vilamp.video", "vilamp.benchmark", "vilamp.errors", "vilamp.testing"}
    used = {".".join(name.split(".")[:2]) for path in files for name in _imports(path) if name.startswith("vilamp.")}
    assert used <= allowed


@pytest.mark.parametrize("path", [*MODULES.values(), ROOT / "train.py", ROOT / "evaluate.py"], ids=lambda p: p.name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 70, f"{node.name} is too long"
