"""The flags of test.py that ask for inverted features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import count
from common.errors import UserError

if TYPE_CHECKING:
    from inversion.sides import Side

IMAGES, CLASSES = ("image", "oti"), ("text", "ovi")  # what either may be represented by; the encoder's own features first


def add_inverted_features(parser: argparse.ArgumentParser) -> None:
    """Which features are inverted ones, and where they lie."""
    group = parser.add_argument_group("inverted features")
    group.add_argument("--image-features", choices=IMAGES, default=IMAGES[0], help="oti: those of the images' pseudo-tokens")
    group.add_argument("--class-features", choices=CLASSES, default=CLASSES[0], help="ovi: those of the class names' pseudo-patches")
    group.add_argument("--pseudo-tokens", type=Path, default=Path("pseudo_tokens"), metavar="FOLDER", help="where inversions lie")
    group.add_argument("--exp-name", metavar="NAME", help="which inversion (default: the model's, as oti.py and ovi.py call it)")
    group.add_argument("--step", type=count, metavar="N", help="after how many steps, one that was recorded (default: the last)")


def inverts(args: argparse.Namespace) -> bool:
    """Whether inverted features are asked for. Refuses flags that say which inversion where there is none."""
    if (args.image_features, args.class_features) != (IMAGES[0], CLASSES[0]):
        return True
    for flag in ("exp_name", "step"):
        if getattr(args, flag) is not None:
            name = flag.replace("_", "-")
            raise UserError(f"--{name} is of an inversion; add --image-features oti or --class-features ovi, or leave it out.")
    return False


def asked_sides(args: argparse.Namespace, label: str) -> tuple[Side, Side] | None:
    """What images and classes are represented by; ``label`` is the model's. None where neither is inverted."""
    if not inverts(args):
        return None
    from inversion.sides import Side

    images, classes = (
        Side(kind, args.exp_name or label, args.step, args.pseudo_tokens) for kind in (args.image_features, args.class_features)
    )
    return images, classes
