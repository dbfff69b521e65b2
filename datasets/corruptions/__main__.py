"""Draw a contact sheet: one row per kind of corruption, first the clean picture, then the severities 1 to 5.

python -m datasets.corruptions --picture corruptions.png
python -m datasets.corruptions --picture corruptions.png photo.jpg --style cifar
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from common.cli import Parser, run
from common.errors import UserError
from common.files import replacing
from datasets.corruptions import corrupt, generator
from datasets.decoding import decode, reason
from datasets.naming import CORRUPTIONS, SEVERITIES, STYLES, Corruption

COLORS = 192  # of the palette: noise does not compress


def scene(width: int = 384, height: int = 288) -> Image.Image:
    """A smooth landscape: a sky with a sun, three ranges of hills, the nearest of them striped."""
    x, y = np.meshgrid(np.linspace(0, 4, width), np.linspace(0, 3, height))
    sky = np.stack([0.45 + 0.15 * y, 0.65 + 0.08 * y, 0.95 - 0.05 * y], axis=2)
    sun = np.clip((0.35 - np.hypot(x - 3.1, y - 0.6)) * 20, 0, 1)[..., None]
    picture = sky * (1 - sun) + np.array([1, 0.9, 0.5]) * sun
    for depth, color in ((0, (0.5, 0.6, 0.7)), (1, (0.35, 0.55, 0.35)), (2, (0.25, 0.4, 0.15))):
        ridge = 1.2 + 0.55 * depth - 0.3 * np.sin((2.1 - 0.4 * depth) * x + 2 * depth)
        hill = np.clip((y - ridge) * 60, 0, 1)[..., None]
        stripes = 1 + 0.35 * (depth == 2) * np.sign(np.sin(18 * x - 9 * y))[..., None]
        picture = picture * (1 - hill) + np.array(color) * stripes * hill
    return Image.fromarray(np.rint(picture.clip(0, 1) * 255).astype(np.uint8))


def contact_sheet(image: Image.Image, style: str, width: int, name: str = "") -> Image.Image:
    """All corruptions of ``image``, each shown ``width`` pixels wide; ``name`` is its id for what is drawn."""
    shown = (width, round(width * image.height / image.width))
    across, down, label = shown[0] + 4, shown[1] + 20, 4
    sheet = Image.new("RGB", ((1 + len(SEVERITIES)) * across + label, len(CORRUPTIONS) * down), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for row, kind in enumerate(CORRUPTIONS):
        versions = [image]
        for severity in SEVERITIES:
            corruption = Corruption(kind, severity, style)
            versions.append(corrupt(image, corruption, generator(name, corruption)))
        for column, version in enumerate(versions):
            title = f"{kind} {column}" if column else "clean"
            draw.text((label + column * across, row * down + 2), title, fill="black", font=font)
            sheet.paste(ImageOps.fit(version, shown, Image.Resampling.BICUBIC), (label + column * across, row * down + 16))
    return sheet


def main() -> None:
    """Write the picture."""
    parser = Parser(__doc__)
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE", help="image to corrupt (default: a drawn landscape)")
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE", help="PNG file to write")
    parser.add_argument("--style", choices=STYLES, default="relative", help="by which constants")
    parser.add_argument("--width", type=int, default=144, help="of each version in the sheet, in pixels")
    args = parser.parse_args()
    sheet = contact_sheet(opened(args), args.style, args.width)
    with replacing(args.picture) as temporary:
        sheet.quantize(COLORS, dither=Image.Dither.NONE).save(temporary, format="PNG", optimize=True)


def opened(args: argparse.Namespace) -> Image.Image:
    """The image that was named, or the drawn one."""
    if args.image is None:
        return scene()
    try:
        return decode(args.image.read_bytes())
    except Exception as error:  # decoders raise nearly every type on damaged files
        raise UserError(f"Cannot read '{args.image}': {reason(error)}.") from error


if __name__ == "__main__":
    run(main)
