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

from common.arguments import add_data_arguments, add_run_arguments, add_tuning_arguments, count, non_negative, positive_int
from common.cli import Parser, run
from common.errors import UserError


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
    from datasets.registry import read_templates
    from engine.embed import LoadOptions
    from engine.fit import FitOptions
    from engine.runtime import start
    from engine.training import TrainRequest, train
    from models.selection import DEFAULT_MODEL
    from models.tuning_options import TUNING_NAMES, TuningOptions

    tuning = args.model_name if args.model_name in TUNING_NAMES else "full"
    if args.model_name not in TUNING_NAMES and args.base_model not in (None, args.model_name):
        raise UserError(f"--model-name {args.model_name} is an encoder, so --base-model {args.base_model} contradicts it; leave one out.")
    request = TrainRequest(
        dataset=args.dataset,
        model=(args.base_model or DEFAULT_MODEL) if args.model_name in TUNING_NAMES else args.model_name,
        tuning=tuning,
        options=TuningOptions(
            rank=args.rank,
            lora_scale=args.lora_scale,
            lora_mlp=args.lora_mlp,
            train_blocks=args.train_blocks,
            reduction=args.reduction,
            adapter_ratio=args.adapter_ratio,
            probe_init=args.probe_init,
        ),
        fit=FitOptions(
            epochs=args.nepochs,
            lr=args.lr,
            wd=args.wd,
            optimizer=args.optimizer,
            schedule=args.schedule,
            warmup=args.warmup,
            clip_norm=args.clip_norm,
            save_minutes=args.save_minutes,
            progress=args.progress,
        ),
        load=LoadOptions(args.batch_size, args.num_workers, args.max_skipped, args.progress),
        accumulate=args.accumulate,
        augment=args.augment,
        val_p=args.val_p,
        templates=read_templates(args.template),
        data_dir=args.data_dir,
        model_dir=args.model_dir,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    runtime = start(args.device, args.precision, args.seed, args.log_with, args.model_dir)
    files = train(runtime, request)
    runtime.say(f"best checkpoint: {files.best}")
    runtime.close()


if __name__ == "__main__":
    run(main)
