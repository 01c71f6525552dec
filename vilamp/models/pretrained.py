"""Loading pretrained parts of Transformers, strictly and quietly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from vilamp.errors import ConfigError

M = TypeVar("M")

READABLE = ("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer*", "vilamp.yaml")
"""The files of a repository that are fetched: configurations, weights and tokenizers, and nothing that is code."""

TRANSPORT: Any = HfHubHTTPError.__bases__[0]
"""What the hub's HTTP library raises where nobody answers, whichever library that is."""


def load_pretrained(model_class: type[M], path: str, setting: str, **arguments: Any) -> M:
    """``model_class.from_pretrained(path)``, where a weight that the file lacks is an error and not a random start.

    Weights that the file has and the model does not need (layers behind the one that is read, the other half of a dual
    encoder) are left where they are.

    Args:
        model_class: a model class of Transformers, or an Auto class.
        path: hub id or local folder, with safetensors weights.
        setting: where ``path`` was set, for messages.
        **arguments: passed on.

    Raises:
        ConfigError: nothing readable there, or the weights do not fit the model.
    """
    with reading(path, setting):
        model, info = model_class.from_pretrained(  # type: ignore[attr-defined]
            path, use_safetensors=True, output_loading_info=True, **arguments
        )
    wrong = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if wrong:
        raise ConfigError(
            f"{setting}={path} does not hold the weights of a {model_class.__name__}: {wrong[:5]} (of {len(wrong)})"
        )
    return model


def build_empty(model_class: type[M], path: str, setting: str, *, config: Any = None) -> M:
    """The same model without its weights: parameters on the meta device, buffers real, to be filled by the caller.

    Args:
        model_class: a model class of Transformers, or an Auto class.
        path: hub id or local folder with a ``config.json``; weights are not looked for.
        setting: where ``path`` was set, for messages.
        config: used instead of the one at ``path``.

    Raises:
        ConfigError: no readable ``config.json``.
    """
    with reading(path, setting):
        config = config or (getattr(model_class, "config_class", None) or AutoConfig).from_pretrained(path)
    with init_empty_weights(include_buffers=False), quiet():
        build: Any = getattr(model_class, "from_config", model_class)  # an Auto class chooses the class by the config
        model: M = build(config).eval()
        return model


def local_folder(path: str, setting: str) -> Path:
    """The folder itself, or the one that a hub id's files were fetched to.

    Raises:
        ConfigError: there is no such folder, and no such repository that can be reached.
    """
    if Path(path).is_dir():
        return Path(path)
    with reading(path, setting):
        return Path(snapshot_download(path, allow_patterns=list(READABLE)))


@contextmanager
def reading(path: str, setting: str) -> Iterator[None]:
    """Within this, what cannot be found, reached or read becomes a ConfigError that names the setting."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, SafetensorError, TRANSPORT) as error:
        raise ConfigError(
            f"{setting}={path} cannot be found, reached or read; set {setting} to a local folder, or to the id of a "
            f"repository of the hub if it can be reached from here. The reason: {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and reports while loading: what matters of them is checked above, and becomes an error."""
    verbosity, bar, hub = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()  # each of its retries is a warning
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub_logging.set_verbosity(hub)
        if bar:
            logging.enable_progress_bar()
