"""Drawings: small pictures that are fully determined by a frozen :class:`Drawing`.

A drawing shows one thing, or several of one kind, on a background. What it shows is said in words (red, striped, small,
top left); the seed decides what words leave open: exact shades, pixels, angle, noise. Images are 48 x 48: letters and
five things still fit with a pixel to spare, and the tiny model sees 36 patches of 8 x 8, few enough to pretrain on two
cores.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageOps

from datasets.sources.masks import glyph_mask, outline, shape_mask, texture_mask

RENDERER_VERSION = 1  # raise it whenever render() can give other pixels for the same Drawing
SIDE = 48  # pixels

Rgb = tuple[int, int, int]
COLORS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 50),
    "orange": (245, 140, 30),
    "purple": (140, 50, 180),
    "pink": (250, 150, 190),
    "brown": (130, 80, 40),
    "black": (20, 20, 20),
    "white": (240, 240, 240),
    "gray": (128, 128, 128),
    "cyan": (60, 210, 220),
}
SHADE = 14  # a colour's channels vary by this much
CONTRAST = 130.0  # Euclidean distance in RGB that a thing keeps from its background
SIZES: dict[str, tuple[int, int]] = {"small": (10, 13), "medium": (18, 22), "large": (30, 36)}  # pixels, least and most
POSITIONS: dict[str, tuple[int, int]] = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "center": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}
PLACES = {  # a position as a caption or prompt tells it
    "top left": "in the top left corner",
    "top": "at the top",
    "top right": "in the top right corner",
    "left": "on the left",
    "center": "in the center",
    "right": "on the right",
    "bottom left": "in the bottom left corner",
    "bottom": "at the bottom",
    "bottom right": "in the bottom right corner",
}
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGITS = tuple("0123456789")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
INKS = ("black", "red", "blue", "green", "purple", "brown")  # of glyphs: dark ...
PAPERS = ("white", "yellow", "pink", "cyan")  # ... on light
HELD_OUT_COLORS = ("red", "green", "blue", "purple")  # pretraining never shows these colours ...
HELD_OUT_KINDS = ("star", "heart", "arrow", "ring")  # ... together with these kinds: the task Shapes-Pairs


@dataclass(frozen=True)
class Drawing:
    """What a drawing shows. ``thing`` is a kind, a pictogram, or, when ``font`` is given, a character."""

    thing: str
    color: str
    background: str
    seed: int
    font: str = ""
    texture: str = "solid"
    size: str = "large"
    position: str = "center"
    count: int = 1  # more than one: small things, scattered, ``size`` and ``position`` do not count
    turn: float = 8.0  # degrees; the angle is drawn from -turn .. turn
    noise: float = 0.0  # standard deviation, in grey levels
    gradient: bool = False  # the background darkens to one side
    outlined: bool = False
    mirrored: bool = False
    inverted: bool = False

    def digest(self) -> bytes:
        """A hash of everything that decides the pixels."""
        return hashlib.sha256(f"{RENDERER_VERSION} {self!r}".encode()).digest()


def contrasting(color: str) -> tuple[str, ...]:
    """The backgrounds on which a thing of this colour is plain to see."""
    return _CONTRASTING[color]


def _distance(first: Rgb, second: Rgb) -> float:
    return float(np.linalg.norm(np.subtract(first, second)))


_CONTRASTING = {c: tuple(b for b in COLORS if _distance(COLORS[c], COLORS[b]) > CONTRAST) for c in COLORS}


def render(drawing: Drawing) -> Image.Image:
    """The drawing as an RGB image of ``SIDE`` x ``SIDE`` pixels: a pure function of its argument."""
    rng = random.Random(drawing.seed)
    image = _background(drawing, rng)
    color = _shade(drawing.color, rng)
    for column, row, side in _places(drawing, rng):
        mask = _thing(drawing, side, rng)
        image.paste(color, (column - side // 2, row - side // 2), mask)
    if drawing.inverted:
        image = ImageOps.invert(image)
    return _noisy(image, drawing) if drawing.noise else image


def _shade(name: str, rng: random.Random) -> Rgb:
    red, green, blue = (min(255, max(0, channel + rng.randint(-SHADE, SHADE))) for channel in COLORS[name])
    return red, green, blue


def _background(drawing: Drawing, rng: random.Random) -> Image.Image:
    shade = _shade(drawing.background, rng)
    image = Image.new("RGB", (SIDE, SIDE), shade)
    if drawing.gradient:
        ramp = _RAMPS[rng.randrange(len(_RAMPS))]
        image.paste(tuple(round(0.7 * channel) for channel in shade), mask=ramp)
    return image


_RAMP = Image.linear_gradient("L").resize((SIDE, SIDE))
_RAMPS = (_RAMP, _RAMP.transpose(Image.Transpose.ROTATE_90), ImageOps.flip(_RAMP), _RAMP.transpose(Image.Transpose.ROTATE_270))


def _places(drawing: Drawing, rng: random.Random) -> list[tuple[int, int, int]]:
    """Column, row and side of each thing, in pixels."""
    if drawing.count == 1:
        side = rng.randint(*SIZES[drawing.size])
        across, down = POSITIONS[drawing.position]
        return [(_coordinate(across, side, rng), _coordinate(down, side, rng), side)]
    cells = rng.sample(range(9), drawing.count)  # of a 3 x 3 grid
    cell = SIDE // 3
    scattered = ((cell * (index % 3) + cell // 2, cell * (index // 3) + cell // 2) for index in cells)
    return [(x + rng.randint(-1, 1), y + rng.randint(-1, 1), rng.randint(*SIZES["small"])) for x, y in scattered]


def _coordinate(where: int, side: int, rng: random.Random) -> int:
    """The centre along one axis: -1 near the start, 0 in the middle, 1 near the end, two pixels of play."""
    if where == 0:
        return SIDE // 2 + rng.randint(-2, 2)
    return SIDE // 2 + where * (SIDE // 2 - (side + 1) // 2 - rng.randint(0, 2))


def _thing(drawing: Drawing, side: int, rng: random.Random) -> Image.Image:
    """The mask of one thing at its size: turned, mirrored and textured."""
    mask = _full_mask(drawing)
    if drawing.turn:
        mask = mask.rotate(rng.uniform(-drawing.turn, drawing.turn), Image.Resampling.BILINEAR)
    if drawing.mirrored:
        mask = ImageOps.mirror(mask)
    mask = mask.resize((side, side), Image.Resampling.BILINEAR)
    if drawing.texture == "solid":
        return mask
    left, top = rng.randrange(12), rng.randrange(12)
    return ImageChops.multiply(mask, texture_mask(drawing.texture).crop((left, top, left + side, top + side)))


def _full_mask(drawing: Drawing) -> Image.Image:
    if drawing.font:
        return glyph_mask(drawing.thing, drawing.font)
    return outline(drawing.thing) if drawing.outlined else shape_mask(drawing.thing)


def _noisy(image: Image.Image, drawing: Drawing) -> Image.Image:
    """Independent Gaussian noise on every channel of every pixel."""
    noise = np.random.default_rng(drawing.seed).standard_normal((SIDE, SIDE, 3), dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) + drawing.noise * noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
