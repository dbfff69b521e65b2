"""The flags of the objective ``overlap``; importing this module does not import torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from common.arguments import positive_int, proportion


@dataclass(frozen=True)
class OverlapOptions:
    """What the overlap is made of: images of each class in a batch, and how soft the threshold is, in units of cosine."""

    images_per_class: int = 4
    softness: float = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    group, default = parser.add_argument_group("objective overlap"), OverlapOptions()
    group.add_argument("--images-per-class", type=positive_int, default=default.images_per_class, help="of each class in a batch")
    group.add_argument("--softness", type=proportion, default=default.softness, help="width of the threshold, in units of cosine")


def options_of(args: argparse.Namespace) -> OverlapOptions:
    """What they say."""
    return OverlapOptions(args.images_per_class, args.softness)
