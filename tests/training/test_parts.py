"""The table of what trains, and the configurations that it refuses."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vilamp.build import build_model, build_optim
from vilamp.config import compose
from vilamp.errors import ConfigError
from vilamp.models.lora import adapter_parameters
from vilamp.training.parts import Part, parts_table, trained_share, what_trains

SMALL = ["lora=default", "lora.rank=4", "lora.targets=[q_proj]"]


def found(*overrides: str, thaw: str | None = None) -> dict[str, Part]:
    cfg = compose("train", ["logger=csv", *overrides])
    model, optim = build_model(cfg), build_optim(cfg)
    optim.freeze(model)
    if thaw is not None:
        model.get_parameter(thaw).requires_grad_()
    return {part.name: part for part in what_trains(model, optim)}


def test_adapters_are_counted_apart_from_what_they_stand_beside() -> None:
    parts = found(*SMALL, "optim.lr.merger=null")
    language_model = parts["language_model"]
    width, layers = 96, 3
    assert language_model.trains == language_model.adapters == layers * 2 * 4 * width
    assert language_model.what == "adapters train" and language_model.rate == 5e-4
    assert parts["merger"].trains == 0 and parts["merger"].what == "frozen" and parts["merger"].rate is None
    assert parts["selector"].what == "no weights"
    assert parts["projector"].trains == parts["projector"].weights > 0
    assert parts["projector"].what == "trains"


def test_shared_weights_count_once() -> None:
    """The tiny language model's output layer is its embedding."""
    model = build_model(compose("train", ["logger=csv"]))
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert sum(part.weights for part in found().values()) == whole


def test_the_table_says_it_all() -> None:
    parts = list(found(*SMALL).values())
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(parts_table(parts))
    lines = console.export_text().splitlines()
    (row,) = [line for line in lines if "language_model" in line]
    assert "adapters train" in row and "2,304" in row and "0.0005" in row
    assert f"{trained_share(parts):.2%}" in lines[-2]


def test_own_weights_beside_adapters_are_refused() -> None:
    name = "lm.model.norm.weight"
    assert name not in adapter_parameters(build_model(compose("train", ["logger=csv", *SMALL])).language_model)
    with pytest.raises(ConfigError, match=rf"own weights of the language_model would train .*{name}.*lora=none"):
        found(*SMALL, thaw=f"language_model.{name}")


def test_adapters_as_large_as_the_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"78% of all weights would train, most of them in the language_model: lower"):
        found("lora=default", "lora.rank=512")


def test_training_nothing_is_refused() -> None:
    rates = [f"optim.lr.{part}=null" for part in ("merger", "projector", "language_model")]
    with pytest.raises(ConfigError, match="nothing would train"):
        found(*rates, "optim.lr.selector=1e-3")  # differential has no weights
