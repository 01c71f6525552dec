"""The second kind of needle video: a domain that a model trained on the first has not seen.

Everything is another: the haystack is woven bands in dark tones with dots for clutter, the palette is dull, the needles
are other shapes with a cream border, and shapes, colours and phrasing have words of their own.  How a video comes about
is the same.

The names are compounds of words of the first kind, because the tiny base can write no others: its tokenizer has letters
for them, which it was never taught.  The first half of a name is what is nearest to it in the first kind.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from vilamp.data.needle_scene import PLAIN, SIZE, Haystack, Look, Point

COLOURS = {
    "redblack": (204, 43, 36),
    "greenblack": (45, 141, 48),
    "blueblack": (38, 63, 186),
    "yellowwhite": (230, 206, 67),
    "purpleblack": (131, 42, 151),
    "cyanwhite": (79, 212, 221),
    "whiteyellow": (243, 241, 236),
    "blackblue": (18, 18, 18),
}


def _around(count: int, radii: tuple[float, ...], turn: float = 0.0, squash: float = 1.0) -> list[Point]:
    """Corners around the origin, counted from the top: in units of the radius, which takes the given values in turn."""
    angles = 2 * np.pi * (np.arange(count) + turn) / count
    lengths = np.resize(radii, count)
    return [(float(r * np.sin(t)) * squash, float(-r * np.cos(t))) for r, t in zip(lengths, angles, strict=True)]


_RIM = _around(6, (1.1,))
_ARC = _around(24, (1.0,), 12.0)[:13]
OUTLINES: dict[str, list[Point]] = {
    "circlemoon": _around(24, (1.0,), squash=0.68),
    "squarecross": [(-1.0, -0.5), (1.0, -0.5), (1.0, 0.5), (-1.0, 0.5)],
    "trianglecross": [(0.0, -1.0), (0.9, 0.5), (0.3, 0.5), (0.3, 0.9), (-0.3, 0.9), (-0.3, 0.5), (-0.9, 0.5)],
    "stardiamond": _around(8, (1.0, 0.35), 1.0),
    "crosssquare": [
        (-1.0, -0.9),
        (1.0, -0.9),
        (1.0, -0.3),
        (0.3, -0.3),
        (0.3, 1.0),
        (-0.3, 1.0),
        (-0.3, -0.3),
        (-1.0, -0.3),
    ],
    "ringdiamond": [*_RIM, _RIM[0], *((0.5 * x, 0.5 * y) for x, y in [_RIM[0], *reversed(_RIM)])],
    "diamondtriangle": [(0.0, -1.0), (0.6, -0.35), (0.0, 1.0), (-0.6, -0.35)],
    "moonring": [*_ARC, *((0.5 * x, 0.5 * y) for x, y in reversed(_ARC))],
}
"""Shape -> its corners around the origin, in units of the radius."""


def _outline(shape: str, centre: Point, radius: float) -> list[Point]:
    return [(centre[0] + radius * x, centre[1] + radius * y) for x, y in OUTLINES[shape]]


def _woven(rng: np.random.Generator) -> Haystack:
    """A dark scene of two crossing sets of bands, with dots of clutter in every colour of the palette."""
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
    for _ in range(int(rng.integers(40, 80))):
        x, y, radius = *rng.uniform(0, side, 2), rng.uniform(1, 3)
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
        "colour": ("what colour has the {shape}?", "what colour does the {shape} have?"),
        "shape": ("which shape is in {colour}?", "what shape is shown in {colour}?"),
        "place": ("where in the picture is the {shape}?", "where is the {shape} shown?"),
        "look_alike": ("what colour has the {shape} at the {place}?", "in which colour is the {shape} at the {place}?"),
    },
    nearest={
        **dict(zip(OUTLINES, PLAIN.shapes, strict=True)),
        **dict(zip(COLOURS, PLAIN.colours, strict=True)),
        **{place: place for place in PLAIN.places},
    },
)
"""``data=needle_domain``."""
