"""The selector's conformance kit: for every rule something that breaks it and is caught, and what is sound passes."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vilamp.interfaces import FrameSelector, Selection, check_selector_inputs
from vilamp.testing import check_selector, selector_checks

CHECKS = {check.name: check for check in selector_checks()}


class Sound(FrameSelector):
    """The K frames of the greatest score; the broken ones below change one thing each."""

    def forward(
        self,
        frames: Tensor,
        query: Tensor,
        num_keyframes: int,
        *,
        timestamps: Tensor,
        generator: torch.Generator | None = None,
    ) -> Selection:
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        score = self.score(frames, query, generator)
        return self.result(score, score.argsort(descending=True, stable=True)[:num_keyframes].sort().values)

    def score(self, frames: Tensor, query: Tensor, generator: torch.Generator | None) -> Tensor:
        return frames.float() @ query.float()

    def result(self, score: Tensor, keyframes: Tensor) -> Any:
        return Selection(keyframes, score)


class Drawn(Sound):
    def score(self, frames, query, generator):
        if generator is None:
            raise ValueError("needs a generator")
        return torch.rand(len(frames), generator=generator)


class Learned(Sound):
    """A score with parameters, one of which is a gate that starts closed."""

    def __init__(self, query_dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(query_dim, query_dim)
        self.gate = nn.Parameter(torch.zeros(()))

    def score(self, frames, query, generator):
        query = query.to(self.gate.dtype)
        return (frames.to(self.gate.dtype) @ (query + self.gate * self.map(query))).float()


class Nothing(Sound):
    """A threshold that no frame passes but one that equals the query."""

    def result(self, score, keyframes):
        return Selection(keyframes[score[keyframes] > 0.99])


# One broken selector after another, sorted by the rule that must catch it.


class NoSelector(nn.Module):
    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        return Sound()(frames, query, num_keyframes, timestamps=timestamps)


class Indices(Sound):
    def result(self, score, keyframes):
        return keyframes


class Int32(Sound):
    def result(self, score, keyframes):
        return Selection(keyframes.int())


class ByScore(Sound):
    def result(self, score, keyframes):
        return Selection(score.argsort(descending=True)[: len(keyframes)])


class Twice(Sound):
    def result(self, score, keyframes):
        return Selection(torch.cat([keyframes, keyframes[-1:]]))


class Unchecked(Sound):
    def result(self, score, keyframes):
        return SimpleNamespace(keyframes=keyframes.flip(0), relevance=None)


class OutOfRange(Sound):
    def result(self, score, keyframes):
        return Selection(keyframes + len(score) - keyframes[-1], score)


class OneTooMany(Sound):
    def result(self, score, keyframes):
        return Selection(score.topk(min(len(keyframes) + 1, len(score))).indices.sort().values)


class RelevanceOfKeyframes(Sound):
    def result(self, score, keyframes):
        return Selection(keyframes, score[keyframes])


class RelevanceInfinite(Sound):
    def result(self, score, keyframes):
        return Selection(keyframes, score / 0)


class NeedsASecond(Sound):
    def score(self, frames, query, generator):
        return frames.float() @ query.float() / torch.linspace(1, 2, len(frames)).diff().max()


class AlwaysK(Sound):
    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        check_selector_inputs(frames, query, num_keyframes, timestamps)
        return Selection((frames.float() @ query.float()).topk(num_keyframes).indices.sort().values)


class Standardised(Sound):
    def score(self, frames, query, generator):
        score = frames.float() @ query.float()
        return (score - score.mean()) / score.var(correction=0)


class ScepticOfAll(Sound):
    def result(self, score, keyframes):
        return Selection(keyframes[score[keyframes] > 1.01])


class AllPairs(Sound):
    def score(self, frames, query, generator):
        return frames.float() @ query.float() - (frames @ frames.T).float().mean(dim=1)


class AllPairsAsBool(Sound):
    def score(self, frames, query, generator):
        return frames.float() @ query.float() - (frames @ frames.T > 0.9).sum(dim=1)


class InPlace(Sound):
    def score(self, frames, query, generator):
        return (frames.sub_(frames.mean(dim=0)) @ query).float()


class QueryInPlace(Sound):
    def score(self, frames, query, generator):
        return frames.float() @ query.mul_(2).float()


class GlobalTorch(Sound):
    def score(self, frames, query, generator):
        return torch.rand(len(frames))


class GlobalNumpy(Sound):
    def score(self, frames, query, generator):
        return torch.from_numpy(np.random.permutation(len(frames)).astype("f4"))


class Reseeds(Sound):
    def score(self, frames, query, generator):
        torch.manual_seed(0)
        return frames.float() @ query.float()


class LooksAtGlobal(Sound):
    def score(self, frames, query, generator):
        return torch.rand(len(frames), generator=torch.Generator().manual_seed(torch.initial_seed()))


class Remembers(Sound):
    seen = 0

    def score(self, frames, query, generator):
        self.seen += 1
        return (frames.float() @ query.float()) * (-1) ** self.seen


class FallsBackToGlobal(Sound):
    def score(self, frames, query, generator):
        return torch.rand(len(frames), generator=generator)


class CrashesWithoutGenerator(Sound):
    def score(self, frames, query, generator):
        generator.get_state()
        return frames.float() @ query.float()


class Silent(Sound):
    def score(self, frames, query, generator):
        if generator is None:
            raise ValueError("something is missing")
        return frames.float() @ query.float()


class OnlyWhileTraining(Sound):
    def result(self, score, keyframes):
        assert self.training
        return Selection(keyframes, score)


class OtherWithoutGradients(Sound):
    def score(self, frames, query, generator):
        sign = 1 if torch.is_grad_enabled() else -1
        return sign * (frames.float() @ query.float())


class Float32Only(Sound):
    def score(self, frames, query, generator):
        return frames @ query.float()


class Flat(Sound):
    def score(self, frames, query, generator):
        flat = frames.as_strided(frames.shape, (frames.shape[1], 1))
        return flat.float() @ query.float()


class Trusting(Sound):
    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        score = frames.float() @ query.float()
        return Selection(score.topk(min(num_keyframes, len(score))).indices.sort().values)


class WrongError(Sound):
    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        assert frames.dim() == 2 and query.isfinite().all() and frames.isfinite().all() and num_keyframes > 0
        return super().forward(frames, query, num_keyframes, timestamps=timestamps)


class Vague(Sound):
    def forward(self, frames, query, num_keyframes, *, timestamps, generator=None):
        try:
            return super().forward(frames, query, num_keyframes, timestamps=timestamps)
        except ValueError as error:
            raise ValueError("bad input") from error


class Detached(Learned):
    def score(self, frames, query, generator):
        return super().score(frames, query, generator).detach()


class UnusedParameter(Learned):
    def __init__(self, query_dim: int) -> None:
        super().__init__(query_dim)
        self.spare = nn.Parameter(torch.ones(3))


class NotSaved(Sound):
    """Its weights are no parameters, so each instance has its own."""

    def __init__(self, query_dim: int) -> None:
        super().__init__()
        self.weight = torch.randn(query_dim)

    def score(self, frames, query, generator):
        return frames.float() @ self.weight


class ForgetsToSave(Learned):
    def state_dict(self, *args, **kwargs):
        return OrderedDict()

    def load_state_dict(self, *args, **kwargs):
        pass


class Unpicklable(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.key = lambda score: score


class CopiedAsAnother(Sound):
    def __deepcopy__(self, memo: object) -> FrameSelector:
        return ByLength()


class ByLength(Sound):
    def score(self, frames, query, generator):
        return torch.arange(len(frames)).float()


BROKEN = {
    "returns_a_valid_selection": [
        NoSelector,
        Indices,
        Int32,
        ByScore,
        Twice,
        Unchecked,
        OutOfRange,
        OneTooMany,
        RelevanceOfKeyframes,
        RelevanceInfinite,
    ],
    "fewer_frames_than_keyframes": [AlwaysK, NeedsASecond],
    "identical_frames": [Standardised, ScepticOfAll],
    "many_frames": [AllPairs, AllPairsAsBool],
    "inputs_unchanged": [InPlace, QueryInPlace],
    "global_random_state": [GlobalTorch, GlobalNumpy, Reseeds, LooksAtGlobal],
    "same_generator_same_result": [Remembers, GlobalTorch],
    "no_generator": [FallsBackToGlobal, CrashesWithoutGenerator, Silent],
    "train_and_eval_modes": [OnlyWhileTraining, OtherWithoutGradients],
    "low_precision": [Float32Only],
    "strided_inputs": [Flat],
    "rejects_bad_inputs": [Trusting, WrongError, Vague],
    "gradients_reach_parameters": [Detached, UnusedParameter],
    "state_dict_round_trip": [NotSaved, ForgetsToSave],
    "copies": [Unpicklable, CopiedAsAnother],
}


@pytest.mark.parametrize("make", [Sound, Drawn, Learned, Nothing, Sound()], ids=str)
def test_a_sound_selector_passes(make) -> None:
    check_selector(make)


def test_every_rule_has_something_that_breaks_it() -> None:
    assert set(BROKEN) == set(CHECKS) - {"works_on_cuda"}


@pytest.mark.parametrize(("rule", "broken"), [(rule, broken) for rule in BROKEN for broken in BROKEN[rule]])
def test_a_broken_selector_is_told_which_rule_it_breaks(rule, broken) -> None:
    with pytest.raises(AssertionError, match=f"{broken.__name__} breaks the rule {rule} .* Seen: "):
        CHECKS[rule](broken)


def test_all_broken_rules_are_listed_at_once() -> None:
    with pytest.raises(AssertionError) as caught:
        check_selector(GlobalTorch)
    title, *listed = str(caught.value).splitlines()
    assert title == f"{len(listed)} of {len(CHECKS)} rules are broken:"
    assert {"global_random_state", "same_generator_same_result", "no_generator"} <= {line.split()[5] for line in listed}


def test_the_kit_leaves_the_global_random_states_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    want = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    with pytest.raises(AssertionError):
        check_selector(Reseeds)
    assert torch.equal(torch.rand(3), want[0])
    assert (np.random.rand(3) == want[1]).all()


def test_an_instance_is_copied_and_never_used_itself() -> None:
    selector = Learned(query_dim=16)
    before = {name: value.clone() for name, value in selector.state_dict().items()}
    check_selector(selector)
    assert all(torch.equal(value, before[name]) for name, value in selector.state_dict().items())
    assert selector.training and all(value.grad is None for value in selector.parameters())


def test_the_width_is_passed_on() -> None:
    check_selector(Learned, width=24)
    with pytest.raises(AssertionError, match="returns_a_valid_selection"):
        check_selector(Learned(query_dim=16), width=24)
