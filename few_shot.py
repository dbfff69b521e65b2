"""Few-shot classification: zero-shot, cache models with and without overlap correction, and trained references.

    python few_shot.py --list
    python few_shot.py --dataset Digits Shapes-Kind --model-name tiny --shots 1 4 16 --out results/tiny
    python few_shot.py --dataset Digits --adapter ckpts/ADAPTER.safetensors --methods zero_shot tip_adapter tip_adapter_corrected
    python few_shot.py --dataset imagefolder:photos --model-name clip --template "a photo of a {c}"
    python few_shot.py --config configs/few_shot/published.toml --data-dir data --adapter ckpts/ADAPTER.safetensors
    python few_shot.py --dataset ImageNet --shots 16 --transfer ImageNetV2 ImageNet-Sketch ImageNet-A ImageNet-R

Hyper-parameters are chosen on validation images, never on test images: min(K, 4) of each class as CoOp does, or as --val-shots
says. Where a data set's validation images are its test images (ImageNet@coop), further training images are held out for it.
Features are computed once and kept in --features. Each result is a JSON in --out; what is there is not done again.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from common.cli import run
from fewshot.arguments import parse_arguments

if TYPE_CHECKING:
    from datasets.task import Task
    from engine.runtime import Runtime
    from fewshot.cells import Request
    from fewshot.protocol import Splits


def main() -> None:
    """Classify as the command line says."""
    args = parse_arguments(__doc__)
    if args.list:
        from fewshot.choice import listing

        return print(listing())
    from common.files import ensure_folder
    from engine.embed import LoadOptions
    from engine.runtime import start
    from fewshot.choice import chosen_encoder, chosen_methods
    from fewshot.features import Towers
    from fewshot.overlap import measured
    from fewshot.run import run_data_set
    from fewshot.summary import summarise

    chosen_methods(args.methods, args.adapter)  # refuses unknown names before anything is loaded
    ensure_folder(args.out)
    sets, others = [load_splits(args, name) for name in args.dataset], load_others(args)
    runtime = start(args.device, args.precision, args.seeds[0])
    request = make_request(args, runtime)
    towers = Towers(runtime, chosen_encoder(args.model_name, args.adapter), LoadOptions.of(args), args.features)
    results, overlaps = [], []
    for splits in sets:
        say_held_out(runtime, splits)
        results += run_data_set(towers, splits, request, others)
        overlaps.append(measured(towers, splits.test, args.out))
    if runtime.is_main:
        if towers.skipped.entries:  # an earlier run has listed those of what is not looked at again
            towers.skipped.write(args.out / "few_shot")
        print(f"\n{summarise(args.out, results, overlaps)}")
    runtime.close()


def load_splits(args: argparse.Namespace, name: str) -> Splits:
    """The three splits of a data set, with the prompts that the flags ask for."""
    from datasets.arguments import load_asked
    from fewshot.protocol import Splits

    return Splits.of(*(load_asked(args, name, split) for split in ("train", "val", "test")))


def load_others(args: argparse.Namespace) -> list[Task]:
    """The test images of the data sets that are transferred to; of their prompts none is used."""
    from datasets.registry import load_task
    from fewshot.robustness import data_set

    return [load_task(data_set(name), "test", data_dir=args.data_dir) for name in args.transfer]


def make_request(args: argparse.Namespace, runtime: Runtime) -> Request:
    """What every data set is asked for."""
    from fewshot.cells import Request
    from fewshot.choice import chosen_methods
    from fewshot.options import FewShotOptions

    return Request(
        methods=chosen_methods(args.methods, args.adapter, runtime.world),
        shots=tuple(args.shots),
        seeds=tuple(args.seeds),
        order=args.order,
        val_shots=args.val_shots,
        views=args.views,
        options=FewShotOptions(args.search, args.grid, args.as_released, device=str(runtime.device)),
        out=args.out,
    )


def say_held_out(runtime: Runtime, splits: Splits) -> None:
    """Say where hyper-parameters are not chosen on the validation split."""
    from fewshot.protocol import HELD_OUT

    if splits.val is None:
        runtime.say(f"{splits.test.name}: hyper-parameters are chosen on min(K, 4) images of each class {HELD_OUT}.")


if __name__ == "__main__":
    run(main)
