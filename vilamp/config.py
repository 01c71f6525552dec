"""Composes the configuration from ``conf/`` and the plugins, and says clearly what is wrong with it.

Needs Hydra and OmegaConf, never torch, so that ``--help`` and a misspelt name answer at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vilamp import plugins
from vilamp.errors import ConfigError, PluginError, VilampError
from vilamp.locations import asset, conf_dir

__all__ = [
    "HYDRA_VERSION",
    "USER_ERRORS",
    "compose",
    "conf_dir",
    "explain",
    "override",
    "register",
    "require_complete",
    "require_whole_numbers",
]

HYDRA_VERSION = "1.3"
"""The ``version_base`` of every composition."""

USER_ERRORS = (VilampError, HydraException, OmegaConfBaseException, YAMLError)
"""What composing raises where the user, not the program, is to mend something."""


def register() -> None:
    """Make the plugins' yaml files and the resolver ``${asset:...}`` known; safe to call again.

    Raises:
        PluginError: two owners of one name.
    """
    OmegaConf.register_new_resolver("asset", lambda relative: str(asset(relative)), replace=True)
    plugins.activate()


def compose(config_name: str, overrides: Sequence[str] = (), *, return_hydra_config: bool = False) -> DictConfig:
    """Compose a configuration as the command line does, from Python and in tests.

    Args:
        config_name: a file of ``conf/`` without its suffix, e.g. ``train``.
        overrides: as on the command line, e.g. ``["selector=uniform", "data.batch_size=2"]``.
        return_hydra_config: keep the node ``hydra``.

    Raises:
        ConfigError: an unknown option or key, or an override that cannot be read.
        PluginError: a broken plugin was selected, or two owners of one name.
    """
    register()
    try:
        return _compose(config_name, overrides, return_hydra_config)
    except USER_ERRORS as error:
        raise explain(error, config_name, overrides) from error


def override(key: str, value: Any) -> str:
    """``key=value`` as it stands on the command line: a text, a number, a truth value, None, or a list of them."""
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, str):
        # Backslashes count only before a quote.
        return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def require_complete(cfg: DictConfig) -> None:
    """Raise ConfigError naming every setting that has no value yet (``???``).

    What a setting takes from another one is not looked up: an evaluation's part may take it from the checkpoint's run.
    """
    missing = sorted(key for key, value in _items(OmegaConf.to_container(cfg, resolve=False)) if value == "???")
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}; set it on the command line: {missing[0]}=...")


def require_whole_numbers(cfg: DictConfig) -> None:
    """Raise ConfigError where a setting of the run itself is not what every part takes it for."""
    for key in ("seed", "num_keyframes"):
        value = cfg.get(key)
        if value is not None and type(value) is not int:
            raise ConfigError(f"{key} must be a whole number, got {value!r}")
    seed = cfg.get("seed")
    if seed is not None and not 0 <= seed < 2**32:
        raise ConfigError(f"seed must be 0 to 2^32 - 1, got {seed}")


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> VilampError:
    """Turn whatever composing raised into one message: what is wrong, the value seen and what could be meant."""
    if isinstance(error, VilampError):
        return _without_traceback(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing_option(error)
    if isinstance(error, OverrideParseException):
        reason = [line for line in str(error).splitlines() if not line.startswith("See ")][-1]
        return ConfigError(
            f"cannot read '{error.override}': {reason}; settings are written key=value, "
            "a value with special characters in quotes of its own: 'key=\"value\"'"
        )
    unknown = re.match(r"Could not override '(.+)'\.\nTo append", str(error))
    if isinstance(error, ConfigCompositionException) and unknown:
        return _explain_unknown_key(unknown[1], lambda key: _known_keys(config_name, overrides, key))
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return ConfigError(f"{error.full_key}: {str(error.msg).splitlines()[0]}")
    cause = f": {error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return ConfigError(f"{str(error).strip()}{cause}")


def _without_traceback(error: VilampError) -> VilampError:
    """The error itself, without the traceback that a worker of a DataLoader puts in front of its message."""
    name = type(error).__name__
    if not str(error).startswith(f"Caught {name} in DataLoader worker"):
        return error
    return type(error)(str(error).rpartition(f".{name}: ")[2].strip())


def _compose(config_name: str, overrides: Sequence[str], return_hydra_config: bool = False) -> DictConfig:
    with initialize_config_dir(config_dir=str(conf_dir()), job_name=config_name, version_base=HYDRA_VERSION):
        return hydra_compose(config_name, list(overrides), return_hydra_config=return_hydra_config)


def _explain_missing_option(error: MissingConfigException) -> VilampError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return ConfigError(str(error).splitlines()[0])
    broken = plugins.why_unusable(group, name)
    if broken is not None:
        return PluginError(f"{group}={name} cannot be used: {broken}")
    options = sorted(error.options or ())
    others = [f"{plugin.origin}: {plugin.error}" for plugin in plugins.discover() if plugin.error]
    return ConfigError(
        f"there is no {group}={name}{_did_you_mean(name, options)}; "
        f"choices of {group}: {', '.join(options) or 'none'}"
        + "".join(f"\n(this plugin cannot be used: {other})" for other in others)
    )


def _explain_unknown_key(key: str, known_keys: Callable[[str], list[str]]) -> ConfigError:
    parent, _, last = key.rpartition(".")
    keys = known_keys(key)
    # The path may be right and the last part wrong, or the other way round: "data.bach_size", "batch_size".
    near = [known for known in keys if _alike(known, key) > 0.75 and _alike(known.rpartition(".")[2], last) > 0.6]
    near += [known for known in keys if _alike(known.rpartition(".")[2], last) > 0.8 and known not in near]
    siblings = [known for known in keys if known.rpartition(".")[0] == parent]
    hint = ""
    if near:
        hint = f"; did you mean {' or '.join(near[:4])}?"
    elif siblings:
        hint = f"; there are: {', '.join(siblings)}"
    return ConfigError(f"there is no setting '{key}'{hint} (+{key}=... adds a new one)")


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _known_keys(config_name: str, overrides: Sequence[str], unknown: str) -> list[str]:
    """All keys of the configuration without the override that failed, [] where that does not compose either."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    sound = [o.input_line for o in parsed if not o.is_sweep_override() and o.key_or_group != unknown and o.input_line]
    try:
        return [key for key, _ in _items(OmegaConf.to_container(_compose(config_name, sound), resolve=False))]
    except USER_ERRORS:
        return []  # the message then goes without suggestions


def _items(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _items(value, f"{prefix}{key}.")


def _did_you_mean(name: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean {near[0]}?" if near else ""
