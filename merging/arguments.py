"""The command line of merge.py. Importing this module does not import torch."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from common.arguments import add_profile_argument
from common.errors import UserError
from merging.options import MergeOptions

OF_RUNS = ("device", "seed")  # fields that also say how images are looked at

HELP: dict[str, str] = {  # of each field of MergeOptions
    "scaling": "what the merged task vector is multiplied by; negative: forget (default: the method's published one)",
    "weights": "weighted_average: one number for each model",
    "normalize": "weighted_average: take the weights as they are instead of dividing them by their sum",
    "density": "ties: fraction of each task vector that is kept",
    "merge_func": "ties: how entries of the elected sign are joined",
    "scope": "ties: trim over the whole model or over each tensor",
    "drop_rate": "dare: fraction of each task vector that is dropped",
    "rescale": "dare: leave what is kept as it is instead of dividing it by 1 - drop rate",
    "t": "slerp: from 0, the first model, to 1, the second",
    "seed": "dare: decides what is dropped; data-aware methods: which images, and what else is drawn",
    "common_space_fraction": "iso_cts: share of the directions that all tasks have in common",
    "solver": "wudi: by Adam as published, or exactly",
    "iterations": "wudi: steps of Adam",
    "learning_rate": "wudi: of Adam",
    "mask_threshold": "tall_mask: lambda, the larger the fewer weights a task uses",
    "min_tasks": "tall_mask: how many tasks must use a weight that consensus keeps",
    "device": "where images are embedded, auto, cpu, cuda or mps (default: auto, the accelerator where there is one); and where methods "
    "that work on whole matrices do so (default: cpu)",
    "fisher_samples": "fisher: answers drawn for each image; 0: all, each by its probability",
    "normalize_fisher": "fisher: take each model's Fisher information as it is instead of dividing it by its norm",
    "minimal_fisher": "fisher: what is added to the Fisher information",
    "non_diagonal_ratio": "regmean: what off-diagonal entries of the Gram matrices are multiplied by",
    "adapt_steps": "adamerging, wemoe: steps of the scalings, of the routers",
    "adapt_lr": "adamerging, concrete, wemoe: of Adam (default: the method's published one)",
    "adapt_batch_size": "adamerging, concrete, wemoe: images of each task in a step",
    "plateau": "adamerging, concrete: stop when so many steps bring no gain; 0: never",
    "clamp": "adamerging: keep the scalings within 0 and 1",
    "bf16_task_vectors": "adamerging: keep task vectors in bfloat16, in half the memory; approximate",
    "weights_file": "adamerging, concrete: merge by what was learnt before and kept in this file; needs no images",
    "save_weights": "adamerging, concrete: keep what is learnt in this file, .safetensors",
    "mask_steps": "concrete: steps of the mask (default: the method's published number)",
    "temperature": "concrete: the lower, the nearer to binary the masks are",
    "mask_type": "concrete: the mask that merges",
    "inner_lr": "concrete adamerging: of the inner step",
    "router_layers": "wemoe: layers of a router: 2, 1, or 0, a constant",
    "batch_reduce": "wemoe: all images of a batch get their mean weights, as released; then an image depends on its batch",
    "prune_ratio": "wemoe: fraction of each tensor of the MLPs' task vectors that is set to 0 (default: none; e_wemoe: 0.9)",
    "gate_prune_ratio": "wemoe: the same of the trained routers (default: none)",
    "shared_gate": "wemoe: one router for all blocks, as e_wemoe always has",
    "position_dim": "e_wemoe, or with --shared-gate: numbers that tell the blocks apart; published: 8",
    "as_released": "fisher, regmean_plus_plus, concrete: as the papers' released code has it, where that differs",
}

_VALUES = {"device": "DEVICE", "weights_file": "FILE", "save_weights": "FILE"}  # what stands for the value, where NAME would mislead


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """What is merged, how, and where to."""
    what = parser.add_argument_group("what is merged")
    what.add_argument("--method", metavar="NAME", help="--list shows them")
    what.add_argument("--list", action="store_true", help="one line for each method: what it does, its paper, the data it needs")
    what.add_argument("--base", metavar="SOURCE", help="what the models were tuned from; the result has its names, dtypes and form")
    what.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="[NAME=]SOURCE",
        help="safetensors files, Hugging Face folders or hub ids, checkpoints of clipscope, LoRA folders, names of models, mixed freely",
    )
    what.add_argument("--towers", choices=("vision", "both"), help="of CLIPs: which towers are merged, else the base's (default: vision)")
    what.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="merge only tensors whose names fit, e.g. '*.mlp.*'")
    where = parser.add_argument_group("where to")
    where.add_argument("--out", type=Path, help="FILE.safetensors, or a folder when the base is a Hugging Face model")
    where.add_argument(
        "--per-model",
        action="store_true",
        help="tall_mask, emr: one encoder for each model, into the folder --out; they appear there one after the other",
    )
    where.add_argument("--overwrite", action="store_true", help="replace files that exist")
    add_profile_argument(where)
    add_option_arguments(parser.add_argument_group("options of the methods (--list tells whose; another method's is an error)"))
    look = parser.add_argument_group("looking at models (with or without a method)")
    look.add_argument(
        "--cosine", type=Path, metavar="FILE.csv", help="cosine similarities of the task vectors; drawn too, as .pdf and .png"
    )
    look.add_argument("--norms", type=Path, metavar="FILE.csv", help="norms of the task vectors: whole, by layer, by tensor")
    look.add_argument("--count", action="store_true", help="print how many tensors and parameters are merged")


def add_option_arguments(group: Any) -> None:
    """One flag for each field of :class:`MergeOptions`; absent means the default, so that what was typed is known."""
    types = get_type_hints(MergeOptions)
    for field in fields(MergeOptions):
        add_option(group, field, types[field.name])


def add_option(group: Any, field: Field[Any], kind: Any) -> None:
    """The flag of one field: its type, its choices, and --no-NAME for what is on by default."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(one for one in get_args(kind) if one is not type(None))
    text = HELP[field.name] + (f" (default: {field.default})" if _default_is_told(field, kind) else "")
    if kind is bool:
        prefix, action = ("no-", "store_false") if field.default else ("", "store_true")
        group.add_argument(f"--{prefix}{dashed(field.name)}", dest=field.name, action=action, default=None, help=text)
    elif get_origin(kind) is Literal:
        group.add_argument(f"--{dashed(field.name)}", choices=get_args(kind), help=text)
    elif get_origin(kind) is tuple:
        group.add_argument(f"--{dashed(field.name)}", type=get_args(kind)[0], nargs="+", help=text)
    else:
        group.add_argument(f"--{dashed(field.name)}", type=kind, metavar=_VALUES.get(field.name), help=text)


def _default_is_told(field: Field[Any], kind: Any) -> bool:
    return field.default is not None and kind is not bool and "(default:" not in HELP[field.name]


def dashed(name: str) -> str:
    """A field's name as in a flag."""
    return name.replace("_", "-")


def flag_of(name: str) -> str:
    """The flag that sets a field."""
    on = next(field.default is True for field in fields(MergeOptions) if field.name == name)
    return f"--{'no-' if on else ''}{dashed(name)}"


def options_of(args: argparse.Namespace, method: str, reads: tuple[str, ...], *, images: bool = False) -> MergeOptions:
    """The options that were typed. UserError for one that ``method``, which ``reads`` some, does not read.

    Where a command looks at ``images``, device and seed are those of its run too.
    """
    typed: dict[str, Any] = {
        field.name: getattr(args, field.name) for field in fields(MergeOptions) if getattr(args, field.name) is not None
    }
    for name in typed:
        if name not in reads and not (images and name in OF_RUNS):
            known = ", ".join(map(flag_of, reads)) or "no option"
            raise UserError(f"{flag_of(name)} has no meaning for {method}, which reads {known}.")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()}
    if values.get("device") == "auto":
        values["device"] = accelerator()
    return MergeOptions(**values)


def accelerator() -> str:
    """The device that ``auto`` stands for."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type
