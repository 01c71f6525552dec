"""Discovery, names and failures of plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.utils import get_class

from vilamp import plugins
from vilamp.config import compose
from vilamp.errors import ConfigError, PluginError


def _names(group: str = "selector") -> list[str]:
    return [entry.name for entry in plugins.listing() if entry.group == group]


def _entry(name: str) -> plugins.Entry:
    return next(entry for entry in plugins.listing() if entry.name == name)


def test_the_listing_tells_group_name_origin_and_summary(source_tree) -> None:
    source_tree.drop_in("acme-far")
    builtin, far = _entry("near"), _entry("far")
    assert (builtin.group, builtin.origin, builtin.summary) == ("selector", "built-in", "The nearest frames")
    assert (far.group, far.origin, far.summary) == (
        "selector",
        "acme-far 1.2 (drop-in plugins/acme-far)",
        "By acme-far",
    )
    assert _names("data") == []  # of the built-ins only what plugins can replace


def test_a_drop_in_can_be_selected_and_imported(source_tree) -> None:
    source_tree.drop_in("acme-far")
    cfg = compose("train", ["selector=far"])
    assert cfg.selector._target_ == "acme_far.Far"
    assert get_class(cfg.selector._target_).__module__ == "acme_far"


def test_a_drop_in_may_keep_its_package_in_src(source_tree) -> None:
    project = source_tree.drop_in("acme-far")
    (project / "src").mkdir()
    (project / "acme_far").rename(project / "src" / "acme_far")
    assert get_class(compose("train", ["selector=far"]).selector._target_).__name__ == "Far"


def test_finding_a_plugin_does_not_import_it(source_tree) -> None:
    source_tree.drop_in("acme-far")
    plugins.listing()
    compose("train", ["selector=far"])
    assert "acme_far" not in sys.modules


def test_the_folder_of_a_drop_in_goes_to_the_end_of_the_path(source_tree) -> None:
    project = source_tree.drop_in("acme-far")
    before = list(sys.path)
    plugins.discover()
    plugins.discover()
    assert sys.path == [*before, str(project)]


def test_an_installed_plugin_brings_its_yaml_in_its_package(source_tree) -> None:
    source_tree.installed("acme-far")
    assert _entry("far").origin == "acme-far 3.4 (installed)"
    assert get_class(compose("train", ["selector=far"]).selector._target_).__name__ == "Far"


def test_an_editable_install_finds_its_yaml_beside_the_package(source_tree) -> None:
    site = source_tree.installed("acme-far")
    project = source_tree.drop_in("acme-far", folder="elsewhere/acme-far")
    shutil.rmtree(site / "acme_far")
    sys.path.insert(0, str(project))  # what the .pth file of an editable install does
    assert _entry("far").path == project / "conf" / "selector" / "far.yaml"


def test_a_conf_folder_that_lies_in_site_packages_by_chance_is_not_a_plugins(source_tree) -> None:
    site = source_tree.installed("acme-far")
    source_tree.write("site-packages/conf/selector/stranger.yaml", "# Nobody's\n")
    (site / "acme_far" / "conf").rename(site / "acme_far" / "settings")
    assert "stranger" not in _names()
    assert [plugin.error for plugin in plugins.discover() if plugin.name == "acme-far"] == [
        "it has no folder conf/ with yaml files"
    ]


def test_an_installed_copy_comes_before_the_drop_in_of_the_same_project(source_tree) -> None:
    site = source_tree.installed("acme-far")
    source_tree.drop_in("Acme_Far")  # the same project name, spelt another way
    assert _names().count("far") == 1
    assert _entry("far").path.is_relative_to(site)


@pytest.mark.parametrize("entry", ["more", "more/acme-far"], ids=["folder of projects", "one project"])
def test_the_path_variable_names_projects_or_folders_of_them(source_tree, monkeypatch, entry) -> None:
    source_tree.drop_in("acme-far", folder="more/acme-far")
    assert "far" not in _names()
    monkeypatch.setenv(plugins.PATH_VARIABLE, os.pathsep.join(["", str(source_tree.root / entry), ""]))
    assert "far" in _names()


def test_one_project_named_twice_is_one_plugin(source_tree, monkeypatch) -> None:
    source_tree.drop_in("acme-far")
    monkeypatch.setenv(plugins.PATH_VARIABLE, str(source_tree.root / "plugins"))
    assert _names().count("far") == 1


def test_the_current_directory_is_never_searched(source_tree, monkeypatch) -> None:
    source_tree.drop_in("acme-far", folder="here/plugins/acme-far")
    source_tree.write("here/conf/selector/stray.yaml", "# Nobody's\n")
    monkeypatch.chdir(source_tree.root / "here")
    monkeypatch.setenv(plugins.PATH_VARIABLE, f"plugins{os.pathsep}.")
    assert {"far", "stray"}.isdisjoint(_names())
    errors = [plugin.error for plugin in plugins.discover() if plugin.error]
    assert set(errors) == {"the folder must be absolute"}


def test_a_path_entry_without_plugins_is_told_and_harms_nobody(source_tree, monkeypatch) -> None:
    monkeypatch.setenv(plugins.PATH_VARIABLE, str(source_tree.root / "nothing"))
    assert compose("train").selector.tau == 0.5
    with pytest.raises(ConfigError, match=r"there is no selector=far.*\n.*nothing.*neither a plugin project"):
        compose("train", ["selector=far"])


@pytest.mark.parametrize("option", ["selector/near", "data/shards", "train"])
def test_a_plugin_that_reuses_a_built_in_name_stops_every_run(source_tree, option) -> None:
    project = source_tree.drop_in("acme-far", option=option)
    with pytest.raises(PluginError) as caught:
        compose("train", ["selector=distant"])
    assert "built-in" in str(caught.value)
    assert "acme-far 1.2" in str(caught.value)
    assert str(project / "conf" / f"{option}.yaml") in str(caught.value)
    with pytest.raises(PluginError):
        plugins.listing()


def test_two_plugins_with_one_name_are_an_error_that_names_both(source_tree) -> None:
    source_tree.drop_in("acme-far")
    source_tree.drop_in("other-far")
    with pytest.raises(PluginError, match=r"selector=far: acme-far 1\.2 .* and other-far 1\.2"):
        compose("train")


def test_one_name_in_two_groups_is_no_clash(source_tree) -> None:
    source_tree.drop_in("acme-far", option="merger/near")
    assert compose("train", ["+merger=near"]).merger._target_ == "acme_far.Far"


def test_a_missing_dependency_harms_only_those_who_select_it(source_tree) -> None:
    source_tree.drop_in("acme-far", code="import no_such_library\nclass Far: ...\n")
    assert compose("train").selector.tau == 0.5
    assert _entry("far").error is None
    target = compose("train", ["selector=far"]).selector._target_
    with pytest.raises(Exception, match="no_such_library"):
        get_class(target)
    assert plugins.owner_of_target(target) == "acme-far 1.2 (drop-in plugins/acme-far)"


@pytest.mark.parametrize(
    ("pyproject", "why"),
    [
        ("[project\n", r"cannot read .*pyproject\.toml: Expected"),
        ('[project]\nname = "acme-far"\n', r"lacks \[project\] name or \[project\.entry-points"),
        ("project = 3\n", r"lacks \[project\] name"),
        (
            '[project]\nname = "acme-far"\n[project.entry-points."vilamp.plugins"]\na = "acme.far"\n',
            "must name a top-level package, got 'acme.far'",
        ),
        (
            '[project]\nname = "acme-far"\n[project.entry-points."vilamp.plugins"]\na = "acme_near"\n',
            "'acme_near', which cannot be found",
        ),
        (
            '[project]\nname = "acme-far"\n[project.entry-points."vilamp.plugins"]\na = "__main__"\n',
            "'__main__', which cannot be found",
        ),
    ],
    ids=["no toml", "no entry point", "no table", "dotted package", "no such package", "main"],
)
def test_a_broken_project_stops_only_the_runs_that_select_it(source_tree, pyproject, why) -> None:
    (source_tree.drop_in("acme-far") / "pyproject.toml").write_text(pyproject)
    assert compose("train", ["selector=distant"]).selector._target_ == "none.Distant"
    with pytest.raises(PluginError, match=f"(?s)selector=far cannot be used: .*{why}"):
        compose("train", ["selector=far"])
    assert _entry("far").error


def test_a_package_that_python_imports_from_elsewhere_is_told(source_tree) -> None:
    source_tree.drop_in("acme-far")
    source_tree.write("site-packages/acme_far/__init__.py", "")
    with pytest.raises(PluginError, match=r"Python imports the package 'acme_far' from .*site-packages"):
        compose("train", ["selector=far"])


def test_what_an_editor_leaves_beside_a_yaml_is_no_option(source_tree) -> None:
    project = source_tree.drop_in("acme-far")
    (project / "conf" / "selector" / ".#far.yaml").symlink_to("nobody@nowhere")
    assert {entry.name for entry in plugins.listing() if entry.origin.startswith("acme-far")} == {"far"}


def test_a_broken_yaml_stops_only_the_runs_that_select_it(source_tree) -> None:
    project = source_tree.drop_in("acme-far")
    (project / "conf" / "selector" / "far.yaml").write_text("# By acme-far\n_target_: [unclosed\n")
    assert compose("train").selector.tau == 0.5
    with pytest.raises(ConfigError, match=r"far\.yaml"):
        compose("train", ["selector=far"])


def test_owner_of_names_who_brings_an_option(source_tree) -> None:
    source_tree.drop_in("acme-far")
    assert plugins.owner_of("selector", "near") == "built-in"
    assert plugins.owner_of("selector", "far") == "acme-far 1.2 (drop-in plugins/acme-far)"
    with pytest.raises(PluginError, match="there is no selector=nobody"):
        plugins.owner_of("selector", "nobody")


def test_owner_of_target_names_who_brings_a_class(source_tree) -> None:
    source_tree.drop_in("acme-far")
    assert plugins.owner_of_target("vilamp.selectors.uniform.Uniform") == "built-in"
    assert plugins.owner_of_target("acme_far.Far") == "acme-far 1.2 (drop-in plugins/acme-far)"
    assert "'stranger'" in plugins.owner_of_target("stranger.Class")


def test_finding_plugins_imports_neither_torch_nor_the_plugins(tmp_path: Path) -> None:
    code = (
        "import sys, vilamp\n"
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)\n"
        "import vilamp.plugins, vilamp.config, vilamp.cli\n"
        "assert vilamp.plugins.listing()\n"
        "vilamp.config.compose('train', ['selector=aks', 'merger=tome'])\n"
        "loaded = {'torch', 'lightning', 'transformers', 'vilamp_aks', 'vilamp_tome'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=_environment(), check=True)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(plugins.__file__).parents[1])}
