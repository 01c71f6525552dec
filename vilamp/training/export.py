"""A run's model as one folder that stands by itself: adapters merged, each large part as Transformers saves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer

from vilamp.build import RANDOM, build_model, portable
from vilamp.errors import ConfigError, OutputError
from vilamp.models.precision import hold, precision
from vilamp.models.pretrained import TRANSPORT, quiet, reading
from vilamp.models.video_lm import VideoLM
from vilamp.training.trained import (
    CONNECTOR,
    FOLDERS,
    SETTINGS,
    FromRun,
    Trained,
    connector,
    read_trained,
    replace_folder,
    write_tensors,
)

CARD = """---
library_name: vilamp-lightning
---
# {name}

Exported by ViLaMP-Lightning {version} from `{source}`; {dtype}, adapters merged.

| | |
|---|---|
| `language_model/` | `AutoModelForCausalLM.from_pretrained(FOLDER, subfolder="language_model")`, and `AutoTokenizer` |
| `vision_tower/` | a `SiglipVisionModel`, without the layers that nothing reads |
| `scorer/` | a `CLIPModel`, which finds the keyframes |
| `connector.safetensors` | selector, merger and projector |
| `vilamp.yaml` | every setting of the run; its model, selector and merger are those that the weights belong to |

```bash
python evaluate.py checkpoint=FOLDER data=shards 'data.val=my/val-*.tar'
python train.py init=run init.path=FOLDER lora=default data=shards 'data.train=my/train-*.tar' 'data.val=my/val-*.tar'
```
"""


def export(path: str, folder: Path, dtype: str | None = None, *, overwrite: bool = False) -> None:
    """Write the model that a run ended with.

    Args:
        path: any form that :func:`~vilamp.training.trained.read_trained` knows.
        folder: takes its name when it is whole.
        dtype: of all parts but the scorer; None is ``model.dtype`` of the run.
        overwrite: replace an earlier export.

    Raises:
        ConfigError: nothing readable at ``path``, or no such dtype.
        OutputError: there is something at ``folder`` already.
        OSError: the disk is full, or the folder cannot be written.
    """
    if folder.exists() and not (overwrite and (folder / SETTINGS).is_file()):
        hint = "--overwrite replaces it" if (folder / SETTINGS).is_file() else "it is no export, so it is left alone"
        raise OutputError(f"{folder} exists already; {hint}, or name another folder")
    trained = read_trained(path, "RUN")
    cfg = trained.configuration()
    dtype = dtype or cfg.model.get("dtype", "float32")
    wanted = precision(dtype)
    model = _model(trained, cfg).requires_grad_(False)
    hold(model, wanted)

    def fill(place: Path) -> None:
        model.language_model.save(place / "language_model")
        model.vision_tower.save(place / "vision_tower")
        model.scorer.save(place / "scorer")
        for part, tokenizer in (("scorer", model.scorer.tokenizer), ("language_model", model.language_model.tokenizer)):
            with reading(tokenizer, f"model.{part}.path"):
                AutoTokenizer.from_pretrained(tokenizer).save_pretrained(place / part)
        write_tensors(place / CONNECTOR, connector(model))
        (place / SETTINGS).write_text(OmegaConf.to_yaml(OmegaConf.create(_settings(cfg, dtype))), encoding="utf-8")
        (place / "README.md").write_text(_card(folder.name, trained.source, dtype), encoding="utf-8")

    with quiet():
        replace_folder(folder, fill)


def _model(trained: Trained, cfg: DictConfig) -> VideoLM:
    cfg = cfg.copy()
    target = f"{FromRun.__module__}.{FromRun.__qualname__}"
    cfg.init, cfg.lora = {"_target_": target, "path": str(trained.source)}, None
    return build_model(cfg)


def _settings(cfg: DictConfig, dtype: str) -> dict[str, Any]:
    """The run's configuration, as that of a model that needs no other file than those beside it."""
    settings = portable(cfg)
    for part in FOLDERS:
        settings["model"][part]["path"] = part
    settings["model"]["vision_tower"]["hidden_layer"] = -1  # the layers behind it are not in the file
    settings["model"]["projector"]["path"] = RANDOM  # until the connector's file is read
    return settings | {"init": None, "lora": None, "resume": None, "model": {**settings["model"], "dtype": dtype}}


def _card(name: str, source: Path, dtype: str) -> str:
    from vilamp import __version__

    return CARD.format(name=name, version=__version__, source=source.name, dtype=dtype)


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload an exported folder to the hub.

    Args:
        folder: from :func:`export`.
        repository: ``owner/name``; made where it is not there.
        public: whether everybody may read one that is made.

    Returns:
        The address of the upload.

    Raises:
        ConfigError: the hub cannot be reached, or refuses.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except (
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        ConnectionError,
        ValueError,
        TRANSPORT,
    ) as error:
        raise ConfigError(
            f"--push-to-hub={repository}: the hub cannot be reached or refuses: {str(error).splitlines()[0]}; the "
            f"model is in {folder}. `hf auth login` gives a token, HF_ENDPOINT names another hub"
        ) from error
