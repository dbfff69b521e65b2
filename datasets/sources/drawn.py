"""The drawn tasks ``Shapes-*`` and ``Glyphs-*``: image classification on drawings, at various distances from what the
tiny model was pretrained on.

    python -m datasets.sources.drawn --picture docs/pictures/tiny_tasks.png

Every image is rendered on the fly and is a pure function of task, split and index.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError, unknown_name
from common.files import replacing
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
    SIDE,
    SIZES,
    Drawing,
    contrasting,
    render,
)
from datasets.sources.masks import FONTS, KINDS, PICTOGRAMS, RARE_FONTS, TEXTURES
from datasets.task import Task

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ", "xi": "ξ", "pi": "π",
    "sigma": "σ", "phi": "φ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
TYPEFACES = {
    "serif": "DejaVuSerif",
    "sans serif": "DejaVuSans",
    "typewriter": "DejaVuSansMono",
    "bold": "DejaVuSans-Bold",
    "italic": "STIXGeneralItalic",
}
UPRIGHT = ("triangle", "star", "cross", "heart", "ring", "arrow", "crescent", "hexagon")  # no two alike, however turned

SPLIT_SIZES = {"train": 1000, "test": 500}  # rounded down to the same number for every class
SPLIT_SEEDS = {"train": 2**56, "test": 2**57}  # far from each other and from the seeds of pretraining
SEED_BITS = 48

Choose = Callable[[random.Random], dict[str, Any]]


@dataclass(frozen=True)
class DrawnDefinition:
    """A drawn task. An image of class k shows ``shown[k]`` (fields of :class:`Drawing`) and for the rest what ``choose`` says."""

    shown: dict[str, dict[str, Any]]
    templates: tuple[str, ...]
    choose: Choose
    always: dict[str, Any] = field(default_factory=dict)

    @property
    def classnames(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(self.shown)


@dataclass(frozen=True)
class DrawnSamples:
    """The images of one split of a drawn task; image i is of class i modulo the number of classes."""

    task: str
    split: str

    def __len__(self) -> int:
        classes = len(DEFINITIONS[self.task].shown)
        return SPLIT_SIZES[self.split] // classes * classes

    def image(self, index: int) -> Image.Image:
        """See :class:`~datasets.samples.Samples`."""
        return render(self.drawing(index))

    def sample_id(self, index: int) -> str:
        """See :class:`~datasets.samples.Samples`."""
        return f"{self.task}-{self.split}-{index:04d}"

    def digest(self, index: int) -> bytes:
        """See :class:`~datasets.samples.Samples`."""
        return self.drawing(index).digest()

    def drawing(self, index: int) -> Drawing:
        """What image ``index`` shows."""
        definition = DEFINITIONS[self.task]
        shown = list(definition.shown.values())[index % len(definition.shown)]
        rng = random.Random(self.sample_id(index))  # a stream of its own, apart from the one that render() makes of the seed
        seed = SPLIT_SEEDS[self.split] + rng.getrandbits(SEED_BITS)
        chosen = definition.choose(rng) | definition.always | shown
        return _readable(Drawing(seed=seed, **chosen), rng)


def drawn_task(name: str, split: str) -> Task:
    """The drawn task ``name``, split ``train`` (about 1000 images) or ``test`` (about 500), balanced over its classes."""
    if name not in DEFINITIONS:
        raise unknown_name("drawn task", name, DRAWN_TASKS)
    if split not in SPLIT_SIZES:
        raise UserError(f"The drawn tasks have the splits train and test, not '{split}'.")
    definition, samples = DEFINITIONS[name], DrawnSamples(name, split)
    labels = np.arange(len(samples), dtype=np.int64) % len(definition.shown)
    return Task(name, split, samples, labels, definition.classnames, definition.templates)


def drawn_source(name: str, split: str, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.Source`."""
    return drawn_task(name, split)


def _readable(drawing: Drawing, rng: random.Random) -> Drawing:
    """The drawing, with another background where its class left it one on which its colour would not show."""
    if drawing.background in contrasting(drawing.color):
        return drawing
    return replace(drawing, background=rng.choice(contrasting(drawing.color)))


def _shape(rng: random.Random) -> dict[str, Any]:
    color = rng.choice(list(COLORS))
    look = {"thing": rng.choice(list(KINDS)), "color": color, "background": rng.choice(contrasting(color))}
    return look | {"size": rng.choice(("medium", "large")), "position": rng.choice(list(PLACES)), "gradient": rng.random() < 0.25}


def _glyph(rng: random.Random) -> dict[str, Any]:
    look = {"thing": rng.choice(LETTERS), "font": rng.choice(FONTS), "color": rng.choice(INKS), "background": rng.choice(PAPERS)}
    return look | {"position": rng.choice(list(PLACES)), "gradient": rng.random() < 0.25}


def _rare_glyph(rng: random.Random) -> dict[str, Any]:
    return _glyph(rng) | {"font": rng.choice(RARE_FONTS)}


def _each(attribute: str, values: Any) -> dict[str, dict[str, Any]]:
    """Classes that differ in one attribute: {class name: {attribute: value}}; ``values`` maps names or is both at once."""
    pairs = values.items() if isinstance(values, dict) else ((value, value) for value in values)
    return {name: {attribute: value} for name, value in pairs}


_GROUNDS = {c: {"background": c, "color": "black" if "black" in contrasting(c) else "white"} for c in COLORS}
_PAIRS = {f"{c} {k}": {"color": c, "thing": k} for c in HELD_OUT_COLORS for k in HELD_OUT_KINDS}
_COUNTS = {name: {"count": count} for count, name in enumerate(NUMBERS) if 2 <= count <= 6}
_POSITIONS = {phrase: {"position": name} for name, phrase in PLACES.items()}
_KIND, _LETTER, _DIGIT = ("a photo of a {c}.",), ("a photo of the letter {c}.",), ("a photo of the digit {c}.",)

DEFINITIONS: dict[str, DrawnDefinition] = {
    # As in pretraining.
    "Shapes-Color": DrawnDefinition(_each("color", COLORS.keys()), ("a photo of a {c} shape.",), _shape),
    "Shapes-Kind": DrawnDefinition(_each("thing", KINDS.keys()), _KIND, _shape),
    "Shapes-Background": DrawnDefinition(_GROUNDS, ("a photo of a shape on a {c} background.",), _shape),
    "Shapes-Texture": DrawnDefinition(_each("texture", TEXTURES), ("a photo of a {c} shape.",), _shape),
    "Shapes-Position": DrawnDefinition(_POSITIONS, ("a photo of a shape {c}.",), _shape),
    "Shapes-Size": DrawnDefinition(_each("size", SIZES.keys()), ("a photo of a {c} shape.",), _shape),
    "Shapes-Count": DrawnDefinition(_COUNTS, ("a photo of {c} shapes.",), _shape),
    "Glyphs-Letters": DrawnDefinition(_each("thing", LETTERS), _LETTER, _glyph),
    "Glyphs-Digits": DrawnDefinition(_each("thing", DIGITS), _DIGIT, _glyph),
    # Known words and things, shown as pretraining never shows them.
    "Shapes-Pairs": DrawnDefinition(_PAIRS, _KIND, _shape),
    "Shapes-Outlined": DrawnDefinition(_each("thing", KINDS.keys()), _KIND, _shape, {"outlined": True, "size": "large"}),
    "Shapes-Noisy": DrawnDefinition(_each("thing", KINDS.keys()), _KIND, _shape, {"noise": 80.0}),
    "Shapes-Rotated": DrawnDefinition(_each("thing", UPRIGHT), _KIND, _shape, {"turn": 180.0}),
    "Glyphs-Fonts": DrawnDefinition(_each("thing", LETTERS), _LETTER, _rare_glyph),
    "Glyphs-Inverted": DrawnDefinition(_each("thing", DIGITS), _DIGIT, _glyph, {"inverted": True}),
    "Glyphs-Mirrored": DrawnDefinition(_each("thing", tuple("BCDEFGJKLNPQRSZ")), _LETTER, _glyph, {"mirrored": True}),
    "Glyphs-Lowercase": DrawnDefinition({c: {"thing": c.lower()} for c in LETTERS}, _LETTER, _glyph),
    # Words that pretraining never uses.
    "Shapes-Pictograms": DrawnDefinition(_each("thing", PICTOGRAMS.keys()), _KIND, _shape),
    "Glyphs-Greek": DrawnDefinition(_each("thing", GREEK), _LETTER, lambda rng: _glyph(rng) | {"font": rng.choice(FONTS[:3])}),
    "Glyphs-Typeface": DrawnDefinition(_each("font", TYPEFACES), ("a photo of a {c} letter.",), _glyph),
}
DRAWN_TASKS = tuple(DEFINITIONS)


def contact_sheet(columns: int = 10) -> Image.Image:
    """One row per task: its name and the first test images, of different classes."""
    height, label = SIDE + 6, 150
    sheet = Image.new("RGB", (label + columns * height, len(DRAWN_TASKS) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for row, name in enumerate(DRAWN_TASKS):
        draw.text((6, row * height + height // 2), name, fill="black", font=font, anchor="lm")
        for column in range(columns):
            sheet.paste(DrawnSamples(name, "test").image(column), (label + column * height, row * height + 3))
    return sheet


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Draw a picture of the drawn tasks.")
    parser.add_argument("--picture", type=Path, required=True, help="PNG file to write")
    arguments = parser.parse_args()
    sheet = contact_sheet()
    with replacing(arguments.picture) as temporary:
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(temporary, format="PNG")


if __name__ == "__main__":
    main()
