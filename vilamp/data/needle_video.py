"""One needle video: what happens in it, its questions, and its H.264 file.

Kept apart from :mod:`vilamp.data.needle` because worker processes import this module: it needs numpy, Pillow and PyAV
only, so that a worker starts in a fraction of a second instead of waiting for torch.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import av
import numpy as np

from vilamp.data.needle_domain import DUSK
from vilamp.data.needle_scene import PLAIN, SIZE, Look, Needle, ask, draw_needle, new_needles, plainly

SPLITS = ("train", "val")
LOOKS = {"plain": PLAIN, "dusk": DUSK}
"""The values of ``data.generate.look``."""
_TIMELINE, _PIXELS, _CROWD = range(3)
"""Separate streams of random numbers, so that a video's events can be known without drawing a pixel."""


@dataclass(frozen=True)
class NeedleRecipe:
    """Everything that decides what the videos of a set look like; see :class:`vilamp.data.needle.NeedleSet`."""

    seed: int
    min_seconds: int
    max_seconds: int
    events: int
    look_alikes: int
    questions_per_video: int
    native_fps: int
    look: str = "plain"
    crowd: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "seed",
            "min_seconds",
            "max_seconds",
            "events",
            "look_alikes",
            "questions_per_video",
            "native_fps",
        ):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} must be a whole number, got {getattr(self, name)!r}")
        if self.look not in LOOKS:
            raise ValueError(f"look must be one of {', '.join(LOOKS)}, got {self.look}")
        places, colours, shapes = len(self.looks.places), len(self.looks.colours), len(self.looks.shapes)
        if not 1 <= self.look_alikes <= places:
            raise ValueError(f"look_alikes must be 1 to {places}, as many as there are places, got {self.look_alikes}")
        most = min(colours, shapes - 1 + self.look_alikes)
        if not self.look_alikes <= self.events <= most:
            raise ValueError(
                f"events must be {self.look_alikes} (look_alikes) to {most} (what colours and shapes allow), "
                f"got {self.events}"
            )
        pairs = sum(len(kinds) for kinds in self.kinds())
        if not 1 <= self.questions_per_video <= pairs:
            raise ValueError(
                f"questions_per_video must be 1 to {pairs}, as many as there are for {self.events} events of which "
                f"{self.look_alikes} look alike, got {self.questions_per_video}"
            )
        longest = sum(seconds[1] for seconds in self.event_seconds())
        if not longest <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"seconds must satisfy {longest:g} (all events at their longest) <= min_seconds <= max_seconds, got "
                f"min_seconds {self.min_seconds}, max_seconds {self.max_seconds}"
            )
        if self.crowd is not None:
            # With shorter pauses there would be more of events than of anything else.
            if type(self.crowd) not in (int, float) or not EVENT_SECONDS[1] < self.crowd < math.inf:
                raise ValueError(f"crowd must be more than {EVENT_SECONDS[1]:g} seconds, or null, got {self.crowd!r}")
            if self.events >= colours or self.events - self.look_alikes + 1 >= shapes:  # fewer shapes in another look
                raise ValueError(
                    f"crowd needs a colour and a shape that none of the events has: lower events, got {self.events}"
                )
        if self.native_fps < 1:
            raise ValueError(f"native_fps must be at least 1, got {self.native_fps}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def looks(self) -> Look:
        """What ``look`` names."""
        return LOOKS[self.look]

    def event_seconds(self) -> list[tuple[float, float]]:
        """Shortest and longest duration of each event."""
        lingers = self.look_alikes > 1
        return [LINGERING_SECONDS if lingers and i == 0 else EVENT_SECONDS for i in range(self.events)]

    def kinds(self) -> list[tuple[str, ...]]:
        """The kinds of question that each event can be asked for by."""
        alike = self.look_alikes if self.look_alikes > 1 else 0
        return [("look_alike",) if i < alike else ("colour", "shape", "place") for i in range(self.events)]


EVENT_SECONDS = (2.0, 3.0)
"""Shortest and longest event: at 1 frame per second at least one frame shows it."""
LINGERING_SECONDS = (12.0, 24.0)
"""The same of the one event among look-alikes that stays: it has more frames than there are keyframes."""
SCENE_SECONDS = (8.0, 30.0)
"""Shortest and longest time between two scene cuts."""


@dataclass(frozen=True)
class Event:
    """One needle as it is drawn: with its deviation from the middle of its place (pixels) and from its usual size.

    ``kinds`` are the kinds of question that tell it from all other events of its video.
    """

    needle: Needle
    jitter: tuple[float, float]
    scale: float
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class NeedleVideo:
    """What happens in one video, before a pixel is drawn.

    Attributes:
        key: ``train-000000``.
        seconds: length.
        cuts: times at which a new scene begins, the first is 0.
        events: in temporal order, never overlapping, pairwise different in colour.
        crowd: what else happens, between them, in none of their colours and shapes; nobody asks about it.
        annotation: what goes into the ``.json`` beside the video (format: ``data/README.md``).
    """

    key: str
    seconds: int
    cuts: tuple[float, ...]
    events: tuple[Event, ...]
    crowd: tuple[Event, ...]
    annotation: dict[str, object]


def _rng(recipe: NeedleRecipe, split: str, number: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, SPLITS.index(split), number, stream])


def _draw_events(recipe: NeedleRecipe, seconds: int, rng: np.random.Generator) -> tuple[Event, ...]:
    lengths = np.array([rng.uniform(*bounds) for bounds in recipe.event_seconds()])
    turns = rng.permutation(recipe.events)  # in the order of time
    # Sorted uniform points in the time that no event takes, pushed apart by the events before them: every arrangement
    # without overlap is equally likely.
    before = np.cumsum(lengths[turns]) - lengths[turns]
    starts = np.sort(rng.uniform(0.0, seconds - lengths.sum(), recipe.events)) + before
    needles = new_needles(recipe.events, recipe.look_alikes, rng, recipe.looks)
    events = []
    for turn, first in zip(turns, starts, strict=True):
        start, end = round(float(first), 3), round(float(first + lengths[turn]), 3)
        needle = replace(needles[turn], start=start, end=min(end, float(seconds)))
        jitter = (float(rng.uniform(-3, 3)), float(rng.uniform(-3, 3)))
        events.append(Event(needle, jitter, float(rng.uniform(0.9, 1.1)), recipe.kinds()[turn]))
    return tuple(events)


def draw_passing(start: float, rng: np.random.Generator, look: Look) -> Event:
    """One short event by itself, from ``start`` seconds on."""
    (needle,) = new_needles(1, 1, rng, look)
    start, end = round(start, 3), round(start + float(rng.uniform(*EVENT_SECONDS)), 3)
    jitter = (float(rng.uniform(-3, 3)), float(rng.uniform(-3, 3)))
    return Event(replace(needle, start=start, end=end), jitter, float(rng.uniform(0.9, 1.1)), ())


def draw_crowd(
    seconds: float, pause: tuple[float, float], events: Sequence[Event], rng: np.random.Generator, look: Look
) -> tuple[Event, ...]:
    """Short events one after the other, in any colours and shapes of a look.

    Args:
        seconds: length of the video.
        pause: shortest and longest time between two.
        events: what happens besides; what would overlap one of these is left out.
        rng: draws them.
        look: of what they are drawn.

    Returns:
        In temporal order, never overlapping.
    """
    crowd = []
    start = float(rng.uniform(*pause))
    while start + EVENT_SECONDS[1] < seconds:
        event = draw_passing(start, rng, look)
        if all(event.needle.end <= other.needle.start or other.needle.end <= start for other in events):
            crowd.append(event)
        start = event.needle.end + float(rng.uniform(*pause))
    return tuple(crowd)


def _crowd(recipe: NeedleRecipe, seconds: int, events: Sequence[Event], rng: np.random.Generator) -> tuple[Event, ...]:
    """What happens between the events, in none of their colours and shapes."""
    if recipe.crowd is None:
        return ()
    look, asked = recipe.looks, [event.needle for event in events]
    others = replace(
        look,
        colours={name: rgb for name, rgb in look.colours.items() if name not in {needle.colour for needle in asked}},
        shapes=tuple(shape for shape in look.shapes if shape not in {needle.shape for needle in asked}),
    )
    return draw_crowd(seconds, (recipe.crowd / 2, recipe.crowd * 3 / 2), events, rng, others)


def plan_video(recipe: NeedleRecipe, split: str, number: int) -> NeedleVideo:
    """What the ``number``-th video of a split (``train`` or ``val``) shows and is asked; draws and encodes nothing."""
    rng = _rng(recipe, split, number, _TIMELINE)
    log_seconds = rng.uniform(math.log(recipe.min_seconds), math.log(recipe.max_seconds))
    seconds = int(np.clip(round(math.exp(log_seconds)), recipe.min_seconds, recipe.max_seconds))
    cuts = draw_cuts(seconds, rng)
    events = _draw_events(recipe, seconds, rng)
    asked = [(event.needle, kind) for event in events for kind in event.kinds]
    questions = []
    for i in rng.permutation(len(asked))[: recipe.questions_per_video]:
        needle, kind = asked[int(i)]
        question, answer = ask(needle, kind, rng, recipe.looks)
        evidence = [[needle.start, needle.end]]
        fields = {"question": question, "answer": answer, "kind": kind, "evidence": evidence}
        questions.append(fields if recipe.looks is PLAIN else fields | {"query": plainly(needle, kind)})
    annotation: dict[str, object] = {"video": "mp4", "questions": questions}
    crowd = _crowd(recipe, seconds, events, _rng(recipe, split, number, _CROWD))
    return NeedleVideo(f"{split}-{number:06d}", seconds, cuts, events, crowd, annotation)


def draw_cuts(seconds: float, rng: np.random.Generator) -> tuple[float, ...]:
    """The times at which a new scene begins; the first is 0."""
    cuts = [0.0]
    while (cut := cuts[-1] + float(rng.uniform(*SCENE_SECONDS))) < seconds:
        cuts.append(round(cut, 3))
    return tuple(cuts)


def draw_video(recipe: NeedleRecipe, split: str, number: int) -> Iterator[np.ndarray]:
    """The native frames of a video, each uint8[SIZE, SIZE, 3]; frame ``i`` is on display from ``i / native_fps``."""
    plan = plan_video(recipe, split, number)
    rng = _rng(recipe, split, number, _PIXELS)
    events = sorted([*plan.events, *plan.crowd], key=lambda event: event.needle.start)
    return draw_frames(plan.seconds, recipe.native_fps, plan.cuts, events, rng, recipe.looks)


def draw_frames(
    seconds: int, fps: int, cuts: Sequence[float], events: Sequence[Event], rng: np.random.Generator, look: Look
) -> Iterator[np.ndarray]:
    """The frames of some scenes with events in them, one scene in memory at a time.

    Args:
        seconds: how long it is.
        fps: frames a second.
        cuts: as :func:`draw_cuts` gives them.
        events: in temporal order, never overlapping.
        rng: draws the scenes.
        look: of scenes and events.
    """
    begun, upcoming = 0, list(events)
    scene = look.haystack(rng)
    for i in range(seconds * fps):
        second = i / fps
        while begun + 1 < len(cuts) and cuts[begun + 1] <= second:
            begun, scene = begun + 1, look.haystack(rng)
        frame = scene.frame(second)
        while upcoming and upcoming[0].needle.end <= second:
            upcoming.pop(0)
        if upcoming and upcoming[0].needle.start <= second:
            event = upcoming[0]
            frame = draw_needle(frame, event.needle, event.jitter, event.scale, look)
        yield frame


def encode_mp4(frames: Iterable[np.ndarray], fps: int) -> bytes:
    """An H.264 mp4 of uint8[SIZE, SIZE, 3] frames; the same frames give the same bytes."""
    file = io.BytesIO()
    # One thread is not enough: x264's lookahead in vector instructions depends on what lies in memory beside the frame.
    options = {"preset": "veryfast", "crf": "20", "threads": "1", "x264-params": "cpu-independent=1"}
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def make_sample(recipe: NeedleRecipe, split: str, number: int) -> dict[str, str | bytes]:
    """One member pair of a shard: ``__key__``, the bytes of ``mp4`` and of ``json``."""
    plan = plan_video(recipe, split, number)
    video = encode_mp4(draw_video(recipe, split, number), recipe.native_fps)
    return {"__key__": plan.key, "mp4": video, "json": json.dumps(plan.annotation).encode()}


def describe(recipe: NeedleRecipe) -> dict[str, object]:
    """The recipe as plain values, for the digest that names a set and for the note beside it."""
    return asdict(recipe)
