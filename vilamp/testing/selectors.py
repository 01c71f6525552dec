"""The rules of :class:`~vilamp.interfaces.FrameSelector` as checks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import torch

from vilamp.interfaces import FrameSelector, Selection
from vilamp.testing.kit import (
    Check,
    Make,
    NoTensorAbove,
    as_checks,
    factory,
    nudged,
    random_states,
    require,
    require_live_gradients,
    require_unchanged,
    require_value_error,
    run_all,
    scrambled,
    seed_globally,
)
from vilamp.testing.selector_bench import Bench, Inputs, require_same, require_valid

Rule = Callable[[Bench], None]
_RULES: list[Rule] = []


def _rule(function: Rule) -> Rule:
    _RULES.append(function)
    return function


def selector_checks(width: int = 16) -> list[Check]:
    """All checks, for pytest's ``parametrize``.

    Args:
        width: Ds of the embeddings to try; passed to the constructor where it has a parameter ``query_dim``.
    """
    rules = [rule for rule in _RULES if torch.cuda.is_available() or rule is not works_on_cuda]
    return as_checks(rules, lambda make: Bench(factory(make, query_dim=width), width))


def check_selector(make: Make, width: int = 16) -> None:
    """Check every rule of :class:`~vilamp.interfaces.FrameSelector`; see :mod:`vilamp.testing` for examples.

    Args:
        make: the class, a function that builds a selector, or a selector.
        width: as in :func:`selector_checks`.

    Raises:
        AssertionError: lists the rules that are broken, each with what was seen.
    """
    run_all(selector_checks(width), make)


@_rule
def returns_a_valid_selection(bench: Bench) -> None:
    """Keyframes are int64, ascending, unique, in 0..N-1 and at most K; relevance is float[N] or None."""
    selector = bench.build()
    require(isinstance(selector, FrameSelector), f"a {type(selector).__name__} is no FrameSelector")
    for num_frames, num_keyframes in ((40, 4), (40, 1), (100, 32), (7, 7), (300, 8)):
        video = bench.video(num_frames)
        uneven = replace(video, timestamps=video.timestamps.float().square())
        for given in (video, uneven):
            require_valid(given.select(selector, num_keyframes), num_frames, num_keyframes)


@_rule
def fewer_frames_than_keyframes(bench: Bench) -> None:
    """Where N < K, at most N frames are selected."""
    selector = bench.build()
    for num_frames, num_keyframes in ((1, 1), (1, 8), (2, 8), (5, 8), (7, 1000)):
        require_valid(bench.video(num_frames).select(selector, num_keyframes), num_frames, num_keyframes)


@_rule
def identical_frames(bench: Bench) -> None:
    """A video of one repeated frame works, and at least one frame is selected where it equals the query."""
    selector = bench.build()
    for num_frames in (1, 30):
        video = bench.video(num_frames)
        selection = replace(video, frames=video.query.expand(num_frames, -1).clone()).select(selector)
        require_valid(selection, num_frames, 4)
        require(len(selection.keyframes) >= 1, f"no keyframe of {num_frames} frames that equal the query")
        opposite = replace(video, frames=-video.query.expand(num_frames, -1)).select(selector)
        require_valid(opposite, num_frames, 4)


@_rule
def many_frames(bench: Bench) -> None:
    """A video of 10,000 frames works, and no tensor that is made for it is of the order of N x N."""
    selector, video = bench.build(), bench.video(10_000)
    with NoTensorAbove(10_000**2 // 4):
        selection = video.select(selector, 32)
    require_valid(selection, 10_000, 32)


@_rule
def inputs_unchanged(bench: Bench) -> None:
    """The arguments are never changed in place."""
    video = bench.video()
    before = {name: value.clone() for name, value in vars(video).items()}
    video.select(bench.build())
    require_unchanged(before, vars(video))


@_rule
def global_random_state(bench: Bench) -> None:
    """Global random states are neither changed nor looked at."""
    selector, results = bench.build(), []
    for seed in (1, 2):
        seed_globally(seed)
        before = random_states()
        results.append(bench.video().select(selector))
        require(random_states() == before, "a global random state changed")
    require_same(results[0], results[1], "after another global seed")


@_rule
def same_generator_same_result(bench: Bench) -> None:
    """The same inputs and generator state give the same result, whatever was selected in between."""
    selector, video = bench.build(), bench.video()
    first = video.select(selector)
    bench.video(25, seed=1).select(selector)
    for case in ("after another video", "at once again"):
        require_same(video.select(selector), first, case)


@_rule
def no_generator(bench: Bench) -> None:
    """Without a generator a selector is deterministic, or raises a ValueError that names the generator."""
    selector, video = bench.build(), bench.video()

    def select() -> Selection:
        return selector(video.frames, video.query, 4, timestamps=video.timestamps, generator=None)

    try:
        first = select()
    except ValueError as error:
        require("generator" in str(error), f"the message does not name the generator: {error}")
    else:
        require_same(select(), first, "without a generator, the second time")


@_rule
def train_and_eval_modes(bench: Bench) -> None:
    """It works in train and eval mode, and under no_grad and inference_mode as without."""
    selector, video = bench.build(), bench.video()
    require_valid(video.select(selector.train()), 40, 4)
    want = video.select(selector.eval())
    require_valid(want, 40, 4)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            require_same(video.select(selector), want, context.__name__)


@_rule
def low_precision(bench: Bench) -> None:
    """It works in bfloat16, and in float32 under autocast."""
    video = bench.video()
    rounded = replace(video, frames=video.frames.bfloat16(), query=video.query.bfloat16())
    require_valid(rounded.select(bench.build().bfloat16()), 40, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        require_valid(video.select(bench.build()), 40, 4)


@_rule
def strided_inputs(bench: Bench) -> None:
    """Inputs that are not contiguous in memory give what their contiguous copies give."""
    selector, video = bench.build(), bench.video()
    columns = replace(video, frames=video.frames.T.contiguous().T, query=video.query.repeat_interleave(2)[::2])
    require_same(columns.select(selector), video.select(selector), "column-major frames")


@_rule
def rejects_bad_inputs(bench: Bench) -> None:
    """A wrong shape, a number that is not finite or K < 1 is a ValueError that names the argument."""
    selector, video = bench.build(), bench.video()
    holed = video.frames.clone()
    holed[7, 3] = torch.nan
    cases: dict[str, tuple[str, Inputs, int]] = {
        "NaN in frames": ("frames", replace(video, frames=holed), 4),
        "infinity in the query": ("query", replace(video, query=video.query / 0), 4),
        "frames without a width": ("frames", replace(video, frames=video.frames[:, 0]), 4),
        "no frames": ("frames", replace(video, frames=video.frames[:0], timestamps=video.timestamps[:0]), 4),
        "NaN in timestamps": ("timestamps", replace(video, timestamps=video.timestamps * torch.nan), 4),
        "a query of another width": ("query", replace(video, query=video.query[:-1]), 4),
        "a timestamp too few": ("timestamps", replace(video, timestamps=video.timestamps[1:]), 4),
        "K = 0": ("num_keyframes", video, 0),
        "K = -1": ("num_keyframes", video, -1),
    }
    for case, (argument, inputs, num_keyframes) in cases.items():
        require_value_error(lambda: inputs.select(selector, num_keyframes), argument, case)  # noqa: B023


@_rule
def gradients_reach_parameters(bench: Bench) -> None:
    """Gradients of the relevance reach every parameter that requires them."""
    selector = nudged(bench.build())
    if any(parameter.requires_grad for parameter in selector.parameters()):
        relevance = bench.video().select(selector).relevance
        require(relevance is not None and relevance.requires_grad, "relevance carries no gradient to the parameters")
        assert relevance is not None
        (relevance * torch.linspace(0.5, 1.5, len(relevance))).sum().backward()
        require_live_gradients(selector)


@_rule
def state_dict_round_trip(bench: Bench) -> None:
    """A state_dict loaded into another instance makes it select the same."""
    selector, other, video = bench.build(), scrambled(bench.build()), bench.video()
    other.load_state_dict(selector.state_dict())
    require_same(video.select(other), video.select(selector), "after load_state_dict")


@_rule
def copies(bench: Bench) -> None:
    """A deep copy and a pickled copy select the same (spawned processes pickle)."""
    selector, video = bench.build(), bench.video()
    want = video.select(selector)
    require_same(video.select(copy.deepcopy(selector)), want, "deep copy")
    require_same(video.select(pickle.loads(pickle.dumps(selector))), want, "pickled copy")


@_rule
def works_on_cuda(bench: Bench) -> None:
    """It works on a CUDA device, with the generator on the CPU."""
    video = Inputs(*(value.cuda() for value in vars(bench.video()).values()))
    require_valid(video.select(bench.build().cuda()), 40, 4)
