"""Charts of a run, each as a PNG and as an SVG whose colours the page decides."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vilamp.report.samples import Cost

INK, MUTED, LINES = "#1f2430", "#6b7280", "#d9dde3"
BLUE, RED, AMBER = "#3b6ea5", "#c8434f", "#d99a1c"
VARIABLES = {INK: "ink", MUTED: "muted", LINES: "lines", BLUE: "blue", RED: "red", AMBER: "amber"}
"""Colour in a figure -> the CSS variable that stands for it on the page."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, which can be read aloud and searched
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINES,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": LINES,
    "ytick.color": LINES,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
}
SERIES = (BLUE, AMBER, RED)
"""Colours of series that stand beside each other."""
POINTS = 2000
"""Most points of a curve; of more, means of neighbours are drawn."""
BARS = 40
NAME = 40
"""Letters of a bar's name."""

Row = Mapping[str, str]


@dataclass(frozen=True)
class Chart:
    """One picture.

    Attributes:
        name: of its file.
        caption: what it shows, in a sentence.
        svg: for the page; colours are CSS variables.
        png: the same for everything else.
    """

    name: str
    caption: str
    svg: str
    png: bytes


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all charts; a letter that the font of PNGs lacks becomes a box."""
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        yield


def new_figure(width: float = 7, height: float = 2.8) -> Figure:
    """A figure of so many inches, within :func:`drawing`."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_chart(figure: Figure, name: str, caption: str) -> Chart:
    """The figure in both forms, laid out once."""
    svg = _svg(figure, name)
    figure.set_layout_engine("none")
    return Chart(name, caption, svg, as_png(figure))


def as_png(figure: Figure) -> bytes:
    """The figure on white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", facecolor="white")
    return file.getvalue()


def _svg(figure: Figure, name: str) -> str:
    """The figure for a page: ids are of this picture alone, and only those that something refers to."""
    file = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referred else "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg, count=1)


def curve(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a column of ``metrics.csv``, where it has a number."""
    points = []
    for row in rows:
        try:
            points.append((float(row.get("step") or ""), float(row.get(name) or "")))
        except ValueError:
            continue  # an empty field, or the half of one in the last line of a killed run
    finite = np.array([point for point in points if np.isfinite(point).all()]).reshape(-1, 2)
    groups = np.array_split(finite, min(POINTS, len(finite))) if len(finite) else []
    steps, values = [float(g[:, 0].mean()) for g in groups], [float(g[:, 1].mean()) for g in groups]
    return steps, values


def curves(
    rows: Sequence[Row], panels: Mapping[str, Mapping[str, tuple[str, str]]], name: str, caption: str
) -> Chart | None:
    """Curves over the steps; None where no column has a number.

    Args:
        rows: of ``metrics.csv``.
        panels: label of the axis -> column -> (its name in the picture, colour).
        name: of the chart.
        caption: of the chart.
    """
    found = {
        label: {column: points for column in columns if (points := curve(rows, column))[0]}
        for label, columns in panels.items()
    }
    found = {label: columns for label, columns in found.items() if columns}
    if not found:
        return None
    with drawing():
        figure = new_figure(3.5 * max(len(found), 2))
        for axes, (label, columns) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
            for column, (steps, values) in columns.items():
                told, colour = panels[label][column]
                marker = "o" if len(steps) < 20 else ""
                axes.plot(steps, values, color=colour, label=told, linewidth=1.5, marker=marker, markersize=3)
            axes.set(xlabel="step", title=label)
            if label == "accuracy":
                axes.set_ylim(-0.03, 1.03)
            elif label != "loss":
                axes.set_ylim(0, 1.15 * max(max(values) for _, values in columns.values()) or 1)
            axes.legend(loc="best", labelcolor=MUTED)
        return as_chart(figure, name, caption)


def bars(series: Mapping[str, Mapping[str, float]], name: str, caption: str, label: str = "accuracy") -> Chart | None:
    """Shares between 0 and 1 as bars below each other; None where there is none.

    Args:
        series: what one is called -> name of a bar -> share; bars of the same name stand beside each other.
        name: of the chart.
        caption: of the chart.
        label: of the axis.
    """
    names = list(dict.fromkeys(told for values in series.values() for told in values))
    if not names:
        return None
    shown = names[:BARS]
    if len(names) > len(shown):
        caption += f" The first {len(shown)} of {len(names)}."
    height = 0.62 / len(series)
    with drawing():
        figure = new_figure(height=0.9 + (0.06 + 0.24 * len(series)) * len(shown))
        axes = figure.subplots()
        for number, (told, values) in enumerate(series.items()):
            first = (number - (len(series) - 1) / 2) * height
            bar = {first + row: values[told] for row, told in enumerate(shown) if told in values}
            axes.barh(list(bar), list(bar.values()), color=SERIES[number % len(SERIES)], height=height, label=told)
            for place, value in bar.items():
                axes.text(value + 0.01, place, f"{value:.3f}", va="center", color=INK)
        axes.set(xlim=(0, 1.08), xlabel=label, ylim=(len(shown) - 0.4, -0.6))
        axes.set_yticks(range(len(shown)), [_short(told) for told in shown])
        axes.grid(axis="y", visible=False)
        if len(series) > 1:
            figure.legend(loc="outside upper right", ncols=len(series), labelcolor=MUTED)
        return as_chart(figure, name, caption)


def _short(name: str) -> str:
    name = " ".join(name.split()) or "(no name)"
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def costs(measured: Sequence[Cost]) -> Chart | None:
    """Seconds and memory against frames; None where nothing was measured."""
    if not measured:
        return None
    frames = [cost.frames for cost in measured]
    memory = "memory on the GPU (GiB)" if measured[0].on_gpu else "memory of the process (GiB)"
    panels: dict[str, list[Any]] = {
        "seconds": [cost.seconds for cost in measured],
        memory: [cost.peak_gib for cost in measured],
    }
    with drawing():
        figure = new_figure()
        for axes, (label, values) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            axes.plot(frames, values, color=BLUE, marker="o", markersize=4)
            axes.set(xlabel="frames of the video", title=label, xlim=(0, None), ylim=(0, max(values) * 1.15 or 1))
        caption = (
            "What one question takes: the first quarter, the first half and all of one validation video, each measured "
            "once. Decoding is no part of it."
        )
        return as_chart(figure, "costs", caption)
