"""Accuracy of an encoder, as published or fine-tuned, on any number of data sets.

    python test.py --model-name tiny --eval-datasets Digits Shapes-Color
    python test.py --model-path ckpts/RUN_best.safetensors --eval-datasets Digits Shapes-Color
    python test.py --model-name clip --eval-datasets imagefolder:photos --template "a photo of a {c}"
    python test.py --model-name clip --eval-datasets DTD EuroSAT --prompts openai --corruption motion_blur --severity 3
    python test.py --model-name tiny --eval-datasets Digits --image-features oti

Without --model-path this is zero-shot classification: an image belongs to the class whose prompt's embedding is nearest.
With --image-features oti (made by oti.py) or --class-features ovi (made by ovi.py --use-class-names) it is the nearest by
inverted features.
One row per data set is added to --outfile as soon as it is finished, with a JSON of everything known about it beside the
table; earlier rows stay.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import add_data_arguments, add_model_arguments, add_run_arguments
from common.cli import Parser, run, tuning_flags
from datasets.arguments import add_corruption_arguments, load_asked
from inversion.zero_shot_flags import add_inverted_features, asked_sides, inverts

if TYPE_CHECKING:
    from datasets.task import Task
    from engine.evaluate import Evaluation
    from engine.runtime import Runtime
    from models.selection import Selection


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    add_model_arguments(parser)
    parser.add_argument("--eval-datasets", nargs="+", required=True, metavar="NAME", help="what to test on; imagefolder:PATH too")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="which part of them")
    parser.add_argument("--outfile", type=Path, default=Path("results/results.csv"), help="CSV table to add rows to")
    add_inverted_features(parser)
    add_data_arguments(parser, val_p=0.1)
    add_corruption_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Test as the command line says."""
    args = parse_arguments()
    inverts(args)  # refuses flags that contradict one another, before anything is loaded
    from engine.embed import LoadOptions, in_background
    from engine.evaluate import check_probe, evaluate
    from engine.results import check_recordable
    from engine.runtime import start
    from inversion.zero_shot import check_inversions, evaluate_inverted
    from models.selection import select_encoder

    check_recordable(args.outfile)
    tasks = [load_asked(args, name, args.split) for name in args.eval_datasets]
    runtime = start(args.device, args.precision, args.seed)
    selection = select_encoder(args.model_name, args.model_path, tuning_flags(args))
    for task in tasks:
        check_probe(selection.encoder, task)
    sides, options = asked_sides(args, selection.label), LoadOptions.of(args)
    if sides is not None:
        check_inversions(selection, tasks, *sides)
    runtime.say(f"{'data set':<28} {'images':>7} {'top-1':>7} {'per class':>9} {'seconds':>8}")
    for task in tasks:
        with in_background(lambda task=task: runtime.is_main and task.fingerprint):
            if sides is None:
                evaluation = evaluate(runtime, selection.encoder, task, options)
            else:
                evaluation = evaluate_inverted(runtime, selection, task, options, *sides)
        runtime.say(
            f"{task.name:<28} {evaluation.n_images:>7} {evaluation.top1:>7.4f} {evaluation.mean_per_class:>9.4f} {evaluation.seconds:>8.1f}"
        )
        say_worst_group(runtime, task, evaluation)
        if runtime.is_main:
            write_row(args.outfile, selection, task, evaluation, runtime, args)
    runtime.close()


def say_worst_group(runtime: Runtime, task: Task, evaluation: Evaluation) -> None:
    """A further line for data sets whose images are divided into groups, e.g. by region of the world."""
    if task.groups is not None and evaluation.groups:
        worst = min(evaluation.groups, key=evaluation.groups.__getitem__)
        images = evaluation.group_images[worst]
        runtime.say(f"  worst {task.groups.kind}: {worst} {evaluation.groups[worst]:.4f} ({images} image{'s' * (images != 1)})")


def write_row(outfile: Path, selection: Selection, task: Task, evaluation: Evaluation, runtime: Runtime, args: argparse.Namespace) -> None:
    """Put one evaluation on disk: its row, its JSON and, where there were any, the images that could not be read."""
    from common.provenance import now, versions
    from engine.results import record

    row: dict[str, Any] = {
        "model": selection.model,
        "tuning": selection.tuning,
        "checkpoint": selection.checkpoint,
        "dataset": task.name,
        "split": task.split,
        "n_images": evaluation.n_images,
        "top1": evaluation.top1,
        "mean_per_class": evaluation.mean_per_class,
        "seconds": round(evaluation.seconds, 3),
        "n_skipped": len(evaluation.skipped),
        "worst_group": "" if evaluation.worst_group is None else evaluation.worst_group,
        "precision": runtime.precision,
        "batch_size": args.batch_size,
        "templates": json.dumps(task.templates),
        "fingerprint": task.fingerprint,
        "checkpoint_sha256": selection.sha256,
        "created": now(),
        "versions": json.dumps(versions()),
    }
    details = details_of(selection, task, evaluation, runtime, args)
    if (sides := asked_sides(args, selection.label)) is not None:
        from inversion.zero_shot import columns_of, inversions_of

        row, details = row | columns_of(*sides), details | {"inversion": inversions_of(selection, task, *sides)}
    written = record(outfile, row, details, f"{selection.label}_{task.name.split('/')[-1]}_{task.split}")
    evaluation.skipped.write(written)


def details_of(selection: Selection, task: Task, evaluation: Evaluation, runtime: Runtime, args: argparse.Namespace) -> dict[str, Any]:
    """What the JSON of a row says besides the row."""
    from common.provenance import peak_memory_mib

    return {
        "classnames": task.classnames,
        "seed": args.seed,
        "decode": "full" if args.full_decode else "reduced",
        "device": str(runtime.device),
        "processes": runtime.world,
        "images_per_second": round(evaluation.n_images / evaluation.seconds, 2),
        "peak_memory_mib": peak_memory_mib(),
        "group_accuracies": evaluation.groups,
        "group_images": evaluation.group_images,
        "trained_on": selection.header.task if selection.header else None,
    }


if __name__ == "__main__":
    run(main)
