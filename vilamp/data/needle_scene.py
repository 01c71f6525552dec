"""What a needle video shows: pure drawing, no files.

A *haystack* is a slowly drifting texture that changes at scene cuts, with clutter in every colour drawn over it.  A
*needle* is a short event: one large flat shape in one colour at one side (or the centre) of the picture.  What all of
them look like, and in which words they are asked about, is a :class:`Look`.  Everything is a function of a
``numpy.random.Generator``, so a seed fixes every pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]

SIZE = 96
"""Height and width of a frame in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 35),
    "green": (25, 160, 50),
    "blue": (35, 70, 225),
    "yellow": (240, 220, 40),
    "purple": (140, 40, 180),
    "cyan": (40, 215, 225),
    "white": (250, 250, 250),
    "black": (8, 8, 8),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "moon")
PLACES: dict[str, tuple[float, float]] = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "centre": (0.5, 0.5),
}


@dataclass(frozen=True)
class Needle:
    """One event: what is drawn, and from when to when (seconds)."""

    shape: str
    colour: str
    place: str
    start: float = 0.0
    end: float = 0.0


def _outline(shape: str, centre: Point, radius: float) -> list[Point] | None:
    """Corners of a polygonal shape, in pixels; None for those made of discs."""
    if shape in ("circle", "ring", "moon"):
        return None
    x, y = centre
    if shape == "square":
        r = radius * 0.82
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    if shape == "diamond":
        return [(x, y - radius), (x + 0.62 * radius, y), (x, y + radius), (x - 0.62 * radius, y)]
    if shape == "cross":
        a, b = 0.3 * radius, radius
        upper = [(-b, a), (-b, -a), (-a, -a), (-a, -b), (a, -b), (a, -a)]
        # The other half is the same, turned by 180 degrees.
        return [(x + dx, y + dy) for dx, dy in upper + [(-dx, -dy) for dx, dy in upper]]
    if shape == "triangle":
        angles = np.deg2rad([-90, 30, 150])
        return [(x + radius * float(np.cos(t)), y + radius * float(np.sin(t))) for t in angles]
    if shape == "star":
        angles = np.deg2rad(np.arange(10) * 36 - 90)
        radii = np.where(np.arange(10) % 2 == 0, radius, 0.42 * radius)
        return [(x + float(r * np.cos(t)), y + float(r * np.sin(t))) for r, t in zip(radii, angles, strict=True)]
    raise ValueError(f"unknown shape {shape!r}, known: {', '.join(SHAPES)}")


def _covered(shape: str, size: tuple[int, int], centre: Point, radius: float, border: float, look: Look) -> np.ndarray:
    """bool[H, W]: the pixels of a shape that is grown by a border on every side."""
    x, y = centre
    mask = Image.new("1", size, 0)
    pen = ImageDraw.Draw(mask)

    def disc(dx: float, dy: float, rx: float, ry: float, fill: int) -> None:
        pen.ellipse((x + dx - rx, y + dy - ry, x + dx + rx, y + dy + ry), fill=fill)

    corners = look.outline(shape, centre, radius)
    if corners is None:
        disc(0, 0, radius + border, radius + border, 1)
        if shape == "ring":
            disc(0, 0, 0.5 * radius - border, 0.5 * radius - border, 0)
        if shape == "moon":
            disc(0.6 * radius, 0, 0.9 * radius - border, 0.9 * radius - border, 0)
    else:
        pen.polygon(corners, fill=1)
        if border:
            pen.line([*corners, *corners[:2]], fill=1, width=round(2 * border), joint="curve")
    return np.asarray(mask)


def draw_needle(
    frame: np.ndarray, needle: Needle, jitter: Point = (0.0, 0.0), scale: float = 1.0, look: Look | None = None
) -> np.ndarray:
    """Return a copy of ``frame`` (uint8[H, W, 3]) with the needle on it, cut out like a sticker with a border.

    Args:
        frame: the haystack.
        needle: what to draw.
        jitter: shift of the centre, in pixels.
        scale: of the radius; 1 is 0.23 of the frame's height.
        look: whose shapes, colours and places the needle names; None is :data:`PLAIN`.
    """
    look = look or PLAIN
    height, width = frame.shape[:2]
    px, py = look.places[needle.place]
    centre, radius = (px * width + jitter[0], py * height + jitter[1]), 0.23 * height * scale
    picture = frame.copy()
    picture[_covered(needle.shape, (width, height), centre, radius, 0.022 * height, look)] = look.border
    picture[_covered(needle.shape, (width, height), centre, radius, 0.0, look)] = look.colours[needle.colour]
    return picture


@dataclass(frozen=True)
class Haystack:
    """One scene: a texture larger than the frame, seen through a window that drifts.

    Attributes:
        texture: uint8[2 * SIZE, 2 * SIZE, 3], periodic in both directions.
        velocity: drift of the window in pixels a second, (x, y).
    """

    texture: np.ndarray
    velocity: tuple[float, float]

    def frame(self, second: float) -> np.ndarray:
        """uint8[SIZE, SIZE, 3], the scene at a time."""
        height, width = self.texture.shape[:2]
        x, y = round(self.velocity[0] * second) % width, round(self.velocity[1] * second) % height
        return self._tiled[y : y + SIZE, x : x + SIZE].copy()

    @cached_property
    def _tiled(self) -> np.ndarray:
        """The texture with its beginning repeated after its end, so that every window is one plain slice."""
        rows = np.concatenate([self.texture, self.texture[:SIZE]], axis=0)
        return np.concatenate([rows, rows[:, :SIZE]], axis=1)


def new_haystack(rng: np.random.Generator) -> Haystack:
    """A scene of soft random colours with small strokes of clutter in every colour of the palette."""
    side = 2 * SIZE
    coarse = rng.uniform(40, 215, (4, 4, 3))
    wrapped = np.concatenate([coarse, coarse[:1]], axis=0)
    wrapped = np.concatenate([wrapped, wrapped[:, :1]], axis=1)
    # Bilinear between the 4 x 4 periodic control points: soft, and without a seam.
    t = np.arange(side) / side * 4
    i, f = t.astype(int), (t % 1)[:, None, None]
    rows = wrapped[i] * (1 - f) + wrapped[i + 1] * f
    g = (t % 1)[None, :, None]
    smooth = rows[:, i] * (1 - g) + rows[:, i + 1] * g
    noisy = smooth + rng.normal(0, 4, (side, side, 1))
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    palette = list(COLOURS.values())
    for _ in range(int(rng.integers(30, 60))):
        x, y = rng.uniform(0, side, 2)
        dx, dy = rng.uniform(-9, 9, 2)
        colour = palette[int(rng.integers(len(palette)))]
        pen.line((x, y, x + dx, y + dy), fill=colour, width=int(rng.integers(1, 4)))
    return Haystack(np.asarray(picture), (float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6))))


def new_needles(count: int, look_alikes: int, rng: np.random.Generator, look: Look | None = None) -> list[Needle]:
    """Events of different colours; the first ``look_alikes`` of them have one shape and different places.

    Args:
        count: at most as many as there are colours, and as shapes without those that look alike.
        look_alikes: 1 to the number of places; with 1 all shapes differ.
        rng: draws shapes, colours and places.
        look: what there is of them; None is :data:`PLAIN`.
    """
    look = look or PLAIN
    shapes, colours = rng.permutation(look.shapes), rng.permutation(list(look.colours))
    places = [*rng.permutation(list(look.places))[:look_alikes], *rng.choice(list(look.places), count - look_alikes)]
    return [Needle(str(shapes[max(0, i + 1 - look_alikes)]), str(colours[i]), str(places[i])) for i in range(count)]


KINDS = ("colour", "shape", "place", "look_alike")
"""The kinds of question.  ``colour``, ``shape`` and ``place`` name one property of an event and ask for another;
``look_alike`` asks for the colour of one of several events of the same shape, which only its place tells apart."""


def ask(needle: Needle, kind: str, rng: np.random.Generator, look: Look | None = None) -> tuple[str, str]:
    """(question, answer) about a needle; names only what its kind may name.

    ``colour`` and ``place`` name the shape, ``shape`` names the colour, ``look_alike`` names shape and place.
    """
    templates = (look or PLAIN).templates[kind]
    template = templates[int(rng.integers(len(templates)))]
    answer = {"shape": needle.shape, "place": needle.place}.get(kind, needle.colour)
    return template.format(shape=needle.shape, colour=needle.colour, place=needle.place), answer


def plainly(needle: Needle, kind: str) -> str:
    """The question as :data:`PLAIN` would put it, for a scorer that has read no other."""
    return PLAIN.templates[kind][0].format(shape=needle.shape, colour=needle.colour, place=needle.place)


@dataclass(frozen=True)
class Look:
    """What one kind of needle video looks like, and in which words it is asked about.

    Attributes:
        colours: name -> RGB.
        shapes: the names.
        places: name -> (x, y) of the centre, as shares of width and height.
        border: RGB around a needle.
        outline: (shape, centre, radius) -> the corners, all in pixels; None for discs, rings and moons of discs.
        haystack: draws a scene.
        templates: kind of question -> its two phrasings.
    """

    colours: Mapping[str, tuple[int, int, int]]
    shapes: tuple[str, ...]
    places: Mapping[str, Point]
    border: tuple[int, int, int]
    outline: Callable[[str, Point, float], list[Point] | None]
    haystack: Callable[[np.random.Generator], Haystack]
    templates: Mapping[str, tuple[str, str]]


PLAIN = Look(
    colours=COLOURS,
    shapes=SHAPES,
    places=PLACES,
    border=(255, 255, 255),
    outline=_outline,
    haystack=new_haystack,
    templates={
        "colour": ("what colour is the {shape}?", "which colour does the {shape} have?"),
        "shape": ("what shape is {colour}?", "which shape is shown in {colour}?"),
        "place": ("where is the {shape}?", "in which part of the picture is the {shape}?"),
        "look_alike": ("what colour is the {shape} at the {place}?", "at the {place}, which colour has the {shape}?"),
    },
)
"""The look that the tiny base was trained on."""
