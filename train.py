"""Fine-tune an encoder on a data set: all of it, or a few parameters of it.

    python train.py --dataset Digits --model-name tiny --lr 1e-2 --nepochs 10
    python train.py --dataset EuroSAT --model-name clip --lr 1e-4 --wd 1e-4
    python train.py --dataset imagefolder:photos --model-name lora --base-model tiny --rank 8 --lr 1e-1
    torchrun --nproc_per_node=4 train.py --dataset imagefolder:photos --model-name siglip --lr 1e-4

--model-name is an encoder, which is then fully fine-tuned, or a tuning (full, lora, bias, attention, adapter, probe) of
--base-model. The loss is cross-entropy over the prompts of all classes. The checkpoint with the best validation accuracy
and the last one go to --model-dir, under names that tell runs of a grid apart; with them a record of the run.

A run that is killed goes on with --resume, to the same weights. On SIGTERM and SIGUSR1 it saves its state and ends with
status 75; a batch script that adds --resume can be submitted again until it ends with 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_data_arguments, add_run_arguments, add_tuning_arguments, count, non_negative, positive_int
from common.cli import Parser, run
from common.errors import UserError

if TYPE_CHECKING:
    from engine.training import TrainRequest
    from models.tuning_options import TuningOptions


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help="what to train on: a data set's name, or imagefolder:PATH")

    model = parser.add_argument_group("model")
    model.add_argument("--model-name", default="clip", help="an encoder (fully fine-tuned) or a tuning of --base-model")
    model.add_argument("--base-model", help="the encoder that a tuning starts from (default: clip)")
    model.add_argument("--model-dir", type=Path, default=Path("ckpts"), help="folder of the checkpoints")
    add_tuning_arguments(model, defaults=True)
    model.add_argument("--lora-scale", type=non_negative, default=0.2, help="lora: factor of the update")
    model.add_argument("--adapter-ratio", type=non_negative, default=0.2, help="adapter: share of the adapter in the feature")
    model.add_argument("--probe-init", choices=("random", "text"), default="random", help="probe: random, or the zero-shot classifier")

    fit = parser.add_argument_group("optimisation (the defaults are the published ones)")
    fit.add_argument("--nepochs", type=positive_int, default=30, help="epochs")
    fit.add_argument("--lr", type=non_negative, default=1e-6, help="learning rate")
    fit.add_argument("--wd", type=non_negative, default=1e-4, help="weight decay")
    fit.add_argument("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD", help="SGD: momentum 0.9; the others: betas 0.9, 0.99")
    fit.add_argument("--schedule", choices=("constant", "cosine", "linear"), default="constant", help="of the learning rate after warm-up")
    fit.add_argument("--warmup", type=count, default=0, help="steps in which the learning rate rises to --lr")
    fit.add_argument("--clip-norm", type=non_negative, help="bound of the gradient's norm (default: none)")
    fit.add_argument("--accumulate", type=positive_int, default=1, help="batches whose gradients are added up for one step")
    fit.add_argument("--augment", choices=("none", "crop", "crop-flip"), default="none", help="random changes to training images")

    keep = parser.add_argument_group("keeping")
    earlier = keep.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on where an earlier attempt at this very run stopped")
    earlier.add_argument("--overwrite", action="store_true", help="start this run anew, dropping what an earlier one left")
    keep.add_argument("--save-minutes", type=non_negative, default=10, help="save an unfinished epoch that often")
    keep.add_argument("--log-with", choices=("tensorboard", "wandb"), help="also send loss and accuracy there")

    add_data_arguments(parser, val_p=0.1)
    add_run_arguments(parser)
    return parser.parse_args()


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
    fit = ("lr", "wd", "optimizer", "schedule", "warmup", "clip_norm", "save_minutes", "progress")
    same = ("dataset", "accumulate", "augment", "val_p", "data_dir", "model_dir", "resume", "overwrite")
    return TrainRequest(
        model=model,
        tuning=tuning,
        options=tuning_options(args, tuning),
        fit=FitOptions(epochs=args.nepochs, **{name: getattr(args, name) for name in fit}),
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
    from models.tuning_options import TUNING_OPTIONS, TuningOptions, flag

    names = list(dict.fromkeys(name for options in TUNING_OPTIONS.values() for name in options))
    options = TuningOptions(**{name: getattr(args, name) for name in names})
    for name in names:
        if name not in TUNING_OPTIONS[tuning] and getattr(options, name) != getattr(TuningOptions(), name):
            readers = " and ".join(other for other, read in TUNING_OPTIONS.items() if name in read)
            raise UserError(f"{flag(name)} belongs to {readers} and means nothing to '{tuning}'; leave it out.")
    return options


if __name__ == "__main__":
    run(main)
