"""What one optimiser step costs: ours, and the straightforward way that keeps the whole video at once.

    python benchmarks/train_step.py

Both start from the same weights (``model=tiny``, 32 keyframes), train merger, projector and language model with a
frozen tower, and must give the same loss.  The straightforward way is written from the description of the published
implementation: features of all frames are kept, every merged frame gets a copy of its anchor, and logits are computed
at every position.  Selection is ours on both sides, since only the step is compared.  Ours runs the tower twice,
forward and in the backward pass, which is the price of not keeping its features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from harness import Column, Row, alternate, extra_mib, growth_mib, options, report
from small_model import one_question, rolling_video, small_model
from torch import Tensor

from vilamp.mergers.differential import DifferentialMerger
from vilamp.models.video_lm import VideoLM
from vilamp.models.visual_stream import interleave
from vilamp.samples import Batch

KEYFRAMES, RATE = 32, 1e-5
SIZES, REPEATS = (64, 256, 1_024), 5
QUICK_SIZES, QUICK_REPEATS = (40,), 1
TOLERANCE = 1e-4
"""Between the two losses, relative."""

COLUMNS = (
    Column("n", "frames", ","),
    Column("tokens", "tokens", ","),
    Column("loss", "loss", ".4f"),
    Column("ours_s", "ours, s", ".3f"),
    Column("whole_video_s", "whole video, s", ".3f"),
    Column("whole_video_over_ours_time", "time ratio", ".2f"),
    Column("ours_extra_mib", "ours, MiB", ".1f"),
    Column("whole_video_extra_mib", "whole video, MiB", ".1f"),
    Column("whole_video_over_ours_memory", "memory ratio", ".1f"),
)


def whole_video_loss(model: VideoLM, batch: Batch) -> Tensor:
    """The loss of a batch of one question, with everything about the video in memory at once."""
    question, video = batch.questions[0], batch.videos[0]
    (selection,), queries = model.select(video, [question])
    keyframes = selection.keyframes
    is_keyframe = torch.zeros(len(video), dtype=torch.bool)
    is_keyframe[keyframes] = True
    with torch.no_grad():
        patches = model.vision_tower(video.frames)  # [N, P, Dv]
    numbers = torch.arange(len(video))[~is_keyframe]
    anchor_of = torch.searchsorted(keyframes, numbers) - 1
    merged = whole_video_merge(model.merger, patches[~is_keyframe], patches[keyframes], anchor_of, queries[0])
    keyframe_tokens = model.projector.project_keyframes(patches[keyframes])
    visual = interleave(keyframe_tokens, model.projector.project_merged(merged), keyframes, len(video))
    joined = model.join(question.input_ids, question.labels, visual, selection)
    logits = model.language_model.lm(inputs_embeds=joined.embeddings[None], use_cache=False).logits[0]
    return F.cross_entropy(logits[:-1], joined.labels[1:])


def whole_video_merge(
    merger: torch.nn.Module, patches: Tensor, anchors: Tensor, anchor_of: Tensor, query: Tensor
) -> Tensor:
    """DFM (ViLaMP, Eq. 5-7, 9-10) with a copy of its anchor for every frame: float[m, P, D] -> float[m, 1, D]."""
    assert isinstance(merger, DifferentialMerger)
    expanded = anchors[anchor_of.clamp(min=0)]  # [m, P, D]
    redundancy = F.cosine_similarity(patches, expanded, dim=-1).masked_fill((anchor_of < 0)[:, None], 0.0)
    relevance = F.cosine_similarity(patches, merger.query_map(query.to(patches.dtype)).expand_as(patches), dim=-1)
    weights = ((relevance - merger.lambda_ * redundancy) / merger.alpha).softmax(dim=-1)  # [m, P]
    return (weights[..., None] * patches).sum(dim=1, keepdim=True)


def ours_loss(model: VideoLM, batch: Batch) -> Tensor:
    """The loss of a batch of one question, as training computes it."""
    loss: Tensor = model(batch).loss
    return loss


WAYS: dict[str, Callable[[VideoLM, Batch], Tensor]] = {"ours": ours_loss, "whole_video": whole_video_loss}


def stepper(way: str) -> Callable[[int], float]:
    """The small model with an optimiser; a call is one step on N frames and returns the loss."""
    model = small_model(f"num_keyframes={KEYFRAMES}")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)

    def step(num_frames: int) -> float:
        optimizer.zero_grad()
        loss = WAYS[way](model, one_question(rolling_video(num_frames)))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def grow(way: str, num_frames: int) -> float:
    """MiB that one step takes in this process, beyond weights, optimiser and frames."""
    step = stepper(way)
    step(KEYFRAMES + 8)  # loads what torch loads at the first use, and fills the optimiser's state
    return growth_mib(lambda: step(num_frames))


def measure(num_frames: int, repeats: int) -> Row:
    """The row of one length.

    Raises:
        ValueError: the two ways give different losses.
    """
    steps = {way: stepper(way) for way in WAYS}
    losses = {way: step(num_frames) for way, step in steps.items()}
    if abs(losses["ours"] - losses["whole_video"]) > TOLERANCE * abs(losses["whole_video"]):
        raise ValueError(f"{num_frames} frames: the two ways give different losses, {losses}")
    seconds = alternate({way: lambda step=step: step(num_frames) for way, step in steps.items()}, repeats)  # type: ignore[misc]
    memory = {way: extra_mib(__file__, way, num_frames) for way in WAYS}
    with torch.no_grad():
        visual = small_model(f"num_keyframes={KEYFRAMES}").see(one_question(rolling_video(num_frames)))[0][0]
    assert visual is not None
    return {
        "n": num_frames,
        "tokens": len(visual),
        "loss": losses["ours"],
        **{f"{way}_s": value for way, value in seconds.items()},
        "whole_video_over_ours_time": seconds["whole_video"] / seconds["ours"],
        **{f"{way}_extra_mib": value for way, value in memory.items()},
        "whole_video_over_ours_memory": memory["whole_video"] / memory["ours"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for every length."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        way, size = wanted.grow
        print(grow(way, int(size)))
        return
    sizes, repeats = (QUICK_SIZES, QUICK_REPEATS) if wanted.quick else (SIZES, REPEATS)
    rows = [measure(size, repeats) for size in sizes]
    report(f"One optimiser step: model=tiny, K = {KEYFRAMES}, float32", rows, COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
