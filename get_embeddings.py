"""Embed data sets: every image and every class as a unit vector, in one file per data set.

    python get_embeddings.py --datasets Digits Shapes-Color --model-name tiny
    python get_embeddings.py --datasets imagefolder:photos --model-path ckpts/RUN_best.safetensors --split test

Writes OUTFOLDER/MODEL/DATASET_SPLIT.safetensors (and the sample ids beside it), which get_metric_scores.py reads. A file
that is there already is kept, unless --overwrite is given; MODEL is the checkpoint's name where there is one.

    python get_embeddings.py --datasets Digits --model-name tiny --measure iimm gap hscore

With --measure nothing is written but rows of the table that get_metric_scores.py adds to: measures that are sums over images are
taken on the way, in any number of processes. With --keep-embeddings the files are written too, and every measure can be taken.

    python get_embeddings.py --datasets ImageNet --model-name clip --parts 16
    python get_embeddings.py --datasets ImageNet --model-name clip --parts 16 --part 3 4

With --parts N the data set is cut into N parts of its order, each a file DATASET_SPLIT.part-00003-of-00016.safetensors that is there
as soon as it is done: a run that was killed goes on with those that are missing, and jobs or processes (torchrun, srun,
slurm/embed_array.sbatch) make different ones without talking. All commands read them by the name DATASET_SPLIT.safetensors.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.arguments import add_data_arguments, add_model_arguments, add_run_arguments, positive_int
from common.cli import Parser, run, tuning_flags
from datasets.arguments import add_corruption_arguments, load_asked

if TYPE_CHECKING:
    from datasets.task import Task
    from engine.embed import LoadOptions
    from engine.runtime import Runtime
    from models.selection import Selection


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--datasets", nargs="+", required=True, metavar="NAME", help="what to embed; imagefolder:PATH too")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="which part of them")
    add_model_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--outfolder", type=Path, default=Path("embeddings"), help="folder of the embeddings files")
    output.add_argument("--format", choices=("safetensors", "csv"), default="safetensors", help="csv: the pair of the released IIMM code")
    output.add_argument("--overwrite", action="store_true", help="make files anew that are there already")
    parts = parser.add_argument_group("parts")
    parts.add_argument("--parts", type=positive_int, metavar="N", help="write N files, each of one part of the images")
    parts.add_argument("--part", nargs="+", type=positive_int, metavar="K", help="make only these parts, from 1 to N (default: all)")
    parts.add_argument("--join", action="store_true", help="then write the one file, as a run without --parts does")
    measures = parser.add_argument_group("measures")
    measures.add_argument(
        "--measure", nargs="+", metavar="NAME", help="measure instead of writing embeddings; get_metric_scores.py --help lists the names"
    )
    measures.add_argument("--measure-outpath", type=Path, default=Path("metric_scores.csv"), help="table to which their rows are added")
    measures.add_argument("--keep-embeddings", action="store_true", help="with --measure: write the embeddings too")
    add_data_arguments(parser, val_p=0.01)
    add_corruption_arguments(parser)
    add_run_arguments(parser, batch_flag="--batch-size")
    return parser.parse_args()


def main() -> None:
    """Embed or measure as the command line says."""
    args = parse_arguments()
    check_measures(args)
    check_parts(args)
    from engine.embed import LoadOptions
    from engine.runtime import start
    from models.selection import select_encoder

    tasks = [load_asked(args, name, args.split) for name in args.datasets]
    runtime = start(args.device, args.precision, args.seed)
    selection = select_encoder(args.model_name, args.model_path, tuning_flags(args))
    options = LoadOptions.of(args)
    work = embed_parts if args.parts else measure_tasks if args.measure and not args.keep_embeddings else embed_tasks
    work(runtime, selection, tasks, options, args)
    runtime.close()


def check_measures(args: argparse.Namespace) -> None:
    """All that can be told of the measures before there are embeddings."""
    from common.errors import UserError, unknown_name

    if args.keep_embeddings and not args.measure:
        raise UserError("--keep-embeddings says what to do besides measuring; name measures with --measure, or leave it out.")
    if not args.measure:
        return
    from common.files import check_appendable
    from metrics.table import BY_ANY_NAME

    check_appendable(args.measure_outpath)
    for name in args.measure:
        if name not in BY_ANY_NAME:
            raise unknown_name("metric", name, BY_ANY_NAME)
    if not args.keep_embeddings:
        from engine.streaming import check_names

        check_names(args.measure)


def check_parts(args: argparse.Namespace) -> None:
    """Flags of parts that say nothing without others, or contradict them."""
    from common.errors import UserError

    if not args.parts:
        if args.part or args.join:
            raise UserError(f"--{'part' if args.part else 'join'} needs --parts N, in how many parts the data set is cut.")
        return
    if wrong := [number for number in args.part or () if number > args.parts]:
        raise UserError(f"--part {wrong[0]} is not one of the --parts {args.parts}; they are numbered from 1.")
    if args.join and args.part:
        raise UserError("--join needs all parts; leave --part out, and those that are there are kept.")
    if args.format == "csv":
        raise UserError("CSV files are not written in parts; leave --format or --parts out.")
    if args.measure:
        raise UserError("--measure takes the whole data set; with --parts, measure the files afterwards with get_metric_scores.py.")


def embed_tasks(runtime: Runtime, selection: Selection, tasks: list[Task], options: LoadOptions, args: argparse.Namespace) -> None:
    """Write the file of each task, or keep the one that is there; measure it where that is asked for."""
    from common.files import ensure_folder
    from datasets.registry import task_slug
    from engine.embeddings import embeddings_path

    folder = ensure_folder(args.outfolder / selection.label)
    paths = {embeddings_path(folder / f"{task_slug(task.name)}_{task.split}", args.format): task for task in tasks}
    kept = {path for path in paths if path.exists() and not args.overwrite}  # asked once: soon the main process adds files
    for path, task in paths.items():
        if path in kept:
            runtime.say(f"kept {path}{differences(path, selection, task, options)} (--overwrite makes it anew)")
        else:
            embed(runtime, selection, task, options, path, args.format)
        if args.measure and runtime.is_main:
            measure_file(path, args)


def embed_parts(runtime: Runtime, selection: Selection, tasks: list[Task], options: LoadOptions, args: argparse.Namespace) -> None:
    """Write the parts of each task that are not there, every process its share of them, and join them where that is asked for."""
    from common.errors import UserError
    from common.files import ensure_folder
    from datasets.registry import task_slug
    from engine.embed_parts import TaskInParts, join
    from engine.embedding_parts import parts_beside
    from engine.embeddings import embeddings_path

    if args.join and runtime.world > 1:
        raise UserError("--join is for one process, since several do not wait for one another; make the parts first, then join them.")
    folder = ensure_folder(args.outfolder / selection.label)
    for task in {task.name: task for task in tasks}.values():
        main = embeddings_path(folder / f"{task_slug(task.name)}_{task.split}", "safetensors")
        if args.join and main.exists() and not args.overwrite:
            runtime.say(f"kept {main}{differences(main, selection, task, options)} (--overwrite makes it anew)")
            continue
        parts = TaskInParts(runtime, selection, task, options, main, args.parts)
        for number in sorted({*(args.part or range(1, args.parts + 1))})[runtime.rank :: runtime.world]:
            print(parts.make(number, args.overwrite), flush=True)
        if args.join:
            print(f"{main}: {len(join(main, options.max_skipped).labels)} images of {args.parts} parts", flush=True)
        else:
            runtime.say(f"{main}: {len(parts_beside(main))} of {args.parts} parts are there")


def measure_tasks(runtime: Runtime, selection: Selection, tasks: list[Task], options: LoadOptions, args: argparse.Namespace) -> None:
    """Measure each task in one pass that leaves no embeddings."""
    from common.errors import UserError
    from datasets.registry import task_slug
    from engine.scores import provenance
    from engine.streaming import stream_measures

    failed = []
    for task in {task.name: task for task in tasks}.values():
        of = stream_measures(runtime, selection, task, options, args.measure)
        failed += [f"{name} of {task.name} {task.split}: {why}" for name, why in of.undefined.items()]
        if runtime.is_main:
            of.skipped.write(args.measure_outpath.with_name(f"{args.measure_outpath.name}.{task_slug(task.name)}_{task.split}"))
            common = provenance(of.metadata, n_images=of.n_images, n_classes=len(task.classnames), seed=args.seed)
            report([common | {"measure": name, "score": value, "seconds": ""} for name, value in of.scores.items()], args)
    if failed:
        raise UserError("; ".join(failed))


def measure_file(path: Path, args: argparse.Namespace) -> None:
    """Measure embeddings that were written or kept, as get_metric_scores.py does."""
    from common.errors import UserError
    from engine.embeddings import load_embeddings
    from engine.scores import provenance, sample_of, score
    from metrics.statistics import MetricError

    of = load_embeddings(path)
    common = provenance(of.metadata, n_images=len(of.labels), n_classes=len(of.text_embeddings), seed=args.seed, file=path)
    try:
        scores = score(sample_of(of, args.seed), args.measure)
    except MetricError as error:
        raise UserError(f"'{path}' cannot be measured: {error}") from error
    report([common | row for row in scores], args)


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print the scores of one task, and add their rows to the table."""
    from engine.scores import add_scores

    for row in rows:
        print(f"{row['data']} {row['split']}  {row['measure']:20}  {row['score']:10.6f}  ({row['n_images']} images)")
    added = add_scores(args.measure_outpath, rows)
    print(f"Rows added to {args.measure_outpath}: {added}; already there: {len(rows) - added}.", flush=True)


def differences(path: Path, selection: Selection, task: Task, options: LoadOptions) -> str:
    """In what the file that is kept differs from the one that was asked for, as words to add; nothing when in nothing."""
    import json

    from engine.embeddings import read_metadata

    kept = read_metadata(path)
    asked = {
        "weights": (kept.get("checkpoint_sha256"), selection.sha256),
        "prompts": (kept.get("templates"), json.dumps(list(task.templates), ensure_ascii=False)),
        "images": (kept.get("fingerprint"), task.fingerprint),
        "decoding": (kept.get("decode", options.decode), options.decode),
    }
    others = [what for what, (of_kept, of_asked) in asked.items() if of_kept != of_asked]
    return f", made from OTHER {' and '.join(others)}" if others else ""


def embed(runtime: Runtime, selection: Selection, task: Task, options: LoadOptions, path: Path, file_format: str) -> None:
    """Embed one task and write its file."""
    from engine.embed import embed_task

    embeddings, skipped = embed_task(runtime, selection, task, options)
    if not runtime.is_main:
        return
    from engine.embeddings import save_embeddings

    skipped.write(path)
    save_embeddings(path, embeddings, format=file_format)  # type: ignore[arg-type]
    n, seconds = len(embeddings.labels), float(embeddings.metadata["embedding_seconds"])
    runtime.say(f"{path}: {n} images, {len(task.classnames)} classes, {seconds:.1f} s, {n / seconds:.0f} images/s")


if __name__ == "__main__":
    run(main)
