"""Makes the report of a run or of an evaluation: the page, and every chart as a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vilamp.disk import RUN_FOLDER, writing_to
from vilamp.report.charts import AMBER, BLUE, RED, Chart, bars, costs, curves
from vilamp.report.folder import DEPTH, KIND, RunFolder, read_folder
from vilamp.report.page import page
from vilamp.report.samples import Sample
from vilamp.report.scores import score_charts
from vilamp.report.timeline import timeline

PAGE, PICTURES, TIMELINE = "report.html", "report", "timeline.png"
LEARNING = {
    "loss": {"train/loss": ("training", BLUE), "val/loss": ("validation", RED)},
    "accuracy": {
        "train/accuracy": ("training", BLUE),
        "val/accuracy": ("validation", RED),
        "val/keyframe_recall": ("keyframe recall", AMBER),
    },
}
MEMORY = {
    "memory (GiB)": {
        "memory/peak_gib": ("GPU", RED),
        "memory/peak_rss_gib": ("process", BLUE),
        "memory/peak_tree_gib": ("with its processes", AMBER),
    },
    "frames a second": {"throughput/frames_per_s": ("frames", BLUE)},
}


@dataclass(frozen=True)
class Report:
    """What was made.

    Attributes:
        file: the page.
        charts: of the run.
        samples: each with its timeline.
        pictures: name of a chart -> its PNG.
    """

    file: Path
    charts: list[Chart]
    samples: list[tuple[Sample, Chart]]
    pictures: dict[str, Path]


def make_report(folder: Path) -> Report:
    """Write ``report.html``, ``report/*.png`` and ``timeline.png`` into a run's folder, from what lies there.

    Raises:
        DataError: it is no run's folder, or a file in it cannot be read.
        OutputError: a full disk, or a folder that cannot be written.
    """
    run = read_folder(folder)
    charts = _charts(run)
    samples = [(sample, timeline(sample, f"timeline-{number}")) for number, sample in enumerate(run.samples.samples, 1)]
    drawn = [*charts, *(chart for _, chart in samples)]
    pictures = {chart.name: folder / PICTURES / f"{chart.name}.png" for chart in drawn}
    with writing_to({folder: RUN_FOLDER}):
        (folder / PICTURES).mkdir(exist_ok=True)
        for chart in drawn:
            pictures[chart.name].write_bytes(chart.png)
        if samples:
            (folder / TIMELINE).write_bytes(samples[0][1].png)
        (folder / PAGE).write_text(page(run, charts, samples), encoding="utf-8")
    return Report(folder / PAGE, charts, samples, pictures)


def _charts(run: RunFolder) -> list[Chart]:
    made = [
        curves(run.rows, LEARNING, "learning", "Loss and accuracy while it learnt."),
        bars({"": run.below(KIND)}, "by_kind", "Accuracy by kind of question."),
        bars(
            {"": run.below(DEPTH)},
            "by_depth",
            "Accuracy by depth: the part of the video in which the evidence lies, 0 is its start and 1 its end.",
        ),
        *(score_charts(run.evaluated.scores) if run.evaluated else ()),
        curves(run.rows, MEMORY, "memory", "Peak memory so far, and speed, over the steps."),
        costs(run.samples.costs),
    ]
    return [chart for chart in made if chart is not None]
