"""The flags that oti.py and ovi.py share, and what they ask for. The released code's spellings are understood."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_model_arguments, add_run_arguments, count, learning_rate, non_negative, positive_int, proportion
from inversion.published import LEARNING_RATE, SEED, STEPS, TEMPLATE, WEIGHT_DECAY
from inversion.released_flags import add_boolean, add_released_model_flags

if TYPE_CHECKING:
    from inversion.optimise import InversionOptions


def add_inversion_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    """All flags of ``oti.py`` or ``ovi.py``, but for those of :mod:`common.configs`."""
    _add_items(parser, kind)
    add_model_arguments(parser)
    add_released_model_flags(parser)
    _add_optimisation(parser, kind)
    _add_early_stop(parser)
    _add_output(parser)
    add_run_arguments(parser, batch_flag="--image-batch-size")
    parser.set_defaults(seed=SEED)


def _add_items(parser: argparse.ArgumentParser, kind: str) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--dataset-name", required=True, metavar="NAME", help="as retrieval.py takes it; released names (cub2011, ...) too")
    group.add_argument("--data-dir", "--dataroot", type=Path, default=Path("data"), help="folder of the data sets")
    group.add_argument("--split", metavar="NAME", help="part of the data set; test_query, val_gallery ... too (default: the published one)")
    group.add_argument("--side", choices=("query", "gallery"), help="what is inverted (default: query)")
    group.add_argument("--gallery-split", metavar="NAME", help="of classification data sets, where the gallery comes from (default: train)")
    group.add_argument("--crop", action="store_true", help="ROxford5k, RParis6k: cut the queries to their bounding boxes")
    group.add_argument("--distractors", action="store_true", help="ROxford5k, RParis6k: the million distractors in the gallery")
    group.add_argument("--summaries", type=Path, metavar="FILE", help="texts that take the place of the gallery's")
    if kind == "ovi":
        add_boolean(group, "--use-class-names", help="invert the names of the classes of a classification data set")


def _add_optimisation(parser: argparse.ArgumentParser, kind: str) -> None:
    group = parser.add_argument_group("optimisation (the defaults are the published ones)")
    group.add_argument(f"--{kind}-steps", dest="steps", type=positive_int, default=STEPS[kind], help="steps of AdamW")
    tokens = "as published for the model, else 1" if kind == "ovi" else "1"
    group.add_argument("--num-pseudo-tokens", type=positive_int, help=f"pseudo-tokens per item (default: {tokens})")
    group.add_argument("--learning-rate", type=learning_rate, default=LEARNING_RATE, help="of AdamW")
    group.add_argument("--weight-decay", type=non_negative, default=WEIGHT_DECAY, help="of AdamW")
    of = "class names only: " if kind == "ovi" else ""
    group.add_argument("--template-sentence", default=TEMPLATE, metavar="TEXT", help=f"{of}the sentence around {{}}")
    group.add_argument(
        "--snapshots", type=step_list, nargs="+", default=[], metavar="STEP", help="steps to record besides the last: 10,20,50"
    )
    group.add_argument("--batch-size", dest="items_per_batch", type=positive_int, help="items at a time (default: by kind and device)")
    group.add_argument("--compile", action="store_true", help="compile a step: a minute at the start, then faster on CUDA")


def _add_early_stop(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("early stop of single items (off: the published protocol takes every step)")
    group.add_argument("--stop-at-cosine", type=proportion, metavar="COS", help="when the cosine to the target is at least this")
    group.add_argument("--stop-below", type=non_negative, metavar="LOSS", help="when the loss fell by less than this ...")
    group.add_argument("--stop-over", type=positive_int, default=10, metavar="STEPS", help="... over as many steps")
    group.add_argument("--check-every", type=positive_int, default=10, metavar="STEPS", help="how often this is looked at")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--outfolder", type=Path, default=Path("pseudo_tokens"), help="folder of all inversions")
    group.add_argument("--exp-name", metavar="NAME", help="folder of this one (default: the config file's stem, else the model)")
    group.add_argument("--save-frequency", type=positive_int, default=1, metavar="BATCHES", help="how many batches make a shard")
    group.add_argument("--overwrite", action="store_true", help="begin anew where there are pseudo-tokens already")
    add_boolean(group, "--resume-experiment", help="accepted and without effect: a run always goes on where the last one stopped")
    group.add_argument(
        "--features", type=Path, default=Path("embeddings/retrieval"), metavar="FOLDER", help="where native features are kept"
    )
    add_boolean(group, "--validate", help="then search with what was inverted among native features, and with these alone")
    group.add_argument("--outfile", type=Path, default=Path("results/retrieval.csv"), help="with --validate: CSV table to add rows to")


def step_list(text: str) -> list[int]:
    """Steps with commas between them: ``10,20,50``."""
    return [count(part) for part in text.split(",") if part]


def inversion_options(args: argparse.Namespace) -> InversionOptions:
    """How to optimise, as the command line says it."""
    from inversion.optimise import InversionOptions

    return InversionOptions(
        steps=args.steps,
        lr=args.learning_rate,
        weight_decay=args.weight_decay,
        seed=args.seed,
        snapshots=tuple(sorted({step for part in args.snapshots for step in part})),
        stop_at_cosine=args.stop_at_cosine,
        stop_below=args.stop_below,
        stop_over=args.stop_over,
        check_every=args.check_every,
        compile=args.compile,
    )
