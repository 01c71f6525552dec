"""What merging costs: both forms of DFM, the published procedure, and the bare limits of each form.

    python benchmarks/merging.py
    python benchmarks/merging.py --full         also the published backward pass over 1,024 frames, minutes a call

All get the same patches (729 a frame), 32 keyframes and a query of width 512, in float32, without gradient and as a
training step has it, forward and backward with gradients of patches and weights.  The published procedure is the
release form on tensors of the whole video: keyframes and query repeated for every frame, four maps of that, cosines of
60 frames at a time.  The limit of the release form are its two products of all patches with a D x D matrix, that of the
paper form is the plain mean.  The promises are for 1,024 frames: without gradient, at width 512, 1.3 products and 128
MiB, or 2.5 means; with gradients, at width 64, 20 times faster than the published procedure in 1/20 of its memory.
Threads spin for a moment while they wait (``harness.PATIENCE``).  Where they sleep at once, as ``vilamp train`` lets
them, the paper's form takes more than 2.5 means: ``OMP_WAIT_POLICY=passive python benchmarks/merging.py`` shows that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from harness import Column, Row, alternate, extra_mib, growth_mib, options, report
from torch import Tensor
from torch.nn import functional as F

from vilamp.mergers.differential import DifferentialMerger

PATCHES, QUERY_WIDTH, KEYFRAMES = 729, 512, 32
REPEATS = 3
PUBLISHED_FRAMES = 60
"""How many frames the published procedure compares at a time."""

Point = tuple[str, int, int]
"""What is measured ("forward" or "training"), width and number of frames."""

FORWARD: list[Point] = [("forward", width, size) for width in (64, 128, 256, 512) for size in (256, 1_024)]
TRAINING: list[Point] = [("training", 64, size) for size in (256, 512, 1_024)]
QUICK: list[Point] = [("forward", 16, 40), ("training", 16, 40)]
SLOW: Point = ("training", 64, 1_024)
"""Where the published procedure is measured only with ``--full``."""

MEMORY_WAYS = ("paper", "release", "published")


class Measured(Column):
    """A column that has nothing where a way was not measured."""

    def show(self, row: Row) -> str:
        """The cell of a row."""
        return super().show(row) if self.key in row else "-"


COLUMNS = (
    Column("pass", "pass"),
    Column("width", "width"),
    Column("n", "frames", ","),
    Column("mean_s", "mean, s", ".3f"),
    Column("paper_s", "paper, s", ".3f"),
    Column("products_s", "products, s", ".3f"),
    Column("release_s", "release, s", ".3f"),
    Measured("published_s", "published, s", ".2f"),
    Column("paper_over_mean", "paper / mean", ".2f"),
    Column("release_over_products", "release / products", ".2f"),
    Measured("published_over_release", "published / release", ".1f"),
    Column("paper_extra_mib", "paper, MiB", ".0f"),
    Column("release_extra_mib", "release, MiB", ".0f"),
    Measured("published_extra_mib", "published, MiB", ",.0f"),
)


def published(merger: DifferentialMerger, patches: Tensor, anchor_of: Sequence[int], query: Tensor) -> Tensor:
    """Tokens float[N, D] of all frames by the published procedure.

    Each frame's anchor is taken by an index of its own, and the backward pass of each is a tensor as large as the
    video.

    Args:
        merger: whose four maps and alpha are used.
        patches: float[N, P, D] of the whole video.
        anchor_of: for each frame its anchor among the frames.
        query: float[Ds].
    """
    anchors = torch.stack([patches[frame] for frame in anchor_of])  # [N, P, D]
    queries = query.repeat(*patches.shape[:2], 1)  # [N, P, Ds]
    mapped = (
        merger.query_map(queries),
        merger.patch_query_map(patches),
        merger.anchor_map(anchors),
        merger.patch_anchor_map(patches),
    )
    saliencies = []
    for start in range(0, len(patches), PUBLISHED_FRAMES):
        asked, to_query, anchor, to_anchor = (whole[start : start + PUBLISHED_FRAMES] for whole in mapped)
        relevance = F.cosine_similarity(asked, to_query, dim=-1)
        saliencies.append(relevance - F.cosine_similarity(anchor, to_anchor, dim=-1))
    weights = (torch.cat(saliencies) / merger.alpha).softmax(dim=-1)  # [N, P]
    return (weights[..., None] * patches).sum(dim=1)


def ways(kind: str, width: int, num_frames: int) -> dict[str, Callable[[], object]]:
    """The calls to compare, the last of them the published procedure."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(num_frames, PATCHES, width, generator=generator).requires_grad_(kind == "training")
    query = torch.randn(QUERY_WIDTH, generator=generator)
    keyframes = torch.arange(KEYFRAMES) * num_frames // KEYFRAMES
    anchors = patches.detach()[keyframes].requires_grad_(kind == "training")
    anchor_of = torch.arange(num_frames) * KEYFRAMES // num_frames
    with torch.random.fork_rng():
        torch.manual_seed(0)
        paper = DifferentialMerger(dim=width, query_dim=QUERY_WIDTH)
        release = DifferentialMerger(maps="four", learn_alpha=True, dim=width, query_dim=QUERY_WIDTH)

    def products() -> Tensor:
        # As it is done best, a few frames at a time; kept whole, the results cost more time than the products.
        blocks = [
            release.patch_query_map(block)[:, :1] + release.patch_anchor_map(block)[:, :1] for block in patches.split(8)
        ]
        return torch.cat(blocks)

    tokens: dict[str, Callable[[], Tensor]] = {
        "mean": lambda: patches.mean(dim=1),
        "paper": lambda: paper(patches, anchors, anchor_of, query)[:, 0],
        "products": products,
        "release": lambda: release(patches, anchors, anchor_of, query)[:, 0],
        "published": lambda: published(release, patches, keyframes[anchor_of].tolist(), query),
    }
    if kind == "forward":
        return {way: torch.no_grad()(run) for way, run in tokens.items()}
    leaves = [patches, *paper.parameters(), *release.parameters()]

    def train(run: Callable[[], Tensor]) -> list[Tensor | None]:
        run().square().sum().backward()
        if patches.grad is not None and anchors.grad is not None:
            # Keyframes count in both roles; autograd through an index would need one more tensor as large as patches.
            patches.grad.index_add_(0, keyframes, anchors.grad)
            anchors.grad = None
        grads = [leaf.grad for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
        return grads

    return {way: partial(train, run) for way, run in tokens.items()}


def grow(way: str, kind: str, width: int, num_frames: int) -> float:
    """MiB that one call takes beyond its inputs, in this process; the gradients are part of it."""
    ways(kind, 8, 33)[way]()  # loads what torch loads at the first use
    return growth_mib(ways(kind, width, num_frames)[way])


def measure(point: Point, repeats: int, with_published: bool) -> dict[str, str | int | float]:
    """The row of one point, without the figures of the published procedure unless they are wanted."""
    kind, width, num_frames = point
    calls = ways(*point)
    if not with_published:
        del calls["published"]
    seconds = alternate(calls, repeats)
    row: dict[str, str | int | float] = {"pass": kind, "width": width, "n": num_frames}
    row |= {f"{way}_s": value for way, value in seconds.items()}
    row["paper_over_mean"] = seconds["paper"] / seconds["mean"]
    row["release_over_products"] = seconds["release"] / seconds["products"]
    if with_published:
        row["published_over_release"] = seconds["published"] / seconds["release"]
    del calls
    return row | {f"{way}_extra_mib": extra_mib(__file__, way, *point) for way in MEMORY_WAYS if f"{way}_s" in row}


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every point."""
    full = "--full" in (sys.argv if argv is None else argv)
    if argv is None:
        sys.argv = [argument for argument in sys.argv if argument != "--full"]
    wanted = options(__doc__ or "", argv and [argument for argument in argv if argument != "--full"])
    if wanted.grow:
        way, kind, width, num_frames = wanted.grow
        print(grow(way, kind, int(width), int(num_frames)))
        return
    points = QUICK if wanted.quick else FORWARD + TRAINING
    rows = [measure(point, 1 if wanted.quick else REPEATS, full or point != SLOW) for point in points]
    if not full and SLOW in points:
        print("The published backward pass over 1,024 frames takes minutes and is left out: --full measures it")
    title = f"Merging: {PATCHES} patches, {KEYFRAMES} keyframes, query width {QUERY_WIDTH}, float32"
    report(title, rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
