"""What trains: a table of the model's parts, and the mistakes that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from torch import nn

from vilamp.errors import ConfigError
from vilamp.models.lora import adapter_parameters
from vilamp.training.optim import PartwiseAdamW


@dataclass(frozen=True)
class Part:
    """One part of the model, when it is known what trains.

    Attributes:
        name: as in ``optim.lr``.
        trains: number of its weights that train.
        weights: number of all its weights, adapters included.
        adapters: number of weights in its adapters.
        rate: the peak learning rate; None where nothing trains.
    """

    name: str
    trains: int
    weights: int
    adapters: int
    rate: float | None

    @property
    def what(self) -> str:
        """In words."""
        if not self.trains:
            return "frozen" if self.weights else "no weights"
        return "adapters train" if self.adapters else "trains"


def what_trains(model: nn.Module, optim: PartwiseAdamW) -> list[Part]:
    """The parts of a model that :meth:`~vilamp.training.optim.PartwiseAdamW.freeze` has been through.

    Args:
        model: whose children are the parts.
        optim: its rates.

    Raises:
        ConfigError: nothing trains; own weights beside adapters do; or a run that was to train adapters trains most of
            the model.
    """
    found = []
    for name, part in model.named_children():
        of_adapters = adapter_parameters(part)
        parameters = dict(part.named_parameters())  # each once, however many names it has
        trained = {key for key, parameter in parameters.items() if parameter.requires_grad}
        if of_adapters and trained - of_adapters:
            raise ConfigError(
                f"lora is set, but own weights of the {name} would train beside the adapters: "
                f"{sorted(trained - of_adapters)[:3]}; take lora=none to train the whole part"
            )
        found.append(
            Part(
                name,
                sum(parameters[key].numel() for key in trained),
                sum(parameter.numel() for parameter in parameters.values()),
                sum(parameters[key].numel() for key in of_adapters),
                optim.lr[name] if trained else None,
            )
        )
    _check(found)
    return found


def trained_share(found: Sequence[Part]) -> float:
    """Weights that train over all weights, adapters included."""
    return sum(part.trains for part in found) / sum(part.weights for part in found)


def _check(found: Sequence[Part]) -> None:
    if not any(part.trains for part in found):
        raise ConfigError("nothing would train: set optim.lr of a part that has weights")
    if any(part.adapters for part in found) and trained_share(found) > 0.5:
        largest = max(found, key=lambda part: part.trains)
        raise ConfigError(
            f"lora is set, but {trained_share(found):.0%} of all weights would train, most of them in the "
            f"{largest.name}: lower lora.rank, set optim.lr to null for the parts that are to stay, or take lora=none"
        )


def parts_table(found: Sequence[Part]) -> Table:
    """For the screen."""
    drawn = Table("part", "", title="What trains")
    for heading in ("weights", "of them train", "share", "learning rate"):
        drawn.add_column(heading, justify="right")
    for part in found:
        share = f"{part.trains / part.weights:.2%}" if part.trains else ""
        rate = "" if part.rate is None else f"{part.rate:g}"
        drawn.add_row(part.name, part.what, f"{part.weights:,}", f"{part.trains:,}" if part.trains else "", share, rate)
    total, trains = sum(part.weights for part in found), sum(part.trains for part in found)
    drawn.add_section()
    drawn.add_row("all", "", f"{total:,}", f"{trains:,}", f"{trained_share(found):.2%}", "")
    return drawn
