"""The command line of few_shot.py, with the released code's spellings beside its own; imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from common.arguments import add_data_arguments, add_run_arguments, count
from common.cli import Parser
from common.configs import parse_with_config
from common.errors import UserError
from datasets.few_shot import ORDERS
from fewshot.options import GridName, Search
from fewshot.protocol import RELEASED_SHOTS, validation_shots

SEEDS = (1, 2, 3)


def parse_arguments(documentation: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or what a preset (``--config``) gives; :class:`UserError` for flags that contradict one another."""
    parser = Parser(documentation)
    _add_task(parser)
    _add_protocol(parser)
    _add_model(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", "--save-dir", type=Path, default=Path("results/few_shot"), metavar="FOLDER", help="results, tables, figures"
    )
    output.add_argument("--features", type=Path, default=Path("embeddings/few_shot"), metavar="FOLDER", help="where features are kept")
    output.add_argument("--list", action="store_true", help="list the methods, and end")
    add_data_arguments(parser, val_p=0.1)
    add_run_arguments(parser, batch_flag="--batch-size")
    _add_released(parser)
    parser.set_defaults(seed=None)
    return _checked(parse_with_config(parser, argv))


def _add_task(parser: Parser) -> None:
    group = parser.add_argument_group("what is learnt and tested")
    group.add_argument("--dataset", "--datasetname", "--dataset-name", nargs="+", metavar="NAME", help="data sets; imagefolder:PATH too")
    group.add_argument(
        "--methods",
        nargs="+",
        metavar="NAME",
        help="what --list lists, training-free, or all, with the costly clip_lora (default: training-free; corrected ones with --adapter)",
    )
    group.add_argument(
        "--transfer",
        nargs="+",
        default=[],
        metavar="NAME",
        help="test on these too, with cache and hyper-parameters of --dataset: ImageNetV2 ImageNet-Sketch ImageNet-R ImageNet-A, "
        "or any data set with the same classes",
    )


def _add_protocol(parser: Parser) -> None:
    group = parser.add_argument_group("protocol")
    group.add_argument(
        "--shots",
        "--num-shots",
        nargs="+",
        type=_shots,
        default=list(RELEASED_SHOTS),
        metavar="K",
        help="images of each class; -1: 1, 2, 4, 8 and 16",
    )
    group.add_argument("--seeds", nargs="+", type=count, metavar="N", help="of draws, views and training (default: --seed, or else 1 2 3)")
    group.add_argument("--order", choices=ORDERS, default="independent", help="how shots are drawn; legacy: as CoOp and its heirs do")
    group.add_argument(
        "--val-shots",
        type=validation_shots,
        default="min",
        metavar="min|full|N",
        help="validation images of each class: min(K, 4) as CoOp, the whole split as released, or so many; never test images",
    )
    group.add_argument("--views", "--num-augment", type=count, default=10, metavar="N", help="augmented views of a shot, averaged; 0: none")
    group.add_argument(
        "--search",
        choices=get_args(Search),
        default="exact",
        help="the best real values, of a released grid, or published ones (ImageNet's where a data set has none)",
    )
    group.add_argument("--grid", choices=get_args(GridName), default="overlap", help="the overlap correction's grid, or each method's own")
    group.add_argument("--as-released", action="store_true", help="the released codes' numbers where they differ from the definitions")


def _add_model(parser: Parser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model-name", help="an encoder, as for every command (default: clip, or the one that the adapter is for)")
    group.add_argument(
        "--adapter",
        "--model-path",
        type=Path,
        metavar="CHECKPOINT",
        help="what train_adapter.py wrote, for corrected methods",
    )


def _add_released(parser: Parser) -> None:
    group = parser.add_argument_group("other flags of the released code")
    group.add_argument("--root", dest="data_dir", type=Path, default=argparse.SUPPRESS, help="--data-dir")
    unused = "accepted and without effect, as there: --model-path is the adapter"
    group.add_argument("--model-checkpoint", metavar="FILE", default=argparse.SUPPRESS, help=unused)


def _shots(text: str) -> int:
    value = int(text) if text.lstrip("-").isdecimal() else 0
    if value != -1 and value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a whole number of at least 1 nor -1 for all")
    return value


def _checked(args: argparse.Namespace) -> argparse.Namespace:
    """Each shot, seed and name once; what was left out filled in."""
    if not args.dataset and not args.list:
        raise UserError("Nothing to classify; name a data set with --dataset.")
    if args.seeds is not None and args.seed is not None:
        raise UserError("--seed and --seeds both say what is drawn by; give one of them.")
    args.seeds = list(dict.fromkeys(args.seeds or ([args.seed] if args.seed is not None else SEEDS)))
    args.shots = sorted(RELEASED_SHOTS if -1 in args.shots else set(args.shots))
    args.dataset, args.transfer = list(dict.fromkeys(args.dataset or [])), list(dict.fromkeys(args.transfer))
    if twice := [name for name in args.transfer if name in args.dataset]:
        raise UserError(f"--transfer {twice[0]} is one of --dataset, which is tested anyway; leave it out.")
    return args
