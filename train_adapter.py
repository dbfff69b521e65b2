"""Train adapters beside the MLPs of an image tower so that images of one class become more alike than others.

    python train_adapter.py --objective supervised --dataset Shapes-Kind --model-name tiny --batch-size 32 --epochs 5
    python train_adapter.py --objective overlap --dataset imagefolder:photos --model-name ViT-B-16-quickgelu/openai --keep overlap
    python train_adapter.py --images-path oi_data.csv --oi-root open_images/images --model-name ViT-B-16-quickgelu/openai
    torchrun --nproc_per_node=3 train_adapter.py --objective dino --config configs/adapter/dino_paper.toml

The adapters lie beside frozen weights and start as the identity; switched off they leave the encoder as it was. The checkpoint
holds the adapters alone, as the tuning 'parallel-adapter', which every command reads with --model-path. The overlap of
validation images is measured before, during and after training, always with the encoder's own preprocessing, and with --keep
overlap it chooses the checkpoint. The defaults of flags that are not typed are those published for the objective. A run that is
killed goes on with --resume, to the same weights; SIGTERM and SIGUSR1 save its state and end it with status 75.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_run_arguments, count, learning_rate, non_negative, positive_int, proportion
from common.cli import Parser, run
from common.configs import parse_with_config
from common.errors import UserError
from fewshot.adapter_options import KEEP, PREPROCESS, AdapterFit
from fewshot.objectives.table import OBJECTIVES

if TYPE_CHECKING:
    from fewshot.adapter_training import AdapterRequest
    from models.tuning_options import TuningOptions


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    told = "; ".join(f"{entry.name}: {entry.description}" for entry in OBJECTIVES.values())
    parser.add_argument("--objective", choices=tuple(OBJECTIVES), default="supervised", help=f"what the adapters are trained for: {told}")
    add_data_flags(parser)
    add_adapter_flags(parser)
    add_fit_flags(parser)
    add_keeping_flags(parser)
    add_run_arguments(parser, batch_flag="--batch-size")
    parser.set_defaults(batch_size=None)
    for entry in OBJECTIVES.values():
        entry.add_arguments(parser)
    return parse_with_config(parser)


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """The training images, and those on which the overlap is measured."""
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", default="OpenImages", help="what to train on: a data set's name, or imagefolder:PATH")
    data.add_argument("--images-path", type=Path, metavar="CSV", help="instead: a table with the columns ImageID and DisplayName")
    data.add_argument("--oi-root", "--root", type=Path, metavar="FOLDER", help="the folder of that table's images, ImageID.jpg")
    data.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of the data sets")
    data.add_argument("--val-p", type=proportion, default=0.1, help="part of the training split kept for measuring (at most 5000 images)")
    data.add_argument("--val-dataset", help="measure the overlap of this data set's validation images instead")


def add_adapter_flags(parser: argparse.ArgumentParser) -> None:
    """The encoder and its adapters."""
    group = parser.add_argument_group("adapters")
    group.add_argument("--model-name", default="clip", help="the encoder, any whose image tower is a vision transformer")
    group.add_argument("--model-dir", type=Path, default=Path("ckpts"), help="folder of the checkpoints")
    group.add_argument("--bottleneck", type=positive_int, default=64, help="width of an adapter's middle")
    scale = "factor of an adapter's output" + _published("adapter_scale")
    group.add_argument("--adapter-scale", "--ffn-adapter-scalar", type=non_negative, help=scale)
    group.add_argument("--adapter-dropout", type=non_negative, help="in an adapter's middle" + _published("adapter_dropout"))


def add_fit_flags(parser: argparse.ArgumentParser) -> None:
    """The optimizer and how long it runs."""
    fit = parser.add_argument_group("optimisation (of --batch-size, below, the " + _published("batch_size").strip(" ()") + ")")
    fit.add_argument("--epochs", type=positive_int, help="epochs" + _published("epochs"))
    fit.add_argument("--lr", type=learning_rate, help="learning rate" + _published("lr"))
    fit.add_argument("--wd", "--weight-decay", type=non_negative, help="weight decay" + _published("wd"))
    fit.add_argument("--schedule", choices=("constant", "cosine", "linear"), help="of the learning rate" + _published("schedule"))
    fit.add_argument("--warmup", type=count, help="steps in which the learning rate rises to --lr" + _published("warmup"))
    fit.add_argument(
        "--preprocess",
        choices=PREPROCESS,
        default="own",
        help="mean and deviation of training images: the encoder's own, or those of the released code (supervised: none)",
    )


def add_keeping_flags(parser: argparse.ArgumentParser) -> None:
    """Which checkpoint is kept, stopping and going on."""
    keep = parser.add_argument_group("keeping")
    keep.add_argument("--keep", choices=KEEP, default="last", help="the last adapters, or those with the least overlap of all measured")
    keep.add_argument("--validate-every", type=positive_int, metavar="STEPS", help="measure that often besides at the end of each epoch")
    keep.add_argument("--attempt", default="", help="a word at the end of the files' names")
    earlier = keep.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on where an earlier attempt at this very run stopped")
    earlier.add_argument("--overwrite", action="store_true", help="start this run anew, dropping what an earlier one left")
    keep.add_argument("--save-minutes", type=non_negative, default=10, help="save an unfinished epoch that often")
    keep.add_argument("--log-with", choices=("tensorboard", "wandb"), help="also send the measures there")


def _published(option: str) -> str:
    """The published values of a flag, for its help: ``(default: 1; dino 100)``."""
    values = {name: getattr(entry if hasattr(entry, option) else entry.fit, option) for name, entry in OBJECTIVES.items()}
    usual = values["supervised"]
    others = "".join(f"; {name} {value}" for name, value in values.items() if value != usual)
    return f" (default: {usual}{others})"


def main() -> None:
    """Train as the command line says."""
    args = parse_arguments()
    request = make_request(args)
    from engine.runtime import start
    from fewshot.adapter_training import train_adapter

    runtime = start(args.device, args.precision, args.seed, args.log_with, args.model_dir)
    runtime.say(f"checkpoint: {train_adapter(runtime, request)}")
    runtime.close()


def make_request(args: argparse.Namespace) -> AdapterRequest:
    """What the command line asks for."""
    from engine.embed import LoadOptions
    from fewshot.adapter_training import AdapterRequest

    if args.oi_root and not args.images_path:
        raise UserError("--oi-root is the folder of the images that --images-path lists; give both, or --dataset.")
    refuse_flags_of_others(args)
    entry = OBJECTIVES[args.objective]
    typed = {each.name: getattr(args, each.name, None) for each in fields(AdapterFit)}
    fit = replace(entry.fit, **{name: value for name, value in typed.items() if value is not None})
    args.batch_size = fit.batch_size
    data = ("dataset", "images_path", "oi_root", "val_dataset", "val_p", "data_dir")
    same = (*data, "objective", "model_dir", "attempt", "resume", "overwrite")
    return AdapterRequest(
        model=args.model_name,
        tuning=tuning_options(args),
        fit=fit,
        options=entry.options_of(args),
        load=LoadOptions.of(args),
        **{name: getattr(args, name) for name in same},
    )


def refuse_flags_of_others(args: argparse.Namespace) -> None:
    """A flag of one objective that was given a value of its own is a mistake with another."""
    for entry in OBJECTIVES.values():
        options = None if entry.name == args.objective else entry.options_of(args)
        for each in [] if options is None else fields(options):
            if getattr(options, each.name) != each.default:
                flag = "--" + each.name.replace("_", "-")
                raise UserError(f"{flag} belongs to --objective {entry.name} and means nothing to '{args.objective}'; leave it out.")


def tuning_options(args: argparse.Namespace) -> TuningOptions:
    """The adapters' hyper-parameters: as typed, else as published for the objective."""
    from models.tuning_options import TuningOptions

    entry = OBJECTIVES[args.objective]
    scale = entry.adapter_scale if args.adapter_scale is None else args.adapter_scale
    dropout = entry.adapter_dropout if args.adapter_dropout is None else args.adapter_dropout
    return TuningOptions(bottleneck=args.bottleneck, adapter_scale=scale, adapter_dropout=dropout)


if __name__ == "__main__":
    run(main)
