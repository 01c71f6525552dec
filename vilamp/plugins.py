"""Finds plugins and puts their yaml files on Hydra's search path, without importing any of them.

A plugin is a project with one entry point in the group ``vilamp.plugins`` whose value is its package, and a folder
``conf/<group>/<name>.yaml``.  It is used in one of two ways:

* **installed**: found through its metadata; the yaml files lie in ``<package>/conf`` (a wheel) or in ``conf/`` beside
  the package (an editable install);
* **drop-in**: a folder with a ``pyproject.toml`` in ``plugins/`` of the checkout, or named by ``VILAMP_PLUGIN_PATH``
  (folders joined as in ``PATH``, each one project or a folder of projects).  Its package is imported from where it
  lies: the folder goes to the end of ``sys.path``, so that it can hide nothing.

The current directory is never searched.

Where a project is both, the installed copy is the one that Python imports, so its yaml files are used as well.

Two owners of one name stop every run (Hydra would silently take the first).  Anything else that is wrong with a plugin
stops only the runs that select it, with the plugin's own message.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from vilamp.errors import PluginError
from vilamp.locations import checkout, conf_dir

ENTRY_POINTS = "vilamp.plugins"
PATH_VARIABLE = "VILAMP_PLUGIN_PATH"
BUILT_IN = "built-in"
GROUPS = ("selector", "merger", "decoder", "benchmark")
"""The groups of ``conf/`` in which one option can take the place of another without knowing the rest."""


@dataclass(frozen=True)
class Plugin:
    """One plugin as it was found.

    Attributes:
        name: of the project.
        origin: the project with its version and where it comes from, as users read it.
        package: the package to import, empty where it is not known.
        conf: the folder of its yaml files, None where there is none.
        error: why it cannot be used, None where it can.
    """

    name: str
    origin: str
    package: str = ""
    conf: Path | None = None
    error: str | None = None


@dataclass(frozen=True)
class Entry:
    """One value that a group can take on the command line.

    Attributes:
        group: the folder in ``conf/``, e.g. ``selector``.
        name: the value, e.g. ``uniform``.
        origin: :data:`BUILT_IN`, or the plugin that brings it.
        summary: the first comment line of the yaml file.
        path: the yaml file.
        error: why it cannot be selected, None where it can.
    """

    group: str
    name: str
    origin: str
    summary: str
    path: Path
    error: str | None = None


def discover() -> list[Plugin]:
    """Find all plugins, installed ones first; makes the packages of the drop-ins importable."""
    points = sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value))
    installed = [_installed(point) for point in points]
    taken = {_normalised(plugin.name) for plugin in installed}
    folders, misnamed = _drop_in_folders()
    return installed + [plugin for folder in folders for plugin in _drop_ins(folder, taken)] + misnamed


def listing() -> list[Entry]:
    """Everything that can be selected: of the built-ins what is in :data:`GROUPS`, of the plugins all.

    Raises:
        PluginError: two owners of one name.
    """
    plugins = discover()
    check_names(plugins)
    entries = [entry for entry in _entries(conf_dir(), BUILT_IN) if entry.group in GROUPS]
    for plugin in plugins:
        if plugin.conf is not None:
            entries.extend(_entries(plugin.conf, plugin.origin, plugin.error))
    return sorted(entries, key=lambda entry: (*_group_order(entry.group), entry.origin != BUILT_IN, entry.name))


def check_names(plugins: list[Plugin]) -> None:
    """Raise PluginError where a plugin brings a name that is built in or that another plugin brings."""
    owners = {(entry.group, entry.name): entry for entry in _entries(conf_dir(), BUILT_IN)}
    for plugin in plugins:
        # Without its package the project was not understood, and its files are on no search path.
        if plugin.conf is None or not plugin.package:
            continue
        for entry in _entries(plugin.conf, plugin.origin):
            first = owners.setdefault((entry.group, entry.name), entry)
            if first.path != entry.path:
                raise PluginError(
                    f"two owners of {entry.group}={entry.name}: {first.origin} ({first.path}) and "
                    f"{entry.origin} ({entry.path}); rename or remove one of the two files"
                )


def owner_of(group: str, name: str) -> str:
    """The origin of one option: :data:`BUILT_IN` or the plugin that brings it.

    Raises:
        PluginError: nobody brings it.
    """
    for conf, origin in [(conf_dir(), BUILT_IN), *((plugin.conf, plugin.origin) for plugin in discover())]:
        if conf is not None and (conf / group / f"{name}.yaml").is_file():
            return origin
    raise PluginError(f"there is no {group}={name}; `vilamp plugins` lists what there is")


def owner_of_target(target: str) -> str:
    """Who brings the class that a ``_target_`` names, for messages."""
    package = target.partition(".")[0]
    if package == "vilamp":
        return BUILT_IN
    origins = (plugin.origin for plugin in discover() if plugin.package == package)
    return next(origins, f"the Python package '{package}', which no plugin brings")


def why_unusable(group: str, name: str) -> str | None:
    """What is wrong with the plugin that brings this option, None where no broken plugin does."""
    for plugin in discover():
        if plugin.error and plugin.conf is not None and (plugin.conf / group / f"{name}.yaml").is_file():
            return f"{plugin.origin}: {plugin.error}"
    return None


def activate() -> None:
    """Let Hydra find the plugins' yaml files from now on.

    Raises:
        PluginError: two owners of one name.
    """
    check_names(discover())
    Plugins.instance().register(_PluginSearchPath)


class _PluginSearchPath(SearchPathPlugin):
    """Registered by our own command line; a ``hydra_plugins`` package would run inside every Hydra program."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for plugin in discover():
            if plugin.conf is not None and plugin.error is None:
                search_path.append(f"plugin {plugin.name}", f"file://{plugin.conf}")


def _installed(point: metadata.EntryPoint) -> Plugin:
    project = point.dist.name if point.dist is not None else point.name
    version = f" {point.dist.version}" if point.dist is not None else ""
    return _resolved(Plugin(project, f"{project}{version} (installed)"), point.value)


def _drop_in_folders() -> tuple[list[Path], list[Plugin]]:
    """The projects to look at, each once, and a broken plugin for every entry of PATH_VARIABLE that names none."""
    root = checkout()
    folders = [] if root is None else _projects_in(root / "plugins")
    misnamed = []
    for text in filter(None, os.environ.get(PATH_VARIABLE, "").split(os.pathsep)):
        entry, origin = Path(text).expanduser(), f"{PATH_VARIABLE} entry '{text}'"
        if not entry.is_absolute():
            misnamed.append(Plugin(text, origin, error="the folder must be absolute"))
        elif found := [entry] if (entry / "pyproject.toml").is_file() else _projects_in(entry):
            folders += found
        else:
            misnamed.append(Plugin(text, origin, error="neither a plugin project nor a folder of them"))
    return list(dict.fromkeys(folder.resolve() for folder in folders)), misnamed


def _projects_in(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob("*/pyproject.toml"))


def _drop_ins(folder: Path, installed: set[str]) -> list[Plugin]:
    """The plugins of one project folder, or one that says why it is none; nothing where the project is installed."""
    file, root = folder / "pyproject.toml", checkout()
    place = folder.relative_to(root) if root is not None and root in folder.parents else folder
    unknown = Plugin(folder.name, f"{folder.name} (drop-in {place})", conf=_folder(folder / "conf"))
    try:
        declared: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        project = declared["project"]
        name, version = str(project["name"]), project.get("version")
        packages = [str(value) for value in project["entry-points"][ENTRY_POINTS].values()]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return [replace(unknown, error=f"cannot read {file}: {error}")]
    except (KeyError, AttributeError, TypeError):
        return [replace(unknown, error=f'{file} lacks [project] name or [project.entry-points."{ENTRY_POINTS}"]')]
    if _normalised(name) in installed:
        return []
    origin = f"{name} {version or ''}".strip() + f" (drop-in {place})"
    return [_resolved(replace(unknown, name=name, origin=origin), package, folder) for package in packages]


def _resolved(plugin: Plugin, package: str, project: Path | None = None) -> Plugin:
    """Locate a plugin's package and its yaml files; ``project`` is the folder of a drop-in."""
    if not package.isidentifier():
        return replace(plugin, error=f"its entry point must name a top-level package, got '{package}'")
    home = None if project is None else next((f for f in (project, project / "src") if (f / package).is_dir()), None)
    if home is not None and str(home) not in sys.path:
        sys.path.append(str(home))
    spec = find_spec(package) if package != "__main__" else None
    if spec is None or not spec.submodule_search_locations:
        return replace(plugin, error=f"its entry point names the package '{package}', which cannot be found")
    imported = Path(next(iter(spec.submodule_search_locations))).resolve()
    if project is not None and project not in imported.parents:
        return replace(plugin, package=package, error=f"Python imports the package '{package}' from {imported} instead")
    conf = _conf_of(imported)
    return replace(plugin, package=package, conf=conf, error=None if conf else "it has no folder conf/ with yaml files")


def _conf_of(package: Path) -> Path | None:
    """The yaml files of a package: inside it (a wheel), or beside it in the project (a source tree)."""
    project = package.parent.parent if package.parent.name == "src" else package.parent
    is_project = (project / "pyproject.toml").is_file()  # else a "conf" beside it is somebody else's
    return _folder(package / "conf") or (_folder(project / "conf") if is_project else None)


def _folder(path: Path) -> Path | None:
    return path if path.is_dir() else None


def _entries(conf: Path, origin: str, error: str | None = None) -> Iterator[Entry]:
    # Hidden files are what editors leave while a file is open; some of them are links to nothing.
    for path in sorted(p for p in conf.rglob("*.yaml") if p.is_file() and not p.name.startswith(".")):
        group = path.parent.relative_to(conf).as_posix()
        yield Entry("" if group == "." else group, path.stem, origin, _summary(path), path, error)


def _summary(path: Path) -> str:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and text and not text.startswith("@package"):
            return text
    return ""


def _group_order(group: str) -> tuple[int, str]:
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
