"""Fine-tune an encoder on a data set: all of it, or a few parameters of it.

    python train.py --dataset Digits --model-name tiny --lr 1e-2 --nepochs 10
    python train.py --dataset EuroSAT --model-name clip --lr 1e-4 --wd 1e-4
    python train.py --dataset imagefolder:photos --model-name lora --base-model tiny --rank 8 --lr 1e-1
    python train.py --dataset EuroSAT --config configs/merging/finetune.toml
    torchrun --nproc_per_node=4 train.py --dataset imagefolder:photos --model-name siglip --lr 1e-4

--model-name is an encoder, which is then fully fine-tuned, or a tuning (full, lora, l-lora, bias, attention, adapter,
parallel-adapter, probe) of --base-model. With --towers vision the vision tower alone trains, as encoders that are to be
merged need it: text tower, projections and logit scale stay those of the base. The loss is cross-entropy over the prompts of
all classes. The checkpoint with the best validation accuracy and the last one go to --model-dir, under names that tell runs
of a grid apart; with them a record of the run.

A run that is killed goes on with --resume, to the same weights. On SIGTERM and SIGUSR1 it saves its state and ends with
status 75; a batch script that adds --resume can be submitted again until it ends with 0.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import (
    add_data_arguments,
    add_run_arguments,
    add_tuning_arguments,
    count,
    learning_rate,
    non_negative,
    positive_int,
    proportion,
)
from common.cli import Parser, run
from common.configs import parse_with_config
from common.errors import UserError
from models.tuning_options import TOWERS

if TYPE_CHECKING:
    from engine.training import TrainRequest
    from models.tuning_options import TuningOptions


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help="what to train on: a data set's name, or imagefolder:PATH")
    add_model_flags(parser)
    add_fit_flags(parser)
    add_keeping_flags(parser)
    add_data_arguments(parser, val_p=0.1)
    add_run_arguments(parser)
    return parse_with_config(parser)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """What is tuned, and how."""
    model = parser.add_argument_group("model")
    model.add_argument("--model-name", default="clip", help="an encoder (fully fine-tuned) or a tuning of --base-model")
    model.add_argument("--base-model", help="the encoder that a tuning starts from (default: clip)")
    model.add_argument("--model-dir", type=Path, default=Path("ckpts"), help="folder of the checkpoints")
    add_tuning_arguments(model, defaults=True)
    model.add_argument("--towers", choices=TOWERS, default="both", help="full, lora, l-lora, bias, attention: which trains")
    model.add_argument(
        "--lora-scale",
        type=non_negative,
        default=0.2,
        help="lora, l-lora: factor of the update; where others give alpha, it is alpha / rank",
    )
    model.add_argument("--lora-targets", default="q,v", help="lora, l-lora: what is updated, some of q,k,v,out (behind attention),mlp")
    model.add_argument("--adapter-ratio", type=non_negative, default=0.2, help="adapter: share of the adapter in the feature")
    model.add_argument("--bottleneck", type=positive_int, default=64, help="parallel-adapter: width of its middle")
    model.add_argument("--adapter-scale", type=non_negative, default=0.03, help="parallel-adapter: factor of its output")
    model.add_argument("--adapter-dropout", type=non_negative, default=0.1, help="parallel-adapter: kept for train_adapter.py; off here")
    model.add_argument("--probe-init", choices=("random", "text"), default="random", help="probe: random, or the zero-shot classifier")


def add_fit_flags(parser: argparse.ArgumentParser) -> None:
    """The optimizer and how long it runs."""
    fit = parser.add_argument_group("optimisation (the defaults are the published ones)")
    fit.add_argument("--nepochs", type=positive_int, help="epochs (default: 30)")
    fit.add_argument("--steps", type=positive_int, help="optimizer steps in all, instead of --nepochs; the last epoch ends where they do")
    fit.add_argument("--lr", type=learning_rate, default=1e-6, help="learning rate")
    fit.add_argument("--wd", type=non_negative, default=1e-4, help="weight decay")
    fit.add_argument("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD", help="SGD: momentum 0.9; the others: beta1 0.9")
    fit.add_argument("--beta2", type=proportion, default=0.99, help="Adam, AdamW: decay of the squared gradients' mean")
    fit.add_argument("--schedule", choices=("constant", "cosine", "linear"), default="constant", help="of the learning rate after warm-up")
    fit.add_argument("--warmup", type=count, default=0, help="steps in which the learning rate rises to --lr")
    fit.add_argument("--clip-norm", type=non_negative, help="bound of the gradient's norm (default: none)")
    fit.add_argument("--accumulate", type=positive_int, default=1, help="batches whose gradients are added up for one step")
    fit.add_argument("--augment", choices=("none", "crop", "crop-flip"), default="none", help="random changes to training images")


def add_keeping_flags(parser: argparse.ArgumentParser) -> None:
    """Stopping, going on, and what is told on the way."""
    keep = parser.add_argument_group("keeping")
    earlier = keep.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on where an earlier attempt at this very run stopped")
    earlier.add_argument("--overwrite", action="store_true", help="start this run anew, dropping what an earlier one left")
    keep.add_argument("--save-minutes", type=non_negative, default=10, help="save an unfinished epoch that often")
    keep.add_argument("--log-with", choices=("tensorboard", "wandb"), help="also send loss and accuracy there")


def main() -> None:
    """Train as the command line says."""
    args = parse_arguments()
    request = make_request(args)
    from engine.runtime import start
    from engine.training import train

    runtime = start(args.device, args.precision, args.seed, args.log_with, args.model_dir)
    files = train(runtime, request)
    runtime.say(f"best checkpoint: {files.best}")
    runtime.close()


def make_request(args: argparse.Namespace) -> TrainRequest:
    """What the command line asks for."""
    from datasets.arguments import asked_templates
    from engine.embed import LoadOptions
    from engine.fit import FitOptions
    from engine.training import TrainRequest

    model, tuning = model_and_tuning(args)
    for one, other in (("nepochs", "steps"), ("template", "prompts")):  # one of them may come from --config
        if getattr(args, one) and getattr(args, other):
            raise UserError(f"--{one} and --{other} (here {getattr(args, other)}) contradict each other; give one of them.")
    fit = ("steps", "lr", "wd", "optimizer", "beta2", "schedule", "warmup", "clip_norm", "save_minutes", "progress")
    same = ("dataset", "accumulate", "augment", "val_p", "data_dir", "model_dir", "resume", "overwrite")
    return TrainRequest(
        model=model,
        tuning=tuning,
        options=tuning_options(args, tuning),
        fit=FitOptions(epochs=args.nepochs or FitOptions().epochs, **{name: getattr(args, name) for name in fit}),
        load=LoadOptions.of(args),
        templates=asked_templates(args, args.dataset),
        **{name: getattr(args, name) for name in same},
    )


def model_and_tuning(args: argparse.Namespace) -> tuple[str, str]:
    """The encoder to start from, and how it is tuned: --model-name is the one or the other."""
    from models.selection import DEFAULT_MODEL
    from models.tuning_options import TUNING_NAMES

    if args.model_name in TUNING_NAMES:
        return args.base_model or DEFAULT_MODEL, args.model_name
    if args.base_model not in (None, args.model_name):
        raise UserError(f"--model-name {args.model_name} is an encoder, so --base-model {args.base_model} contradicts it; leave one out.")
    return args.model_name, "full"


def tuning_options(args: argparse.Namespace, tuning: str) -> TuningOptions:
    """The tuning's hyper-parameters; one that another tuning reads and that was given a value of its own is a mistake."""
    from models.tuning_options import TuningOptions, flag, readers_of

    names = [each.name for each in fields(TuningOptions) if each.name != "seed"]
    options = TuningOptions(**{name: getattr(args, name) for name in names})
    for name in names:
        if tuning not in readers_of(name) and getattr(options, name) != getattr(TuningOptions(), name):
            raise UserError(f"{flag(name)} belongs to {' and '.join(readers_of(name))} and means nothing to '{tuning}'; leave it out.")
    return options


if __name__ == "__main__":
    run(main)
