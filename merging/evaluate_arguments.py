"""The flags that ask merge.py for an evaluation. Importing this module does not import torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import PRECISIONS, add_data_arguments, count, positive_int
from common.errors import UserError
from datasets.arguments import add_corruption_arguments

if TYPE_CHECKING:
    from merging.method import Method


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """What is evaluated on, what is reported, and how it runs."""
    group = parser.add_argument_group("evaluation (of the merge; without --method of each of --models)")
    group.add_argument(
        "--evaluate",
        nargs="+",
        default=[],
        metavar="TASK",
        help="zero-shot accuracy on data sets of ours, on the merging benchmarks' (sun397, stanford-cars ...), on all of TA8, TALL14 "
        "or TALL20, on imagefolder:PATH",
    )
    group.add_argument("--eval-split", choices=("train", "val", "test"), default="test", help="which of their images")
    group.add_argument("--report", type=Path, metavar="FILE.json", help="write the accuracies and losses here, in FusionBench's form")
    group.add_argument(
        "--seen", nargs="+", default=[], metavar="TASK", help="tasks whose models were merged; averages of these and of others"
    )
    group.add_argument("--published", action="store_true", help="show the published accuracies beside ours, where there are any")
    group.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="evaluate a merge for each value of an option, scaling=0.1:1.0:0.1 or density=0.1,0.2, in one pass over the images; "
        "repeated: all combinations. --out is then the one with the best average",
    )
    group.add_argument("--include-base", action="store_true", help="without --method: evaluate the base too")
    group.add_argument("--encoder", metavar="MODEL", help="whose text tower, projections and preprocessing are used (default: the base)")
    add_loading_arguments(parser)
    add_data_arguments(parser, val_p=0.1)
    add_corruption_arguments(parser)


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """How images are embedded, and how models that are evaluated are kept."""
    group = parser.add_argument_group("running on images, with --device")
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the image tower; heads and logits are always fp32")
    group.add_argument(
        "--resident", type=positive_int, default=10, metavar="N", help="encoders kept in memory; further ones are read or merged repeatedly"
    )
    group.add_argument("--heads", type=Path, default=Path("embeddings/heads"), metavar="FOLDER", help="where zero-shot heads are kept")
    group.add_argument("--bs", "--batch-size", dest="batch_size", type=positive_int, default=128, help="images per batch")
    group.add_argument("--num-workers", type=count, default=4, help="processes that decode images; 0 decodes in the main one")
    group.add_argument("--pixel-cache", type=Path, metavar="DIR", help="keep decoded and resized images here for repeated passes")
    group.add_argument("--full-decode", action="store_true", help="decode large JPEG files whole: slower, a trace more exact")
    group.add_argument("--max-skipped", type=count, default=0, help="unreadable images to tolerate; listed beside the report")
    group.add_argument("--progress", action="store_true", help="show progress bars")


def check_flags(args: argparse.Namespace, method: Method | None) -> None:
    """Refuse evaluation flags that have no meaning beside the others, before anything slow is imported."""
    for flag in ("report", "seen", "published", "sweep", "include_base", "encoder"):
        if getattr(args, flag) and not args.evaluate:
            raise UserError(f"--{flag.replace('_', '-')} is of an evaluation; name with --evaluate what to evaluate on, or leave it out.")
    if args.sweep and method is None:
        raise UserError("--sweep is over an option of a merging method; name one with --method (--list shows them).")
    if args.sweep and args.per_model:
        raise UserError("--sweep is over merges into one encoder; leave --per-model out.")
    if args.per_model and method is not None and method.per_model is None:
        raise UserError(f"{method.name} gives one encoder for all models; leave --per-model out.")
    if args.include_base and method is not None:
        raise UserError("--include-base is for evaluating models, not a merge; leave --method or --include-base out.")
