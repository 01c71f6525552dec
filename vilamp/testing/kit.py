"""What the checks of all contracts share: the check itself, how a plugin is built, and how results are compared."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vilamp.video import VideoDecoder

B = TypeVar("B")
M = TypeVar("M", bound=nn.Module)

Make = nn.Module | VideoDecoder | Callable[..., Any]
"""A class, any function that builds a plugin, or a built one (which is copied, never used itself)."""


@dataclass(frozen=True)
class Check:
    """One rule of a contract, as a function that raises AssertionError where a plugin breaks it.

    Attributes:
        name: a word or two with underscores.
        rule: one sentence.
        run: (make) -> None.
    """

    name: str
    rule: str
    run: Callable[[Make], None]

    def __str__(self) -> str:
        return self.name

    def __call__(self, make: Make) -> None:
        """Raise AssertionError, with the rule and what was seen, unless what ``make`` makes keeps the rule."""
        with isolated_random_states():
            try:
                self.run(make)
            except Exception as error:  # whatever foreign code raises here, it breaks the rule
                told = isinstance(error, AssertionError) and str(error)
                seen = told or f"{type(error).__name__}: {error}"
                plugin = getattr(make, "__qualname__", type(make).__name__)
                raise AssertionError(f"{plugin} breaks the rule {self.name} ({self.rule}) Seen: {seen}") from error


def as_checks(rules: Sequence[Callable[[B], None]], bench: Callable[[Make], B]) -> list[Check]:
    """A check for each rule, a function whose name and docstring become those of the check.

    Args:
        rules: each takes a bench and raises AssertionError.
        bench: turns what a user passes into what the rules need.
    """

    def as_check(rule: Callable[[B], None]) -> Check:
        return Check(rule.__name__, (rule.__doc__ or "").strip(), lambda make: rule(bench(make)))

    return [as_check(rule) for rule in rules]


def run_all(checks: Sequence[Check], make: Make) -> None:
    """Run every check, and raise one AssertionError that lists all the rules that are broken."""
    broken: list[AssertionError] = []
    for check in checks:
        try:
            check(make)
        except AssertionError as error:
            broken.append(error)
    if broken:
        listing = "\n".join(f"- {error}" for error in broken)
        raise AssertionError(f"{len(broken)} of {len(checks)} rules are broken:\n{listing}") from broken[0]


def factory(make: Make, **widths: int) -> Callable[[], Any]:
    """A function that builds a fresh plugin, with those widths that ``make`` names, as ``vilamp.build`` does."""
    if isinstance(make, nn.Module | VideoDecoder):
        return lambda: copy.deepcopy(make)
    wanted = {name: width for name, width in widths.items() if name in inspect.signature(make).parameters}
    return lambda: make(**wanted)


def require(condition: bool, seen: str) -> None:
    """Raise AssertionError(seen) unless the condition holds; unlike ``assert`` also under ``python -O``."""
    if not condition:
        raise AssertionError(seen)


def require_close(name: str, got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    """The greatest difference is at most ``tolerance`` times the greatest value (and 0 where nothing is wanted)."""
    require(got.shape == want.shape, f"{name} has the shape {list(got.shape)} instead of {list(want.shape)}")
    if want.numel():
        got, want = got.detach(), want.detach()
        difference, scale = float((got - want).abs().max()), float(want.abs().max())
        require(difference <= tolerance * scale, f"{name} differs by {difference:.3g}, its maximum is {scale:.3g}")


def require_unchanged(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """The tensors of ``after`` are bit for bit the copies made before."""
    for name, value in after.items():
        old = before[name]
        require(value.shape == old.shape and bool((value == old).all()), f"{name} was changed in place")
        require(value.requires_grad == old.requires_grad, f"requires_grad of {name} was changed")


def require_value_error(call: Callable[[], object], argument: str, case: str) -> None:
    """The call raises a ValueError whose message holds the name of the argument."""
    try:
        call()
    except ValueError as error:
        require(argument in str(error), f"{case}: the message does not name {argument}: {error}")
    except Exception as error:
        raise AssertionError(f"{case}: {type(error).__name__} instead of ValueError: {error}") from error
    else:
        raise AssertionError(f"{case}: no error")


class NoTensorAbove(TorchDispatchMode):
    """Within it, a torch operation whose result holds more numbers than ``limit`` raises AssertionError.

    What counts is memory that is new: a view of an operand takes none, however often it repeats a number.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at the tensors that it returns."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        old = {value.untyped_storage().data_ptr() for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage().data_ptr() not in old:
                numbers = value.untyped_storage().nbytes() // value.element_size()
                require(numbers <= self.limit, f"{func} made a tensor {list(value.shape)} of {numbers:,} numbers")
        return result


def require_live_gradients(module: nn.Module) -> None:
    """Every parameter that requires a gradient has one that is finite and more than a rounding error of the others."""
    gradients = {name: value.grad for name, value in module.named_parameters() if value.requires_grad}
    largest = max((float(value.abs().max()) for value in gradients.values() if value is not None), default=0.0)
    for name, value in gradients.items():
        require(value is None or bool(value.isfinite().all()), f"the gradient of {name} is not finite")
        require(value is not None and float(value.abs().max()) > 1e-6 * largest, f"no gradient reaches {name}")


def nudged(module: M) -> M:
    """The module a little way from its start, where a gate that starts at zero is open."""
    generator = seeded()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.05)
    return module


def scrambled(module: M) -> M:
    """The module with other values in its floating-point parameters and in those buffers that it saves."""
    saved = module.state_dict()
    buffers = [buffer for name, buffer in module.named_buffers() if name in saved]
    with torch.no_grad():
        for tensor in [*module.parameters(), *buffers]:
            if tensor.is_floating_point():
                tensor.mul_(-0.5).add_(1.0)
    return module


def seeded(seed: int = 0) -> torch.Generator:
    """A fresh generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def random_states() -> list[bytes | str]:
    """The global random states, as values that can be compared."""
    states: list[bytes | str] = [torch.get_rng_state().numpy().tobytes(), repr(random.getstate())]
    name, keys, *rest = np.random.get_state()
    states += [np.asarray(keys).tobytes(), repr((name, rest))]
    if torch.cuda.is_available():
        states += [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()]
    return states


@contextmanager
def isolated_random_states() -> Iterator[None]:
    """Run a block from fixed global random states, and put back what was there before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            seed_globally(0)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def seed_globally(seed: int) -> None:
    """Set every global random state."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
