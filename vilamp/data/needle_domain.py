"""The second kind of needle video: a domain that a model trained on the first has not seen.

The haystack is woven bands in dark tones with dots for clutter, the palette is dull, every shape is drawn in another
form with a cream border (a circle is an ellipse, a ring is hexagonal), and the questions are put in other words.  The
names of colours, shapes and places are those of the first kind, and so is how a video comes about.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from vilamp.data.needle_scene import PLAIN, SIZE, Haystack, Look, Point

COLOURS = {
    "red": (204, 43, 36),
    "green": (45, 141, 48),
    "blue": (38, 63, 186),
    "yellow": (230, 206, 67),
    "purple": (131, 42, 151),
    "cyan": (79, 212, 221),
    "white": (243, 241, 236),
    "black": (18, 18, 18),
}


def _around(count: int, radii: tuple[float, ...], turn: float = 0.0, squash: float = 1.0) -> list[Point]:
    """Corners around the origin, counted from the top: in units of the radius, which takes the given values in turn."""
    angles = 2 * np.pi * (np.arange(count) + turn) / count
    lengths = np.resize(radii, count)
    return [(float(r * np.sin(t)) * squash, float(-r * np.cos(t))) for r, t in zip(lengths, angles, strict=True)]


_RIM = _around(6, (1.1,))
_ARC = _around(24, (1.0,), 12.0)[:13]
OUTLINES: dict[str, list[Point]] = {
    "circle": _around(24, (1.0,), squash=0.68),
    "square": [(-1.0, -0.5), (1.0, -0.5), (1.0, 0.5), (-1.0, 0.5)],
    "triangle": [(0.0, -1.0), (0.9, 0.5), (0.3, 0.5), (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.5), (-0.9, 0.5)],
    "star": _around(8, (1.0, 0.35), 1.0),
    "cross": [
        (-1.0, -0.9),
        (1.0, -0.9),
        (1.0, -0.3),
        (0.3, -0.3),
        (0.3, 1.0),
        (-0.3, 1.0),
        (-0.3, -0.3),
        (-1.0, -0.3),
    ],
    "ring": [*_RIM, _RIM[0], *((0.5 * x, 0.5 * y) for x, y in [_RIM[0], *reversed(_RIM)])],
    "diamond": [(0.0, -1.0), (0.6, -0.35), (0.0, 1.0), (-0.6, -0.35)],
    "moon": [*_ARC, *((0.5 * x, 0.5 * y) for x, y in reversed(_ARC))],
}
"""Shape -> its corners around the origin, in units of the radius."""


def _outline(shape: str, centre: Point, radius: float) -> list[Point]:
    return [(centre[0] + radius * x, centre[1] + radius * y) for x, y in OUTLINES[shape]]


def _woven(rng: np.random.Generator) -> Haystack:
    """A dark scene of two crossing sets of bands, with small dots of clutter in every colour of the palette."""
    side = 2 * SIZE
    axis = np.arange(side) / side * 2 * np.pi
    bands = [np.sin(axis * int(rng.integers(4, 14)) + rng.uniform(0, 2 * np.pi)) for _ in range(2)]
    weave = np.where(rng.random() < 0.5, np.maximum.outer(*bands), np.multiply.outer(*bands))
    tones = rng.uniform(15, 120, (2, 3))
    share = (weave[..., None] + 1) / 2
    noisy = tones[0] * (1 - share) + tones[1] * share + rng.normal(0, 4, (side, side, 1))
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    palette = list(COLOURS.values())
    for _ in range(int(rng.integers(20, 40))):
        x, y, radius = *rng.uniform(0, side, 2), rng.uniform(0.7, 2)
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=palette[int(rng.integers(len(palette)))])
    return Haystack(np.asarray(picture), (float(rng.uniform(-6, 6)), float(rng.uniform(-6, 6))))


DUSK = Look(
    colours=COLOURS,
    shapes=tuple(OUTLINES),
    places=PLAIN.places,
    border=(236, 230, 214),
    outline=_outline,
    haystack=_woven,
    templates={
        "colour": ("show the colour of the {shape}", "tell what colour the {shape} is"),
        "shape": ("what {colour} shape is shown?", "in {colour}, what shape is shown?"),
        "place": ("in which part is the {shape} shown?", "which part shows the {shape}?"),
        "look_alike": ("what colour has the {place} {shape}?", "show the colour of the {shape} at the {place}"),
    },
)
"""``data=needle_domain``."""
