"""Counts the bytes of every live tensor while the real modules run on tensors that hold no numbers."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SMALL = 16
"""A new tensor of at most so many numbers is real: counters, whose values a program branches on."""

SCALAR = 1.0
"""What a fake number is read as: finite, and as a truth value the one with which every check passes."""


class StorageTracker(TorchDispatchMode):
    """Live bytes by label, and what they were at the peak.

    Floating-point tensors are fake, so nothing is computed.  Tensors that stem from whole numbers alone (positions,
    keyframes, lengths) stay real, because a program branches on their values.  A storage is counted from the operation
    that makes it until nothing refers to it any more, which is when an allocator gets it back.

    Args:
        fake: makes the fake tensors.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake
        self.live: Counter[str] = Counter()
        """Label -> bytes."""
        self.peak: Counter[str] = Counter()
        """``live`` when the sum was largest since :meth:`restart`."""
        self.label = "other"
        """Of what is made now."""
        self.split: Callable[[Counter[str]], Counter[str]] = lambda live: live
        """Moves bytes between the labels of a peak, for what is known by its owner and not by its maker."""
        self._entries: dict[int, tuple[str, int]] = {}
        self._ignored: set[int] = set()
        self._total = self._highest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, real or fake, and count what it made."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if self._is_real(tensors, args, kwargs):
            with unset_fake_temporarily():
                result = func(*args, **kwargs)
        elif func is torch.ops.aten._local_scalar_dense.default:
            return SCALAR if tensors[0].is_floating_point() else 1
        else:
            with self.fake:
                result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    @staticmethod
    def _is_real(tensors: list[Tensor], args: Any, kwargs: dict[str, Any]) -> bool:
        if tensors:
            return not any(isinstance(tensor, FakeTensor) for tensor in tensors)
        dtype = kwargs.get("dtype") or torch.get_default_dtype()
        size = args[0] if args and isinstance(args[0], list | tuple) else ()
        return not dtype.is_floating_point or math.prod(size) <= SMALL

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._entries or key in self._ignored:
            return
        size = storage.nbytes()
        self._entries[key] = (self.label, size)
        weakref.finalize(storage, self._release, key).atexit = False
        self.live[self.label] += size
        self._total += size
        self._note(self._total, self.live)

    def _note(self, total: int, live: Counter[str]) -> None:
        if total > self._highest:
            self._highest = total
            self.peak = self.split(Counter(live))

    def _release(self, key: int) -> None:
        label, size = self._entries.pop(key)
        self.live[label] -= size
        self._total -= size

    def ignore(self, tensor: Tensor) -> None:
        """Leave a tensor out: it lies on the host."""
        self._ignored.add(tensor.untyped_storage()._cdata)

    def ignores(self, tensor: Tensor) -> bool:
        """Whether a tensor is left out."""
        return tensor.untyped_storage()._cdata in self._ignored

    def relabel(self, tensor: Tensor, label: str) -> None:
        """Count a tensor under another label from now on."""
        key = tensor.untyped_storage()._cdata
        self._count(tensor)
        before, size = self._entries[key]
        self._entries[key] = (label, size)
        self.live[before] -= size
        self.live[label] += size

    def restart(self) -> None:
        """Let the peak begin anew from what is live."""
        self._highest = 0
        self._note(self._total, self.live)

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Count what is made inside under ``label``."""
        before, self.label = self.label, label
        try:
            yield
        finally:
            self.label = before

    def follow(self, module: nn.Module, label: str) -> None:
        """Count what a module's forward makes under ``label``, wherever it is called from."""
        outer: list[str] = []

        def enter(*_: Any) -> None:
            outer.append(self.label)
            self.label = label

        def leave(*_: Any) -> None:
            self.label = outer.pop()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def run_once(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """``function`` without gradient, really run for the first input of each shape only.

        For later ones its result is a new tensor of the same kind, and its peak is the first one's, on top of what is
        live then: thousands of equal chunks cost as much time as one.
        """
        seen: dict[torch.Size, tuple[torch.Size, torch.dtype, Counter[str]]] = {}

        def run(value: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                return function(value)
            if value.shape not in seen:
                highest, peak, before = self._highest, self.peak, Counter(self.live)
                self.restart()
                result = function(value)
                rise = Counter(self.peak)
                rise.subtract(before)
                seen[value.shape] = (result.shape, result.dtype, rise)
                if highest > self._highest:
                    self._highest, self.peak = highest, peak
                return result
            shape, dtype, rise = seen[value.shape]
            live = Counter(self.live)
            live.update(rise)
            self._note(self._total + rise.total(), live)
            return torch.empty(shape, dtype=dtype)

        return run
