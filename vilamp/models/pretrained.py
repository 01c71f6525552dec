"""Loading pretrained parts of Transformers, strictly and quietly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from accelerate import init_empty_weights
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from vilamp.errors import ConfigError

M = TypeVar("M")


def load_pretrained(model_class: type[M], path: str, **arguments: Any) -> M:
    """``model_class.from_pretrained(path)``, where a weight that the file lacks is an error and not a random start.

    Weights that the file has and the model does not need (layers behind the one that is read, the other half of a dual
    encoder) are left where they are.

    Args:
        model_class: a model class of Transformers, or an Auto class.
        path: hub id or local folder, with safetensors weights.
        **arguments: passed on.

    Raises:
        ConfigError: nothing readable there, or the weights do not fit the model.
    """
    try:
        with _quiet():
            model, info = model_class.from_pretrained(  # type: ignore[attr-defined]
                path, use_safetensors=True, output_loading_info=True, **arguments
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot load a {model_class.__name__} from {path}: {error}") from error
    wrong = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if wrong:
        raise ConfigError(
            f"{path} does not hold the weights of a {model_class.__name__}: {wrong[:5]} (of {len(wrong)})"
        )
    return model


def build_empty(model_class: type[M], path: str, *, config: Any = None) -> M:
    """The same model without its weights: parameters on the meta device, buffers real, to be filled by the caller.

    Args:
        model_class: a model class of Transformers, or an Auto class.
        path: hub id or local folder with a ``config.json``; weights are not looked for.
        config: used instead of the one at ``path``.

    Raises:
        ConfigError: no readable ``config.json``.
    """
    try:
        config = config or (getattr(model_class, "config_class", None) or AutoConfig).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the configuration of a {model_class.__name__} at {path}: {error}") from error
    with init_empty_weights(include_buffers=False), _quiet():
        build: Any = getattr(model_class, "from_config", model_class)  # an Auto class chooses the class by the config
        model: M = build(config).eval()
        return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and reports while loading: what matters of them is checked above, and becomes an error."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
