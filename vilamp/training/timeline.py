"""One picture that tells why an answer came out as it did: relevance over time, and the frames that were kept."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vilamp.interfaces import Selection
from vilamp.samples import EncodedQuestion, Video

MAX_THUMBNAILS = 16


def timeline_figure(
    video: Video, question: EncodedQuestion, selection: Selection, answer: str, exact: bool | None
) -> Figure:
    """The picture; the first of its axes is time, in seconds.

    Args:
        video: the frames.
        question: what was asked; its evidence is shaded.
        selection: what was selected; without a relevance the curve is left out.
        answer: what the model said.
        exact: whether that is right; None where nobody knows.
    """
    keyframes = selection.keyframes.cpu()
    times = video.timestamps.cpu()
    shown = keyframes[:MAX_THUMBNAILS].tolist()
    figure = Figure(figsize=(12, 5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, max(len(shown), 1), height_ratios=[1.6, 1])
    curve = figure.add_subplot(grid[0, :])
    if selection.relevance is not None:
        relevance = selection.relevance.float().cpu()
        curve.plot(times, relevance, color="#4c6a92", linewidth=1.2, label="relevance")
        curve.plot(times[keyframes], relevance[keyframes], "o", color="#d1495b", label="keyframes")
    else:
        curve.plot(times[keyframes], [0.0] * len(keyframes), "o", color="#d1495b", label="keyframes")
    for i, (start, end) in enumerate(question.source.evidence):
        curve.axvspan(start, end, color="#edae49", alpha=0.4, label="evidence" if i == 0 else None)
    curve.set(xlabel="time (s)", ylabel="cosine with the question", xlim=(float(times[0]), max(float(times[-1]), 1.0)))
    curve.legend(loc="upper right", frameon=False)
    curve.spines[["top", "right"]].set_visible(False)
    verdict = "" if exact is None else "  (right)" if exact else f"  (wrong, it is: {question.source.answer})"
    title = f"{question.source.question}   →   {answer or '(nothing)'}{verdict}"
    curve.set_title(title, loc="left", fontsize=12, parse_math=False)
    for column, index in enumerate(shown):
        thumbnail = figure.add_subplot(grid[1, column])
        thumbnail.imshow(video.frames[index].numpy())
        thumbnail.set_title(f"{float(times[index]):.0f} s", fontsize=9)
        thumbnail.axis("off")
    if len(keyframes) > len(shown):
        figure.supxlabel(f"first {len(shown)} of {len(keyframes)} keyframes", fontsize=9)
    return figure
