"""The merger's conformance kit: for every rule something that breaks it and is caught, and what is sound passes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vilamp.interfaces import NO_ANCHOR, FrameMerger, check_merger_inputs
from vilamp.testing import check_merger, merger_checks

CHECKS = {check.name: check for check in merger_checks()}


class Sound(FrameMerger):
    """The mean of a frame's patches; the broken ones below change one thing each."""

    def forward(
        self,
        patches: Tensor,
        anchors: Tensor,
        anchor_of: Tensor,
        query: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        check_merger_inputs(patches, anchors, anchor_of, query)
        return self.merge(patches, anchors, anchor_of, query, generator)

    def merge(self, patches, anchors, anchor_of, query, generator) -> Any:
        return patches.mean(dim=1, keepdim=True)


class Quarters(Sound):
    """Four tokens a frame."""

    tokens_per_frame = 4
    space = "language"

    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.unflatten(1, (4, -1)).mean(dim=2)


class Drawn(Sound):
    """The mean with weights drawn from the generator, a row for every frame."""

    def merge(self, patches, anchors, anchor_of, query, generator):
        if generator is None:
            raise ValueError("needs a generator")
        weights = torch.rand(patches.shape[:2], generator=generator).to(patches)
        return (weights[:, :, None] * patches).mean(dim=1, keepdim=True)


class Compared(Sound):
    """The mean of what differs from the anchor, and of everything where there is none."""

    def merge(self, patches, anchors, anchor_of, query, generator):
        with_anchor = anchor_of != NO_ANCHOR
        shown = torch.zeros_like(patches)
        shown[with_anchor] = anchors[anchor_of[with_anchor]]
        return (patches - shown).mean(dim=1, keepdim=True)


class Learned(Sound):
    """A map of the mean and of the query behind a gate that starts closed."""

    def __init__(self, dim: int, query_dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)
        self.query_map = nn.Linear(query_dim, dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def merge(self, patches, anchors, anchor_of, query, generator):
        check_merger_inputs(
            patches, anchors, anchor_of, query, dim=self.map.in_features, query_dim=self.query_map.in_features
        )
        dtype = self.gate.dtype
        mapped = self.map(patches.mean(dim=1).to(dtype)) + self.gate * self.query_map(query.to(dtype))
        return mapped[:, None].to(patches.dtype)


# One broken merger after another, sorted by the rule that must catch it.


class NoMerger(nn.Module):
    def forward(self, patches, anchors, anchor_of, query, *, generator=None):
        return patches.mean(dim=1, keepdim=True)


class OfNoSpace(Sound):
    space = "pixels"


class NoCount(Sound):
    tokens_per_frame = None


class GrowingCount(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        self.tokens_per_frame += 1
        return super().merge(patches, anchors, anchor_of, query, generator)


class Flat(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1)


class OneTooMany(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches[:, :2]


class ListOfTokens(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return list(patches.mean(dim=1, keepdim=True))


class Double(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.double().mean(dim=1, keepdim=True)


class NeedsAFrame(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return torch.stack([frame.mean(dim=0, keepdim=True) for frame in patches])


class NeedsAnAnchor(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) + 0 * anchors[0].sum()


class DividesByItsNorm(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return (patches / patches.norm(dim=-1, keepdim=True)).mean(dim=1, keepdim=True)


class InfiniteSlope(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.square().sum(dim=1, keepdim=True).sqrt()


class InPlace(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.sub_(patches.mean()).mean(dim=1, keepdim=True)


class AnchorsInPlace(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        anchors /= 2
        return patches.mean(dim=1, keepdim=True)


class IndicesInPlace(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        anchor_of.clamp_(min=0)
        return patches.mean(dim=1, keepdim=True)


class Dropped(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return F.dropout(patches, 0.5).mean(dim=1, keepdim=True)


class LooksAtGlobal(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        own = torch.Generator().manual_seed(torch.initial_seed())
        return patches.mean(dim=1, keepdim=True) + torch.rand((), generator=own)


class Alternates(Sound):
    calls = 0

    def merge(self, patches, anchors, anchor_of, query, generator):
        self.calls += 1
        return patches.mean(dim=1, keepdim=True) * (-1) ** self.calls


class FallsBackToGlobal(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches * torch.rand(patches.shape[:1], generator=generator).to(patches)[:, None, None][:, :1]


class Silent(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        if generator is None:
            raise ValueError("something is missing")
        return patches.mean(dim=1, keepdim=True)


class OverTheChunk(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) - patches.mean(dim=(0, 1))


class OneDrawAChunk(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        return patches.mean(dim=1, keepdim=True) * torch.rand((), generator=generator).to(patches)


class DrawnInBlocks(Sound):
    """Normal numbers are drawn in blocks of 16, so 24 at once are not 7 and then 17."""

    def merge(self, patches, anchors, anchor_of, query, generator):
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        return patches[:, :1] * torch.randn(len(patches), generator=generator).to(patches)[:, None, None]


class GradientOfTheChunk(Sound):
    """The tokens are right; only the gradients depend on the other frames."""

    def merge(self, patches, anchors, anchor_of, query, generator):
        mean = patches.mean(dim=1, keepdim=True)
        return mean + (other := mean.sum(dim=0)) - other.detach()


class CountsFromTheEnd(Sound):
    """With -1 as an index, a frame that has no anchor gets the last."""

    def merge(self, patches, anchors, anchor_of, query, generator):
        return (patches - anchors[anchor_of]).mean(dim=1, keepdim=True)


class NextAnchor(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return (patches - anchors[(anchor_of + 1) % len(anchors)]).mean(dim=1, keepdim=True)


class MeanAnchor(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) - anchors.mean(dim=(0, 1))


class DrawsOnItsOwn(Sound):
    """A generator of its own goes on where it stopped, so the recomputation draws other numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.Generator().manual_seed(0)

    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches[:, :1] * torch.rand(len(patches), generator=self.own)[:, None, None]


class NothingInEval(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) if self.training else None


class OtherWithoutGradients(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) * (1 if torch.is_grad_enabled() else 2)


class OfItsOwnType(Learned):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return self.map(patches.mean(dim=1, keepdim=True)) + self.gate * self.query_map(query)


class Float32Only(Sound):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = torch.ones(dim, dim)

    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) @ self.scale


class ReadsMemory(Sound):
    def merge(self, patches, anchors, anchor_of, query, generator):
        n, p, d = patches.shape
        return patches.as_strided((n, p, d), (p * d, d, 1)).mean(dim=1, keepdim=True)


class Trusting(Sound):
    def forward(self, patches, anchors, anchor_of, query, *, generator=None):
        return patches.mean(dim=1, keepdim=True)


class Vague(Sound):
    def forward(self, patches, anchors, anchor_of, query, *, generator=None):
        try:
            check_merger_inputs(patches, anchors, anchor_of, query)
        except ValueError as error:
            raise ValueError("bad input") from error
        return patches.mean(dim=1, keepdim=True)


class CrashesOnOtherWidths(Learned):
    def merge(self, patches, anchors, anchor_of, query, generator):
        dtype = self.gate.dtype
        mapped = self.map(patches.mean(dim=1).to(dtype)) + self.gate * self.query_map(query.to(dtype))
        return mapped[:, None].to(patches.dtype)


class CutsOtherWidths(Learned):
    def merge(self, patches, anchors, anchor_of, query, generator):
        width = self.map.in_features
        return super().merge(patches[:, :, :width], anchors[:, :, :width], anchor_of, query, generator)


class Detached(Learned):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return super().merge(patches.detach(), anchors, anchor_of, query, generator)


class NoGradient(Learned):
    def merge(self, patches, anchors, anchor_of, query, generator):
        return super().merge(patches, anchors, anchor_of, query, generator).detach()


class UnusedParameter(Learned):
    def __init__(self, dim: int, query_dim: int) -> None:
        super().__init__(dim, query_dim)
        self.spare = nn.Parameter(torch.ones(3))


class DropsButLearns(Sound):
    tokens_per_frame = 0

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def merge(self, patches, anchors, anchor_of, query, generator):
        return self.map(patches[:, :0])


class NotSaved(Sound):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = torch.randn(dim)

    def merge(self, patches, anchors, anchor_of, query, generator):
        return patches.mean(dim=1, keepdim=True) * self.weight.to(patches)


class ForgetsToSave(Learned):
    def state_dict(self, *args, **kwargs):
        return OrderedDict()

    def load_state_dict(self, *args, **kwargs):
        pass


class Unpicklable(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.pool = lambda patches: patches.mean(dim=1, keepdim=True)


class CopiedAsAnother(Sound):
    def __deepcopy__(self, memo: object) -> FrameMerger:
        return DividesByItsNorm()


class Telling(Sound):
    """Sound, and says that it looks at all patches alike; the next ones change one thing each."""

    def token_weights(self, patches, anchors, anchor_of, query, *, generator=None):
        return self.told(patches, generator)

    def told(self, patches, generator):
        return patches.new_full((len(patches), 1, patches.shape[1]), 1 / patches.shape[1])


class TellsSums(Telling):
    def told(self, patches, generator):
        return patches.new_ones(len(patches), 1, patches.shape[1])


class TellsLess(Telling):
    def told(self, patches, generator):
        return super().told(patches, generator)[:, 0]


class TellsOfTheChunk(Telling):
    def told(self, patches, generator):
        return patches.norm(dim=-1).mean(dim=0).softmax(dim=-1).expand(len(patches), 1, -1)


class TellsWithDrawsOfItsOwn(Telling):
    def told(self, patches, generator):
        return torch.rand(patches.shape[:2], generator=generator)[:, None].softmax(dim=-1)


class TellsOnlySometimes(Telling):
    def told(self, patches, generator):
        return super().told(patches, generator) if len(patches) > 1 else None


BROKEN = {
    "states_its_form": [NoMerger, OfNoSpace, NoCount, GrowingCount],
    "output_form": [Flat, OneTooMany, ListOfTokens, Double, NeedsAFrame, NeedsAnAnchor, CountsFromTheEnd],
    "degenerate_frames": [DividesByItsNorm, InfiniteSlope],
    "inputs_unchanged": [InPlace, AnchorsInPlace, IndicesInPlace],
    "global_random_state": [Dropped, LooksAtGlobal],
    "same_generator_same_result": [Alternates, DrawsOnItsOwn],
    "no_generator": [FallsBackToGlobal, Silent],
    "any_chunking": [OverTheChunk, OneDrawAChunk, DrawnInBlocks, GradientOfTheChunk, CountsFromTheEnd, MeanAnchor],
    "own_anchor_only": [CountsFromTheEnd, NextAnchor, MeanAnchor],
    "recomputation": [DrawsOnItsOwn, Dropped],
    "train_and_eval_modes": [NothingInEval, OtherWithoutGradients],
    "weights_tell_of_the_tokens": [
        TellsSums,
        TellsLess,
        TellsOfTheChunk,
        TellsWithDrawsOfItsOwn,
        TellsOnlySometimes,
    ],
    "low_precision": [OfItsOwnType, Float32Only],
    "strided_inputs": [ReadsMemory],
    "rejects_bad_inputs": [Trusting, Vague],
    "other_widths": [CrashesOnOtherWidths, CutsOtherWidths],
    "gradients_reach_parameters": [Detached, NoGradient, UnusedParameter, DropsButLearns],
    "state_dict_round_trip": [NotSaved, ForgetsToSave],
    "copies": [Unpicklable, CopiedAsAnother],
}


@pytest.mark.parametrize("make", [Sound, Quarters, Drawn, Compared, Learned, Telling, Sound()], ids=str)
def test_a_sound_merger_passes(make) -> None:
    check_merger(make)


def test_every_rule_has_something_that_breaks_it() -> None:
    assert set(BROKEN) == set(CHECKS) - {"works_on_cuda"}


@pytest.mark.parametrize(("rule", "broken"), [(rule, broken) for rule in BROKEN for broken in BROKEN[rule]])
def test_a_broken_merger_is_told_which_rule_it_breaks(rule, broken) -> None:
    with pytest.raises(AssertionError, match=f"{broken.__name__} breaks the rule {rule} .* Seen: "):
        CHECKS[rule](broken)


def test_all_broken_rules_are_listed_at_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_merger(CountsFromTheEnd)
    title, *listed = str(caught.value).splitlines()
    assert title == f"{len(listed)} of {len(CHECKS)} rules are broken:"
    assert {"output_form", "any_chunking", "own_anchor_only"} <= {line.split()[5] for line in listed}


def test_an_instance_is_copied_and_never_used_itself() -> None:
    merger = Learned(dim=16, query_dim=8)
    before = {name: value.clone() for name, value in merger.state_dict().items()}
    check_merger(merger)
    assert all(torch.equal(value, before[name]) for name, value in merger.state_dict().items())
    assert merger.training and all(value.grad is None for value in merger.parameters())


def test_the_widths_are_passed_on() -> None:
    check_merger(Learned, dim=6, query_dim=10, num_patches=4)
    with pytest.raises(AssertionError, match="output_form"):
        check_merger(Learned(dim=16, query_dim=8), dim=6)
