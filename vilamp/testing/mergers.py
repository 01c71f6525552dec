"""The rules of :class:`~vilamp.interfaces.FrameMerger` as checks."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vilamp.interfaces import FrameMerger
from vilamp.testing.kit import (
    Check,
    Make,
    as_checks,
    factory,
    nudged,
    random_states,
    require,
    require_close,
    require_live_gradients,
    require_unchanged,
    require_value_error,
    run_all,
    scrambled,
    seed_globally,
    seeded,
)
from vilamp.testing.merger_bench import Bench, Inputs, backward, require_valid, run_with_gradients

Rule = Callable[[Bench], None]
_RULES: list[Rule] = []


def _rule(function: Rule) -> Rule:
    _RULES.append(function)
    return function


def merger_checks(dim: int = 16, query_dim: int = 8, num_patches: int = 16) -> list[Check]:
    """All checks, for pytest's ``parametrize``.

    Args:
        dim: D of the patches to try; passed to the constructor where it has a parameter of this name.
        query_dim: Ds of the query to try; passed likewise.
        num_patches: P.
    """
    rules = [rule for rule in _RULES if torch.cuda.is_available() or rule is not works_on_cuda]
    widths = {"dim": dim, "query_dim": query_dim}
    return as_checks(rules, lambda make: Bench(factory(make, **widths), dim, query_dim, num_patches))


def check_merger(make: Make, dim: int = 16, query_dim: int = 8, num_patches: int = 16) -> None:
    """Check every rule of :class:`~vilamp.interfaces.FrameMerger`; see :mod:`vilamp.testing` for examples.

    Args:
        make: the class, a function that builds a merger, or a merger (of these widths).
        dim: as in :func:`merger_checks`.
        query_dim: as in :func:`merger_checks`.
        num_patches: as in :func:`merger_checks`.

    Raises:
        AssertionError: lists the rules that are broken, each with what was seen.
    """
    run_all(merger_checks(dim, query_dim, num_patches), make)


@_rule
def states_its_form(bench: Bench) -> None:
    """It is a FrameMerger with tokens_per_frame >= 0, constant, and a space of "vision" or "language"."""
    merger = bench.build()
    require(isinstance(merger, FrameMerger), f"a {type(merger).__name__} is no FrameMerger")
    require(merger.space in ("vision", "language"), f"space is {merger.space!r}")
    count = merger.tokens_per_frame
    require(type(count) is int and count >= 0, f"tokens_per_frame is {count!r}")
    bench.chunk().merge(merger)
    require(merger.tokens_per_frame == count, f"tokens_per_frame changed from {count} to {merger.tokens_per_frame}")


@_rule
def output_form(bench: Bench) -> None:
    """Tokens are finite float[n, tokens_per_frame, D] for any number of frames and anchors, n = 0 and A = 0 too."""
    merger = bench.build()
    for num_frames, num_anchors in ((7, 3), (1, 1), (1, 0), (5, 0), (0, 2), (0, 0), (300, 33)):
        inputs = bench.chunk(num_frames, num_anchors)
        require_valid(inputs.merge(merger), inputs, merger)


@_rule
def degenerate_frames(bench: Bench) -> None:
    """Frames equal to each other and to their anchor, and frames of zeros, give finite tokens and gradients."""
    merger, inputs = bench.build(), bench.chunk()
    same = replace(inputs, patches=inputs.anchors[:1].expand(7, -1, -1).clone())
    black = replace(inputs, patches=torch.zeros_like(inputs.patches), anchors=torch.zeros_like(inputs.anchors))
    for case, tried in (("identical", same), ("zero", black), ("zero query", replace(black, query=0 * inputs.query))):
        require_valid(tried.merge(merger), tried, merger)
        for name, gradient in run_with_gradients(merger, tried, lambda given: given.merge(merger)).items():
            require(bool(gradient.isfinite().all()), f"{case} frames: the gradient of {name} is not finite")


@_rule
def inputs_unchanged(bench: Bench) -> None:
    """The arguments are never changed in place."""
    inputs = bench.chunk()
    before = {name: value.clone() for name, value in vars(inputs).items()}
    inputs.merge(bench.build())
    require_unchanged(before, vars(inputs))


@_rule
def global_random_state(bench: Bench) -> None:
    """Global random states are neither changed nor looked at."""
    merger, results = bench.build(), []
    for seed in (1, 2):
        seed_globally(seed)
        before = random_states()
        results.append(bench.chunk().merge(merger))
        require(random_states() == before, "a global random state changed")
    require_close("the result after another global seed", results[1], results[0])


@_rule
def same_generator_same_result(bench: Bench) -> None:
    """The same inputs and generator state give the same result, whatever was merged in between."""
    merger, inputs = bench.build(), bench.chunk()
    first = inputs.merge(merger)
    bench.chunk(5, 2, seed=1).merge(merger)
    for case in ("after other frames", "at once again"):
        require_close(f"the result {case}", inputs.merge(merger), first, tolerance=0)


@_rule
def no_generator(bench: Bench) -> None:
    """Without a generator a merger is deterministic, or raises a ValueError that names the generator."""
    merger, inputs = bench.build(), bench.chunk()

    def merge() -> Tensor:
        return merger(inputs.patches, inputs.anchors, inputs.anchor_of, inputs.query, generator=None)

    try:
        first = merge()
    except ValueError as error:
        require("generator" in str(error), f"the message does not name the generator: {error}")
    else:
        require_close("the second result without a generator", merge(), first)


@_rule
def any_chunking(bench: Bench) -> None:
    """Tokens and gradients do not depend on how the video is cut into chunks, nor on anchors that no frame has."""
    merger, inputs = bench.build(), bench.chunk(24)  # torch.randn draws otherwise from 16 numbers on
    want = inputs.merge(merger)
    want_gradients = run_with_gradients(merger, inputs, lambda given: given.merge(merger))
    cuts = torch.randint(0, 25, (4, 3), generator=seeded()).sort(dim=1).values
    splits = [[1] * 24, [0, 24], [7, 0, 17], *torch.diff(cuts, prepend=cuts.new_zeros(4, 1)).tolist()]
    for sizes in splits:
        sizes = [*sizes, 24 - sum(sizes)]
        require_close(f"the result in chunks of {sizes}", inputs.merge_in_chunks(merger, sizes), want)
        got = run_with_gradients(merger, inputs, lambda given: given.merge_in_chunks(merger, sizes))  # noqa: B023
        for name, gradient in got.items():
            require_close(f"the gradient of {name} in chunks of {sizes}", gradient, want_gradients[name], 1e-3)


@_rule
def own_anchor_only(bench: Bench) -> None:
    """A frame's tokens depend on no anchor but its own, and on none at all where it has none."""
    merger, inputs = bench.build(), bench.chunk(12)
    want = inputs.merge(merger)
    for anchor in range(len(inputs.anchors)):
        anchors = inputs.anchors.clone()
        anchors[anchor] = inputs.patches[anchor]
        others = inputs.anchor_of != anchor
        got = replace(inputs, anchors=anchors).merge(merger)
        require_close(f"after a change of anchor {anchor} the result of frames without it", got[others], want[others])


@_rule
def recomputation(bench: Bench) -> None:
    """Under activation checkpointing, from the same generator state, tokens and gradients are the same."""
    merger, inputs = bench.build(), bench.chunk()

    def recomputed(given: Inputs) -> Tensor:
        def run(patches: Tensor, anchors: Tensor) -> Tensor:
            return replace(given, patches=patches, anchors=anchors).merge(merger)

        tokens = checkpoint(run, given.patches, given.anchors, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(tokens, Tensor)
        return tokens

    require_close("the recomputed result", recomputed(inputs), inputs.merge(merger))
    want = run_with_gradients(merger, inputs, lambda given: given.merge(merger))
    for name, gradient in run_with_gradients(merger, inputs, recomputed).items():
        require_close(f"the recomputed gradient of {name}", gradient, want[name])


@_rule
def weights_tell_of_the_tokens(bench: Bench) -> None:
    """token_weights gives None, or shares float[n, tokens_per_frame, P] whose sum is 1, the same for every chunking."""
    merger, inputs = bench.build(), bench.chunk()
    before = {name: value.clone() for name, value in vars(inputs).items()}
    whole = inputs.differentiable().tell(merger)
    if whole is None:
        return
    for num_frames, num_anchors in ((7, 3), (1, 0), (0, 2), (0, 0)):
        given = bench.chunk(num_frames, num_anchors)
        told, shape = given.tell(merger), [num_frames, merger.tokens_per_frame, bench.num_patches]
        if told is None:
            raise AssertionError("token_weights gave a tensor for some frames, and None for others")
        require(list(told.shape) == shape, f"token_weights gave {list(told.shape)} instead of {shape}")
        require(bool((told >= 0).all()), "a weight is negative or not a number")
        require_close("the sum of the weights over the patches", told.float().sum(dim=-1), torch.ones(shape[:2]))
    require(not whole.requires_grad, "the weights carry a gradient")
    require_unchanged(before, vars(inputs))
    generator, used = seeded(), seeded()
    parts = [told for chunk in inputs.chunks((2, 1, 4)) if (told := chunk.tell(merger, generator)) is not None]
    require_close("the weights in chunks", torch.cat(parts), whole)
    inputs.merge(merger, used)
    require(bool((generator.get_state() == used.get_state()).all()), "token_weights and forward draw differently")


@_rule
def train_and_eval_modes(bench: Bench) -> None:
    """It works in train and eval mode, and under no_grad and inference_mode as without."""
    merger, inputs = bench.build(), bench.chunk()
    require_valid(inputs.merge(merger.train()), inputs, merger)
    want = inputs.merge(merger.eval())
    require_valid(want, inputs, merger)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            require_close(f"the result under {context.__name__}", inputs.merge(merger), want)


@_rule
def low_precision(bench: Bench) -> None:
    """Tokens are finite and of the type of the patches in bfloat16, and with their gradients under autocast."""
    inputs, merger = bench.chunk(), bench.build()
    small = Inputs(inputs.patches.bfloat16(), inputs.anchors.bfloat16(), inputs.anchor_of, inputs.query.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (inputs, small):
            require_valid(given.merge(merger), given, merger)
            for name, gradient in run_with_gradients(merger, given, lambda tried: tried.merge(merger)).items():
                require(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")
    require_valid(small.merge(merger.bfloat16()), small, merger)


@_rule
def strided_inputs(bench: Bench) -> None:
    """Inputs that are not contiguous in memory give what their contiguous copies give."""
    merger, inputs = bench.build(), bench.chunk()
    patches, anchors = (value.mT.contiguous().mT for value in (inputs.patches, inputs.anchors))
    strided = Inputs(patches, anchors, inputs.anchor_of.repeat_interleave(2)[::2], inputs.query)
    require_close("the result", strided.merge(merger), inputs.merge(merger))


@_rule
def rejects_bad_inputs(bench: Bench) -> None:
    """A wrong shape, a number that is not finite or an unknown anchor is a ValueError that names the argument."""
    merger, good = bench.build(), bench.chunk()
    patches, anchors, anchor_of, query = good.patches, good.anchors, good.anchor_of, good.query
    holed = patches.clone()
    holed[2, 1, 0] = torch.nan
    cases = {
        "NaN in patches": ("patches", replace(good, patches=holed)),
        "infinity in anchors": ("anchors", replace(good, anchors=anchors / 0)),
        "NaN in the query": ("query", replace(good, query=query * torch.nan)),
        "patches of one frame": ("patches", replace(good, patches=patches[0])),
        "no patches": ("patches", replace(good, patches=patches[:, :0], anchors=anchors[:, :0])),
        "anchors of other patches": ("anchors", replace(good, anchors=anchors[:, 1:])),
        "anchors of another width": ("anchors", replace(good, anchors=anchors[:, :, 1:])),
        "an anchor too high": ("anchor_of", replace(good, anchor_of=anchor_of + 1)),
        "an anchor below -1": ("anchor_of", replace(good, anchor_of=anchor_of - 1)),
        "an anchor too few": ("anchor_of", replace(good, anchor_of=anchor_of[1:])),
        "anchors as floats": ("anchor_of", replace(good, anchor_of=anchor_of.float())),
        "two queries": ("query", replace(good, query=query.expand(2, -1))),
    }
    for case, (argument, inputs) in cases.items():
        require_value_error(lambda: inputs.merge(merger), argument, case)  # noqa: B023


@_rule
def other_widths(bench: Bench) -> None:
    """Widths other than those it was built with work, or are a ValueError that names the argument."""
    merger, good = bench.build(), bench.chunk()
    wide = replace(good, patches=torch.cat([good.patches] * 2, 2), anchors=torch.cat([good.anchors] * 2, 2))
    for argument, inputs in (("patches", wide), ("query", replace(good, query=good.query[1:]))):
        try:
            tokens = inputs.merge(merger)
        except ValueError as error:
            require(argument in str(error), f"the message does not name {argument}: {error}")
        else:
            require_valid(tokens, inputs, merger)


@_rule
def gradients_reach_parameters(bench: Bench) -> None:
    """Gradients reach the patches and every parameter that requires them."""
    merger, inputs = nudged(bench.build()), bench.chunk().differentiable()
    if merger.tokens_per_frame > 0:
        tokens = inputs.merge(merger)
        require(tokens.requires_grad, "the tokens carry no gradient")
        backward(tokens)
        gradient = inputs.patches.grad
        require(gradient is not None and bool(gradient.any()), "no gradient reaches the patches")
    require_live_gradients(merger)


@_rule
def state_dict_round_trip(bench: Bench) -> None:
    """A state_dict loaded into another instance makes it merge the same."""
    merger, other, inputs = bench.build(), scrambled(bench.build()), bench.chunk()
    other.load_state_dict(merger.state_dict())
    require_close("the result after load_state_dict", inputs.merge(other), inputs.merge(merger))


@_rule
def copies(bench: Bench) -> None:
    """A deep copy and a pickled copy merge the same (spawned processes pickle)."""
    merger, inputs = bench.build(), bench.chunk()
    want = inputs.merge(merger)
    require_close("the result of a deep copy", inputs.merge(copy.deepcopy(merger)), want)
    require_close("the result of a pickled copy", inputs.merge(pickle.loads(pickle.dumps(merger))), want)


@_rule
def works_on_cuda(bench: Bench) -> None:
    """It gives on a CUDA device what it gives on the CPU, with the generator on the CPU."""
    merger, inputs = bench.build(), bench.chunk()
    want = inputs.merge(merger)
    moved = Inputs(*(value.cuda() for value in vars(inputs).values()))
    require_close("the result on CUDA", moved.merge(merger.cuda()).cpu(), want, tolerance=1e-2)
