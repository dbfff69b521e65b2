"""The flags that say which images a data-aware method looks at. Importing this module does not import torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.arguments import positive_int
from common.errors import UserError

if TYPE_CHECKING:
    from merging.method import Method
    from merging.sources import Source

SPLITS = ("train", "val", "test")
EXAMPLES = 256
FLAGS = ("tasks", "examples", "data_split", "adapt_split")


def add_data_aware_arguments(parser: argparse.ArgumentParser) -> None:
    """Which images, and how many."""
    group = parser.add_argument_group("images that data-aware methods look at (--list tells which these are)")
    group.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="[NAME=]TASK",
        help="the task of each model, in the order of --models or by a model's name (default: what the checkpoint was trained on, or "
        "the task that the model's name is or ends in)",
    )
    group.add_argument("--examples", type=positive_int, metavar="N", help=f"images of each task (default: {EXAMPLES}; not when adapting)")
    group.add_argument("--data-split", choices=SPLITS, help="which images they are drawn from (default: train)")
    group.add_argument("--adapt-split", choices=SPLITS, help="of adamerging, concrete, wemoe: which images, without labels (default: test)")


def check_data_flags(args: argparse.Namespace, method: Method | None) -> None:
    """Refuse flags that have no meaning for the method."""
    for name in FLAGS:
        flag = f"--{name.replace('_', '-')}"
        if not getattr(args, name):
            continue
        if method is None or method.data == "none":
            raise UserError(f"{flag} is for methods that look at images; leave it out, or name one with --method (--list shows them).")
        if name == "adapt_split" and not method.transductive:
            raise UserError(f"--adapt-split has no meaning for {method.name}, which takes images from --data-split.")
        if name in ("examples", "data_split") and method.transductive:
            raise UserError(f"{flag} has no meaning for {method.name}, which adapts to all images of --adapt-split.")


def split_of(args: argparse.Namespace, method: Method) -> str:
    """The split that the method takes its images from."""
    return (args.adapt_split or "test") if method.transductive else (args.data_split or "train")


def tasks_of(given: Sequence[str], models: Sequence[Source], method: str) -> dict[str, str]:
    """{model: task as it is typed} from --tasks, or from what the models tell. UserError when that is not one for each model."""
    names = [model.name for model in models]
    pairs = [word.split("=", 1) if word.split("=", 1)[0] in names else ["", word] for word in given]
    named = {name: task for name, task in pairs if name}
    others, in_order = [name for name in names if name not in named], [task for name, task in pairs if not name]
    if in_order and len(in_order) != len(others):
        raise UserError(f"--tasks names {len(in_order)} tasks for {len(others)} models ({', '.join(others)}); it must be one for each.")
    named |= dict(zip(others, in_order, strict=False))
    return {model.name: named.get(model.name) or _told(model, method) for model in models}


def _told(model: Source, method: str) -> str:
    """The task that a model's name is, or that its checkpoint was trained on, or that its name ends in."""
    from datasets.registry import SOURCES
    from merging.task_names import PUBLISHED

    known = {name.replace("_", "-"): name for name in (*PUBLISHED, *SOURCES)}
    name = model.name.replace("_", "-")
    endings = [task for task in known if name.endswith(f"-{task}")]
    trained_on = model.header.task if model.header is not None else ""
    found = known.get(name) or trained_on or (known[max(endings, key=len)] if endings else "")
    if not found:
        raise UserError(f"{method} looks at images of every model's task, and '{model.name}' does not tell its own; --tasks names them.")
    return found
