"""The flags of self-distillation. Importing this module does not import torch."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.arguments import count, non_negative, positive_int
from common.errors import UserError
from fewshot.dino.options import OPTIMIZERS, DinoOptions

DEFAULTS = DinoOptions()
PUBLISHED: dict[str, Any] = {  # the run of the released README where it differs; configs/adapter/dino_paper.toml is all of it
    "warmup_epochs": 2,
    "momentum_teacher": 0.9998,
    "warmup_teacher_temp_epochs": 3,
    "freeze_last_layer": 0,
}
WITHOUT_EFFECT = {
    "--distributed": "torchrun says how many processes there are",
    "--only-val": "nor has it any there",
    "--save-best-last": "nor has it any there; --keep says which adapters are kept",
}
PUBLISHED_RUN = (
    "The published run also has --epochs 10 --lr 8e-4 --seed 1 --preprocess as-released and three processes of 40 images each, which is "
    "--batch-size 120 here; all of it is in configs/adapter/dino_paper.toml."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of the released code that has a meaning here, with its default there and what the published run has."""
    _add_schedules(parser.add_argument_group("dino: schedules and optimizer", PUBLISHED_RUN))
    _add_head(parser.add_argument_group("dino: teacher and head"))
    _add_crops(parser.add_argument_group("dino: crops"))
    _add_released(parser.add_argument_group("dino: other flags of the released code"))


def options_of(args: argparse.Namespace) -> DinoOptions:
    """What the flags say. Raises :class:`UserError` for scales of crops that are no range within 0 and 1."""
    if args.use_dino_transformer:
        raise UserError("--use-dino-transformer trains a transformer of DINO's, not an encoder's adapters; leave it out.")
    typed = {field.name: getattr(args, field.name) for field in fields(DinoOptions)}
    for name in ("global_crops_scale", "local_crops_scale"):
        typed[name] = _scale(_flag(name), typed[name])
    return DinoOptions(**typed)


def _add_schedules(group: Any) -> None:
    _add(group, "min_lr", "learning rate at the end, on half a cosine that starts at --lr times images of a step / 256", type=non_negative)
    _add(group, "warmup_epochs", "epochs in which the learning rate rises from 0; the run's end cuts a longer warm-up", type=count)
    _add(group, "weight_decay_end", "weight decay at the end; it follows half a cosine from --wd", type=non_negative)
    _add(group, "optimizer", "sgd and lars: with momentum 0.9", choices=OPTIMIZERS)
    _add(group, "clip_grad", "largest norm of each parameter's gradient; 0 for none", type=non_negative)


def _add_head(group: Any) -> None:
    _add(group, "momentum_teacher", "of the teacher's moving average at the start; 1 at the end", type=_momentum)
    _add(group, "warmup_teacher_temp", "the teacher's temperature in the first epoch", type=_temperature)
    _add(group, "teacher_temp", "the teacher's temperature after its warm-up; lower is sharper", type=_temperature)
    _add(group, "warmup_teacher_temp_epochs", "epochs over which the teacher's temperature rises", type=count)
    _add(group, "out_dim", "outputs of the head", type=positive_int)
    _add(group, "freeze_last_layer", "epochs in which the head's last layer does not train", type=count)
    group.add_argument(
        "--freeze-head",
        "--adapter-train",
        action="store_true",
        help="the head stays as it was drawn, as in the released code (default: off; published run: on)",
    )


def _add_crops(group: Any) -> None:
    _add(group, "global_crops_scale", "part of the image's area in the two global crops", type=float, nargs=2, metavar=("LEAST", "MOST"))
    _add(group, "local_crops_number", "local crops of an image", type=count)
    _add(group, "local_crops_scale", "part of the image's area in the local crops", type=float, nargs=2, metavar=("LEAST", "MOST"))
    group.add_argument(
        "--local-crops-size", type=positive_int, metavar="PIXELS", help="side of a local crop (default: 96 of 224, in whole patches)"
    )


def _add_released(group: Any) -> None:
    absent: Any = argparse.SUPPRESS  # the flags that they stand for have defaults
    fp16: Any = {"dest": "precision", "nargs": "?", "const": "fp16", "choices": ("fp16",), "metavar": "fp16"}
    group.add_argument("--use-fp16", **fp16, default=absent, help="--precision fp16")
    group.add_argument("--restore-checkpoint", dest="resume", action="store_true", default=absent, help="--resume")
    group.add_argument("--output-dir", dest="model_dir", type=Path, default=absent, metavar="FOLDER", help="--model-dir")
    group.add_argument("--data-root", dest="data_dir", type=Path, default=absent, metavar="FOLDER", help="--data-dir")
    for flag, reason in WITHOUT_EFFECT.items():
        group.add_argument(flag, action="store_true", help=f"accepted and without effect: {reason}")
    cache = "without effect: --model-name says where the weights come from"
    group.add_argument("--root-vit", type=Path, default=absent, metavar="FOLDER", help=cache)
    group.add_argument("--drop-path-rate", type=non_negative, default=0.1, help="without effect, as there for CLIP: no block is dropped")
    group.add_argument("--use-dino-transformer", action="store_true", help="refused: only encoders with text get adapters")


def _add(group: Any, name: str, help: str, **how: Any) -> None:
    group.add_argument(_flag(name), default=getattr(DEFAULTS, name), help=help + _published(name), **how)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _published(name: str) -> str:
    """Both values for the help where the published run has another than the default; else the parser shows the default."""
    return f" (default: %(default)s; published run: {PUBLISHED[name]})" if name in PUBLISHED else ""


def _temperature(text: str) -> float:
    """A number above 0."""
    if (value := non_negative(text)) == 0:
        raise argparse.ArgumentTypeError("a temperature must be above 0")
    return value


def _momentum(text: str) -> float:
    """A number from 0 to 1."""
    if (value := non_negative(text)) > 1:
        raise argparse.ArgumentTypeError(f"{text} is more than 1")
    return value


def _scale(flag: str, values: Any) -> tuple[float, float]:
    least, most = values
    if not 0 < least <= most <= 1:
        raise UserError(
            f"{flag} {least:g} {most:g} is no range of parts of an image; give two numbers above 0 and up to 1, the smaller first."
        )
    return float(least), float(most)
