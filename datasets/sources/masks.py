"""Masks of the things that drawings show: shapes, pictograms, glyphs and textures.

A mask is a square "L" image, 255 where the thing is. Masks are made once at ``MASK_SIDE`` pixels and scaled down when a
drawing is rendered, which is where the smooth edges come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

MASK_SIDE = 96
OUTLINE_WIDTH = 11  # side of the erosion window at MASK_SIDE: the line is half as wide
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono", "STIXGeneral", "STIXGeneralBol", "cmr10")
RARE_FONTS = ("DejaVuSerif-Italic", "DejaVuSans-BoldOblique", "STIXGeneralBolIta", "cmtt10")  # never in pretraining

Point = tuple[float, float]
Draw = Callable[[ImageDraw.ImageDraw], None]


def _scaled(points: list[Point]) -> list[Point]:
    return [(x * MASK_SIDE, y * MASK_SIDE) for x, y in points]


def _polygon(*points: Point) -> Draw:
    """Draws a polygon whose corners are given in the unit square, y downwards."""
    return lambda draw: draw.polygon(_scaled(list(points)), fill=255)


def _ellipse(left: float, top: float, right: float, bottom: float, fill: int = 255) -> Draw:
    return lambda draw: draw.ellipse(_scaled([(left, top), (right, bottom)]), fill=fill)


def _rectangle(left: float, top: float, right: float, bottom: float, fill: int = 255) -> Draw:
    return lambda draw: draw.rectangle(_scaled([(left, top), (right, bottom)]), fill=fill)


def _regular(corners: int, inner: float = 0.0) -> list[Point]:
    """A regular polygon, or with ``inner`` > 0 a star whose notches lie at that share of the radius."""
    steps = corners * 2 if inner else corners
    radii = [0.48 * (inner if inner and step % 2 else 1.0) for step in range(steps)]
    angles = [2 * math.pi * step / steps - math.pi / 2 for step in range(steps)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


def _heart() -> list[Point]:
    angles = [2 * math.pi * step / 60 for step in range(60)]
    across = [16 * math.sin(angle) ** 3 for angle in angles]
    up = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles]
    return [(0.5 + x / 35, 0.46 - y / 35) for x, y in zip(across, up, strict=True)]


_CROSS = [(0.35, 0.04), (0.65, 0.04), (0.65, 0.35), (0.96, 0.35), (0.96, 0.65), (0.65, 0.65)]
_CROSS += [(0.65, 0.96), (0.35, 0.96), (0.35, 0.65), (0.04, 0.65), (0.04, 0.35), (0.35, 0.35)]
_ARROW = [(0.04, 0.36), (0.52, 0.36), (0.52, 0.1), (0.97, 0.5), (0.52, 0.9), (0.52, 0.64), (0.04, 0.64)]

# The kinds that pretraining draws and names.
KINDS: dict[str, tuple[Draw, ...]] = {
    "circle": (_ellipse(0.04, 0.04, 0.96, 0.96),),
    "square": (_rectangle(0.1, 0.1, 0.9, 0.9),),
    "triangle": (_polygon((0.5, 0.06), (0.97, 0.9), (0.03, 0.9)),),
    "diamond": (_polygon((0.5, 0.02), (0.86, 0.5), (0.5, 0.98), (0.14, 0.5)),),
    "star": (_polygon(*_regular(5, 0.42)),),
    "cross": (_polygon(*_CROSS),),
    "heart": (_polygon(*_heart()),),
    "ring": (_ellipse(0.04, 0.04, 0.96, 0.96), _ellipse(0.28, 0.28, 0.72, 0.72, fill=0)),
    "arrow": (_polygon(*_ARROW),),
    "crescent": (_ellipse(0.04, 0.04, 0.96, 0.96), _ellipse(0.34, 0.0, 1.12, 0.78, fill=0)),
    "hexagon": (_polygon(*_regular(6)),),
    "ellipse": (_ellipse(0.02, 0.26, 0.98, 0.74),),
}

_PETALS = [(0.5 + 0.27 * math.cos(k * math.pi / 3), 0.5 + 0.27 * math.sin(k * math.pi / 3)) for k in range(6)]

# Things that pretraining neither draws nor names.
PICTOGRAMS: dict[str, tuple[Draw, ...]] = {
    "house": (
        _polygon((0.5, 0.05), (0.97, 0.48), (0.03, 0.48)),
        _rectangle(0.14, 0.48, 0.86, 0.95),
        _rectangle(0.42, 0.62, 0.6, 0.95, fill=0),
    ),
    "tree": (
        _polygon((0.5, 0.02), (0.82, 0.4), (0.18, 0.4)),
        _polygon((0.5, 0.2), (0.94, 0.76), (0.06, 0.76)),
        _rectangle(0.42, 0.76, 0.58, 0.98),
    ),
    "boat": (
        _polygon((0.04, 0.66), (0.96, 0.66), (0.78, 0.94), (0.22, 0.94)),
        _polygon((0.46, 0.04), (0.46, 0.6), (0.1, 0.6)),
        _polygon((0.54, 0.14), (0.54, 0.6), (0.86, 0.6)),
    ),
    "fish": (_ellipse(0.02, 0.26, 0.76, 0.74), _polygon((0.64, 0.5), (0.98, 0.2), (0.98, 0.8)), _ellipse(0.16, 0.38, 0.26, 0.48, fill=0)),
    "flower": (*(_ellipse(x - 0.2, y - 0.2, x + 0.2, y + 0.2) for x, y in _PETALS), _ellipse(0.36, 0.36, 0.64, 0.64, fill=0)),
    "face": (
        _ellipse(0.04, 0.04, 0.96, 0.96),
        _ellipse(0.25, 0.27, 0.42, 0.46, fill=0),
        _ellipse(0.58, 0.27, 0.75, 0.46, fill=0),
        _rectangle(0.28, 0.64, 0.72, 0.74, fill=0),
    ),
    "cup": (
        _ellipse(0.5, 0.24, 0.98, 0.72),
        _ellipse(0.6, 0.34, 0.88, 0.62, fill=0),
        _polygon((0.06, 0.1), (0.74, 0.1), (0.66, 0.9), (0.14, 0.9)),
    ),
    "car": (
        _rectangle(0.03, 0.42, 0.97, 0.7),
        _polygon((0.26, 0.2), (0.68, 0.2), (0.82, 0.44), (0.16, 0.44)),
        _ellipse(0.12, 0.56, 0.4, 0.84),
        _ellipse(0.6, 0.56, 0.88, 0.84),
    ),
}

TEXTURES = ("solid", "striped", "barred", "dotted", "checkered")
_STRIPE, _DOT_PITCH, _CHECK = 3, 5, 4  # pixels of the drawing


@cache
def shape_mask(kind: str) -> Image.Image:
    """The mask of a kind or pictogram."""
    mask = Image.new("L", (MASK_SIDE, MASK_SIDE))
    draw = ImageDraw.Draw(mask)
    for step in KINDS[kind] if kind in KINDS else PICTOGRAMS[kind]:
        step(draw)
    return mask


@cache
def glyph_mask(glyph: str, font: str) -> Image.Image:
    """The mask of one character, as large as fits, centred by its ink."""
    page = Image.new("L", (3 * MASK_SIDE, 3 * MASK_SIDE))
    ImageDraw.Draw(page).text((MASK_SIDE, MASK_SIDE // 2), glyph, fill=255, font=_font(font))
    ink = page.crop(page.getbbox())
    scale = 0.94 * MASK_SIDE / max(ink.size)
    ink = ink.resize((max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.BILINEAR)
    mask = Image.new("L", (MASK_SIDE, MASK_SIDE))
    mask.paste(ink, ((MASK_SIDE - ink.width) // 2, (MASK_SIDE - ink.height) // 2))
    return mask


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")), MASK_SIDE)


@cache
def outline(kind: str) -> Image.Image:
    """Only the contour of a shape: what an erosion of its mask takes away."""
    mask = Image.new("L", (MASK_SIDE + 2, MASK_SIDE + 2))  # a rim, so that the erosion also eats at the border
    mask.paste(shape_mask(kind), (1, 1))
    line = ImageChops.subtract(mask, mask.filter(ImageFilter.MinFilter(OUTLINE_WIDTH)))
    return line.crop((1, 1, MASK_SIDE + 1, MASK_SIDE + 1))


@cache
def texture_mask(texture: str) -> Image.Image:
    """A texture as a mask over a page, to be cropped anywhere: 255 where the thing shows its colour."""
    filled = {
        "solid": lambda x, y: True,
        "striped": lambda x, y: y // _STRIPE % 2 == 0,
        "barred": lambda x, y: x // _STRIPE % 2 == 0,
        "dotted": lambda x, y: min(x % _DOT_PITCH, y % _DOT_PITCH) > 1,
        "checkered": lambda x, y: (x // _CHECK + y // _CHECK) % 2 == 0,
    }[texture]
    page = Image.new("L", (MASK_SIDE, MASK_SIDE))
    page.putdata([255 * filled(x, y) for y in range(MASK_SIDE) for x in range(MASK_SIDE)])
    return page
