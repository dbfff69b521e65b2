"""Arguments that several commands share, so that a flag means the same everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_RATE = 1e30  # a learning rate
_BATCH = {"--bs": ("--bs", "--batch-size"), "--batch-size": ("--batch-size", "--bs")}  # either, whichever a released code has


def positive_int(text: str) -> int:
    """An integer of at least 1."""
    return int(_at_least(text, int, 1))


def count(text: str) -> int:
    """An integer of at least 0."""
    return int(_at_least(text, int, 0))


def non_negative(text: str) -> float:
    """A number of at least 0."""
    return float(_at_least(text, float, 0))


def learning_rate(text: str) -> float:
    """A number of at least 0 that optimizers can still multiply in float32; what is far too large diverges, and is told so then."""
    value = non_negative(text)
    if value > MOST_RATE:
        raise argparse.ArgumentTypeError(f"{text} is more than {MOST_RATE:g}")
    return value


def proportion(text: str) -> float:
    """A number between 0 and 1, both left out."""
    value = float(_at_least(text, float, 0))
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def _at_least(text: str, kind: Callable[[str], Any], least: int) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not {'a whole number' if kind is int else 'a number'}") from None
    if not least <= value < float("inf"):  # NaN fails this too
        raise argparse.ArgumentTypeError(f"{text} is less than {least}" if value < least else f"{text} is not a finite number")
    return value


def add_data_arguments(parser: argparse.ArgumentParser, *, val_p: float | None) -> None:
    """Where data sets lie, their prompts and, where ``val_p`` is given, how much of the training split is for validation."""
    group = parser.add_argument_group("data")
    group.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of the data sets")
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="prompt with {c} for the class name, or a .txt file of them; may be repeated, the prompts of a class are averaged "
        "(default: the data set's own)",
    )
    prompts.add_argument(
        "--prompts", metavar="NAME", help="published prompts (iimm, openai, coop, merging, cross_the_gap), or a text file, one per line"
    )
    if val_p is not None:
        group.add_argument(
            "--val-p",
            type=proportion,
            default=val_p,
            help="part of the training split for validation (at most 5000 images, seed 0; as released, 0.01 to embed and 0.1 elsewhere)",
        )


def add_run_arguments(parser: argparse.ArgumentParser, *, batch_flag: str = "--bs") -> None:
    """Batch size, loader processes, device, precision, skipping and progress."""
    group = parser.add_argument_group("running")
    group.add_argument(
        *_BATCH.get(batch_flag, (batch_flag,)),
        dest="batch_size",
        type=positive_int,
        default=128,
        help="images per batch (in training: of all processes)",
    )
    group.add_argument("--num-workers", type=count, default=4, help="processes that decode images; 0 decodes in the main one")
    group.add_argument("--pixel-cache", type=Path, metavar="DIR", help="keep decoded and resized images here for repeated passes")
    group.add_argument(
        "--full-decode",
        action="store_true",
        help="decode large JPEG files whole instead of at the scale needed: slower, a trace more exact",
    )
    group.add_argument("--device", choices=DEVICES, default="auto", help="auto: the accelerator where there is one")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the towers; auto: bf16 where there is, else fp32")
    group.add_argument("--max-skipped", type=count, default=0, help="unreadable images to tolerate; listed beside the output")
    group.add_argument("--seed", type=count, default=0, help="decides everything that is drawn")
    group.add_argument("--progress", action="store_true", help="show progress bars")
    add_profile_argument(group)


def add_profile_argument(group: Any) -> None:
    """``--profile``, which :class:`common.cli.Parser` heeds."""
    group.add_argument("--profile", action="store_true", help="print at the end where the time went, stage by stage")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which encoder, and the tuning's hyper-parameters, which a checkpoint answers itself."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model-name",
        default=None,
        help="an encoder (tiny, clip, siglip, coca, eva02, ARCH/PRETRAINED, hf-hub:ORG/NAME, local-dir:PATH, a Hugging Face CLIP "
        "folder) or a tuning (default: clip, or what the checkpoint says)",
    )
    group.add_argument("--model-path", type=Path, help="checkpoint of a fine-tuned encoder (default: none, zero-shot)")
    tuning = parser.add_argument_group("the checkpoint's tuning (it knows its own; another value is an error)")
    add_tuning_arguments(tuning, defaults=False)


def add_tuning_arguments(group: Any, *, defaults: bool) -> None:
    """The tunings' hyper-parameters; without ``defaults`` they are only checked against what a checkpoint says."""

    def default(value: Any) -> Any:
        return value if defaults else None

    group.add_argument("--reduction", type=positive_int, default=default(4), help="adapter: width / bottleneck")
    group.add_argument("--rank", type=positive_int, default=default(16), help="lora, l-lora: rank of the update")
    group.add_argument("--lora-mlp", action="store_true", default=default(False), help="lora, l-lora: update the MLPs too")
    group.add_argument(
        "--train-blocks",
        type=positive_int,
        default=default(12),
        help="bias, attention: how many blocks of each tower, from the last",
    )
