"""Random drawings with captions that tell a part of what they show: what the tiny model is pretrained on, and ``Shapes-Captions``.

A caption mentions some attributes of its drawing and leaves others out, as captions do. Drawing and caption are a pure
function of one seed. Both are also given as numbers of words, from which :func:`describes` tells which captions of a
batch also fit other drawings of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.sources.drawings import (
    COLORS,
    DIGITS,
    HELD_OUT_COLORS,
    HELD_OUT_KINDS,
    INKS,
    LETTERS,
    NUMBERS,
    PAPERS,
    PLACES,
    SIZES,
    Drawing,
    contrasting,
)
from datasets.sources.masks import FONTS, KINDS, TEXTURES

SEEDS = range(2**32, 2**33)  # of pretraining drawings; the tasks' drawings have theirs elsewhere

PREFIXES = ("", "", "a photo of ", "a drawing of ", "a picture of ", "an image of ")
ATTRIBUTES = ("thing", "category", "color", "background", "texture", "size", "position", "count")
_WORDS = [*LETTERS, *DIGITS, *KINDS, *COLORS, *TEXTURES, *SIZES, *PLACES, "shape", "letter", "digit", "scattered", "once", *NUMBERS[2:7]]
_NUMBER = {word: number for number, word in enumerate(_WORDS)}
UNTOLD = -1


@dataclass(frozen=True)
class Captioned:
    """A drawing, a caption, and for each attribute the number of its word: as drawn, and as told (or ``UNTOLD``)."""

    drawing: Drawing
    caption: str
    drawn: tuple[int, ...]
    told: tuple[int, ...]


def captioned(seed: int) -> Captioned:
    """The pretraining example of a seed."""
    rng = random.Random(seed)
    drawing = random_drawing(rng, seed)
    facts = _facts(drawing)
    mentioned = _mentioned(drawing, rng)
    told = tuple(_NUMBER[facts[name]] if name in mentioned else UNTOLD for name in ATTRIBUTES)
    return Captioned(drawing, caption(drawing, mentioned, rng), tuple(_NUMBER[facts[name]] for name in ATTRIBUTES), told)


def captions_of(drawing: Drawing, count: int, rng: random.Random) -> list[str]:
    """Several captions of one drawing, as pretraining has them: each tells a part of its own, in its own words."""
    return [caption(drawing, _mentioned(drawing, rng), rng) for _ in range(count)]


def describes(told: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether caption i, by all that it tells, fits drawing j: ``told`` [N, A], ``drawn`` [M, A] -> [N, M]."""
    fits = (told[:, None] == UNTOLD) | (told[:, None] == drawn[None])
    return fits.all(axis=2)


def random_drawing(rng: random.Random, seed: int) -> Drawing:
    """A drawing of the pretraining distribution. A third of the single things are large and central: easy to begin with."""
    look: dict[str, Any] = {"gradient": rng.random() < 0.25, "noise": rng.choice((0.0, 0.0, 0.0, 5.0, 10.0)), "seed": seed}
    kind_of_drawing = rng.random()
    if kind_of_drawing < 0.4:
        return _random_glyph(rng, look)
    color, kind = _color_and_kind(rng)
    look |= {"thing": kind, "color": color, "background": _background(color, rng)}
    if kind_of_drawing < 0.52:
        return Drawing(count=rng.randint(2, 6), **look)
    if rng.random() < 0.35:
        return Drawing(**look)
    size = rng.choice(list(SIZES))
    texture = "solid" if size == "small" or rng.random() < 0.4 else rng.choice(TEXTURES)
    return Drawing(texture=texture, size=size, position=rng.choice(list(PLACES)), **look)


def _background(color: str, rng: random.Random) -> str:
    """White more often than others."""
    choices = contrasting(color)
    return "white" if "white" in choices and rng.random() < 0.3 else rng.choice(choices)


def _color_and_kind(rng: random.Random) -> tuple[str, str]:
    while True:
        color, kind = rng.choice(list(COLORS)), rng.choice(list(KINDS))
        if color not in HELD_OUT_COLORS or kind not in HELD_OUT_KINDS:
            return color, kind


def _random_glyph(rng: random.Random, look: dict[str, Any]) -> Drawing:
    glyph = rng.choice(LETTERS) if rng.random() < 0.65 else rng.choice(DIGITS)
    look |= {"thing": glyph, "font": rng.choice(FONTS), "color": rng.choice(INKS), "background": rng.choice(PAPERS)}
    if rng.random() < 0.35:
        return Drawing(**look)
    return Drawing(size=rng.choice(("medium", "large", "large")), position=rng.choice(list(PLACES)), **look)


def category(drawing: Drawing) -> str:
    """What a caption calls the thing when it does not name it."""
    if not drawing.font:
        return "shape"
    return "digit" if drawing.thing in DIGITS else "letter"


def _facts(drawing: Drawing) -> dict[str, str]:
    """The word of every attribute. Scattered things have no size or position to tell."""
    single = drawing.count == 1
    return {
        "thing": drawing.thing,
        "category": category(drawing),
        "color": drawing.color,
        "background": drawing.background,
        "texture": drawing.texture,
        "size": drawing.size if single else "scattered",
        "position": drawing.position if single else "scattered",
        "count": "once" if single else NUMBERS[drawing.count],
    }


def _mentioned(drawing: Drawing, rng: random.Random) -> frozenset[str]:
    """Which attributes the caption tells."""
    single = drawing.count == 1
    odds = {
        "thing": 0.9,
        "category": 1.0,
        "color": 0.5,
        "background": 0.3,
        "texture": 0.0 if drawing.font else 0.1 if drawing.texture == "solid" else 0.5,
        "size": 0.35 if single else 0.0,
        "position": 0.35 if single else 0.0,
        "count": 1.0 if single else 0.85,
    }
    return frozenset(name for name, chance in odds.items() if rng.random() < chance)


def caption(drawing: Drawing, mentioned: frozenset[str], rng: random.Random) -> str:
    """A caption that tells exactly the ``mentioned`` attributes, in one of several wordings."""
    noun = _noun(drawing, "thing" in mentioned, rng)
    adjectives = [getattr(drawing, name) for name in ("size", "color", "texture") if name in mentioned]
    if rng.random() < 0.15:
        rng.shuffle(adjectives)
    number = "" if drawing.count == 1 else NUMBERS[drawing.count] if "count" in mentioned else rng.choice(("some", "several"))
    phrase = _joined(number or _article(drawing, adjectives, noun, "thing" in mentioned), *adjectives, noun)
    if "position" in mentioned:
        phrase = f"{phrase} {PLACES[drawing.position]}"
    if "background" in mentioned:
        ground = f"on a {drawing.background} background" if rng.random() < 0.8 else f"on {drawing.background}"
        if rng.random() < 0.15:
            return f"{ground}, {phrase}"
        phrase = f"{phrase} {ground}"
    return rng.choice(PREFIXES) + phrase + rng.choice(("", "", "."))


def _noun(drawing: Drawing, named: bool, rng: random.Random) -> str:
    kind = category(drawing)
    if not named:
        return kind if drawing.count == 1 else f"{kind}s"
    if kind == "shape":
        return drawing.thing if drawing.count == 1 else _plural(drawing.thing)
    if kind == "letter":
        return f"letter {drawing.thing}"
    name = NUMBERS[int(drawing.thing)] if rng.random() < 0.4 else drawing.thing
    return f"{rng.choice(('digit', 'digit', 'number'))} {name}"


def _plural(noun: str) -> str:
    return {"cross": "crosses"}.get(noun, f"{noun}s")


def _article(drawing: Drawing, adjectives: list[str], noun: str, named: bool) -> str:
    if drawing.font and named and not adjectives:
        return "the"
    return "an" if (adjectives or [noun])[0][0] in "aeo" else "a"


def _joined(*words: str) -> str:
    return " ".join(word for word in words if word)
