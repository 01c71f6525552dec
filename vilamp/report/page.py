"""The page: HTML and SVG without scripts, which needs nothing from outside.

All that comes from a run is text until :func:`html.escape` has made it safe; the page's own policy forbids scripts too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from omegaconf import OmegaConf

from vilamp import __version__
from vilamp.report.charts import Chart
from vilamp.report.folder import LISTED, RunFolder
from vilamp.report.samples import Sample, Still
from vilamp.report.timeline import patches_looked_at, shade

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
KEY_FIGURES = {
    "val/accuracy": ("accuracy", "{:.3f}"),
    "val/accuracy_before": ("before training", "{:.3f}"),
    "val/keyframe_recall": ("keyframe recall", "{:.3f}"),
    "keyframe_recall": ("keyframe recall", "{:.3f}"),
    "visual_tokens": ("visual tokens", "{:.0f}"),
    "memory/peak_gib": ("peak GPU memory", "{:.2f} GiB"),
    "memory/peak_rss_gib": ("peak memory", "{:.2f} GiB"),
    "throughput/frames_per_s": ("frames a second", "{:.0f}"),
    "data/skipped": ("samples skipped", "{:.0f}"),
    "seconds": ("seconds for all answers", "{:.1f}"),
    "questions": ("questions", "{:.0f}"),
    "asked": ("questions asked", "{:.0f}"),
}
PARTS = ("benchmark", "selector", "merger")
CONFIG_LETTERS = 20_000
FIGURES = 500
"""Most figures in the table."""


def page(run: RunFolder, charts: Sequence[Chart], samples: Sequence[tuple[Sample, Chart]]) -> str:
    """The whole page."""
    style = files("vilamp.report").joinpath("page.css").read_text(encoding="utf-8")
    title = escape(f"Run {run.path.resolve().name}")
    body = [
        f"<header><h1>{title}</h1><p>{escape(_parts(run.config))}</p>{_state(run)}</header>",
        f"<dl class=tiles>{''.join(_tiles(run))}</dl>",
        '<section aria-label="charts" class=charts>', *map(_chart, charts), "</section>",
        *_samples(run, samples),
        *_details(run),
        f"<footer>vilamp {escape(__version__)}; <code>vilamp report {escape(str(run.path))}</code> makes this page "
        "again.</footer>",
    ]  # fmt: skip
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title><style>{style}</style></head>", "<body><main>", *body, "</main></body></html>", "",
    ])  # fmt: skip


def _parts(config: str) -> str:
    """The classes that the run was made of, as its configuration names them."""
    try:
        node = OmegaConf.create(config)
    except Exception:  # whatever is wrong with the file: its text is shown below
        return ""
    targets = {part: OmegaConf.select(node, f"{part}._target_", throw_on_resolution_failure=False) for part in PARTS}
    return " · ".join(str(target).rpartition(".")[2] for target in targets.values() if target)


def _state(run: RunFolder) -> str:
    notes = run.evaluated.notes if run.evaluated else []
    if not run.ended and run.evaluated:
        notes = ["This evaluation has not ended: its figures are of the answers so far."]
    elif not run.ended:
        notes = ["This run has not ended: the figures are the last that it logged."]
    return "".join(f"<p class=note>{escape(note)}</p>" for note in notes)


def _tiles(run: RunFolder) -> Iterable[str]:
    if (evaluated := run.evaluated) is not None:
        headline = evaluated.headline
        for way, scores in evaluated.scores.items():
            yield f"<div><dt>{escape(f'{headline}, {way}')}</dt><dd>{scores[headline]:.3f}</dd></div>"
    for name, (label, form) in KEY_FIGURES.items():
        if name in run.figures:
            yield f"<div><dt>{label}</dt><dd>{form.format(run.figures[name])}</dd></div>"


def _chart(chart: Chart) -> str:
    caption = escape(chart.caption)
    return f'<figure id="{escape(chart.name)}"><div role=img aria-label="{caption}">{chart.svg}</div>' \
        f"<figcaption>{caption}</figcaption></figure>"  # fmt: skip


def _samples(run: RunFolder, samples: Sequence[tuple[Sample, Chart]]) -> Iterable[str]:
    one, start = ("an evaluation", "benchmark") if run.evaluated else ("a run", "validation set")
    right = sum(sample.exact is True for sample, _ in samples)
    notes = [
        f"{right} with a right and {len(samples) - right} with a wrong answer, from the start of the {start}: how many "
        "there are of each says nothing of the accuracy."
        if samples
        else f"There are none: {one} looks at some at its very end, if it asks about videos."
    ]
    if run.samples.unseen:
        notes.append(f"Missing here: {run.samples.unseen}, whose videos could be read no more when it looked.")
    yield "<h2>Questions, closely</h2>"
    yield from (f"<p class=note>{escape(note)}</p>" for note in notes)
    yield from (_sample(sample, chart) for sample, chart in samples)


def _sample(sample: Sample, chart: Chart) -> str:
    verdict, word = ("right", "right") if sample.exact else ("wrong", "wrong")
    keyframes = [still for still in sample.stills if not still.merged]
    merged = [still for still in sample.stills if still.merged]
    said = f"<b>{escape(sample.answer) or '(nothing)'}</b>"
    expected = "" if sample.exact else f" <span class=muted>instead of</span> <b>{escape(sample.right_answer)}</b>"
    strips = [_strip(sample, keyframes, f"Keyframes, {len(keyframes)} of {len(sample.keyframes)}")]
    if merged:
        told = any(still.weights for still in merged)
        total = len(sample.times) - len(sample.keyframes)
        what = (
            "what their tokens attended to is bright (hold the pointer over a frame to see all of it)"
            if told
            else "the merger does not tell what its tokens attended to"
        )
        strips.append(_strip(sample, merged, f"Merged frames, {len(merged)} of {total}: {what}"))
    return "\n".join([
        f'<article class="{verdict}"><h3>{escape(sample.question)}</h3>',
        f"<p class=verdict><span class=badge>{word}</span> {said}{expected} "
        f"<span class=muted>{escape(sample.kind)}, {escape(sample.key)}</span></p>",
        _chart(chart), *strips, "</article>",
    ])  # fmt: skip


def _strip(sample: Sample, stills: Sequence[Still], title: str) -> str:
    return f"<h4>{escape(title)}</h4><div class=strip>{''.join(_still(sample, still) for still in stills)}</div>"


def _still(sample: Sample, still: Still) -> str:
    seconds = f"{sample.times[still.frame]:.0f} s"
    note, over = "", ""
    if still.weights is not None:
        note = f"≈ {patches_looked_at(still.weights):.1f} of {sum(map(len, still.weights))} patches"
        over = f'<img class=shade alt="{note}" src="data:image/png;base64,{shade(still.weights)}">'
    evidence = sample.in_evidence(still.frame)
    caption = f"{seconds}{', evidence' if evidence else ''}{f'<br>{note}' if note else ''}"
    return (
        f'<figure class="still{" evidence" if evidence else ""}"><div class=frame><img alt="frame at {seconds}" '
        f'src="data:image/jpeg;base64,{escape(still.jpeg)}">{over}</div><figcaption>{caption}</figcaption></figure>'
    )


def _details(run: RunFolder) -> Iterable[str]:
    figures = sorted(run.figures.items())[:FIGURES]
    yield _folded(f"All figures ({len(run.figures)})", _table([(name, f"{value:.6g}") for name, value in figures]))
    for way, scores in run.evaluated.scores.items() if run.evaluated else ():
        yield _folded(f"Scores, {way}", _table([(name, f"{value:.6g}") for name, value in scores.items()]))
    if run.skipped:
        rows = [tuple(str(row.get(name, ""))[:500] for name in ("key", "reason", "detail")) for row in run.skipped]
        yield _folded(f"Samples that could not be used (the first {LISTED} at most)", _table(rows))
    if run.config:
        cut = "\n… config.yaml has the rest" if len(run.config) > CONFIG_LETTERS else ""
        yield _folded("Configuration", f"<pre>{escape(run.config[:CONFIG_LETTERS] + cut)}</pre>")


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary><div class=scroll>{content}</div></details>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
