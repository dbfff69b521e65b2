"""The flags that say which images of a data set and which prompts, and the tasks that they ask for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from common.errors import UserError
from datasets.naming import CORRUPTIONS, SEVERITIES, STYLES, Corruption, corrupted

if TYPE_CHECKING:
    from datasets.task import Task


def add_corruption_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that evaluate: one corruption for every data set that is named."""
    group = parser.add_argument_group("corrupted images (as the name DATASET+KIND-SEVERITY asks for, too)")
    group.add_argument("--corruption", metavar="KIND", choices=CORRUPTIONS, help=f"of every data set named: {', '.join(CORRUPTIONS)}")
    group.add_argument("--severity", metavar="N", type=int, choices=SEVERITIES, help="how strong, from 1 to 5")
    group.add_argument(
        "--corruption-style",
        choices=STYLES,
        help="relative: ImageNet-C's constants, relative to the image's size; cifar: those of the published table (default: relative)",
    )


def asked_name(args: argparse.Namespace, name: str) -> str:
    """The name of the data set ``name`` with the corruption that was asked for; flags that contradict one another are an error."""
    kind, severity, style = (vars(args).get(flag) for flag in ("corruption", "severity", "corruption_style"))
    if kind is None:
        if severity is not None or style is not None:
            flag = "--severity" if severity is not None else "--corruption-style"
            raise UserError(f"{flag} says how images are corrupted, but no --corruption is given; name one, or leave {flag} out.")
        return name
    if severity is None:
        raise UserError(f"--corruption {kind} needs a strength; add --severity, from 1 to 5.")
    return corrupted(name, Corruption(kind, severity, style or "relative"))


def asked_templates(args: argparse.Namespace, name: str) -> tuple[str, ...] | None:
    """The templates that ``--template`` or ``--prompts`` gives the data set ``name``; None for its own."""
    from datasets.prompts import chosen_templates
    from datasets.registry import checked_name, read_templates

    if args.prompts is None:
        return read_templates(args.template)
    return chosen_templates(checked_name(name).base, args.prompts)


def load_asked(args: argparse.Namespace, name: str, split: str) -> Task:
    """The split of the data set ``name`` as the flags ask for it."""
    from datasets.registry import load_task

    name = asked_name(args, name)
    return load_task(name, split, data_dir=args.data_dir, val_p=args.val_p, templates=asked_templates(args, name))
