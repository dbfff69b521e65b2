"""Embed data sets: every image and every class as a unit vector, in one file per data set.

    python get_embeddings.py --datasets Digits Shapes-Color --model-name tiny
    python get_embeddings.py --datasets imagefolder:photos --model-path ckpts/RUN_best.safetensors --split test

Writes OUTFOLDER/MODEL/DATASET_SPLIT.safetensors (and the sample ids beside it), which get_metric_scores.py reads. A file
that is there already is kept, unless --overwrite is given; MODEL is the checkpoint's name where there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_data_arguments, add_model_arguments, add_run_arguments
from common.cli import Parser, run, tuning_flags

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
    add_data_arguments(parser, val_p=0.01)
    add_run_arguments(parser, batch_flag="--batch-size")
    return parser.parse_args()


def main() -> None:
    """Embed as the command line says."""
    args = parse_arguments()
    from common.files import ensure_folder
    from datasets.registry import load_task, read_templates, task_slug
    from engine.embed import LoadOptions
    from engine.embeddings import embeddings_path
    from engine.runtime import start
    from models.selection import select_encoder

    templates = read_templates(args.template)
    tasks = [load_task(name, args.split, data_dir=args.data_dir, val_p=args.val_p, templates=templates) for name in args.datasets]
    runtime = start(args.device, args.precision, args.seed)
    selection = select_encoder(args.model_name, args.model_path, tuning_flags(args))
    folder = ensure_folder(args.outfolder / selection.label)
    options = LoadOptions(args.batch_size, args.num_workers, args.max_skipped, args.progress)
    paths = {embeddings_path(folder / f"{task_slug(task.name)}_{task.split}", args.format): task for task in tasks}
    kept = {path for path in paths if path.exists() and not args.overwrite}  # asked once: soon the main process adds files
    for path, task in paths.items():
        if path in kept:
            runtime.say(f"kept {path}{differences(path, selection, task)} (--overwrite makes it anew)")
        else:
            embed(runtime, selection, task, options, path, args.format)
    runtime.close()


def differences(path: Path, selection: Selection, task: Task) -> str:
    """In what the file that is kept differs from the one that was asked for, as words to add; nothing when in nothing."""
    import json

    from engine.embeddings import read_metadata

    kept = read_metadata(path)
    asked = {
        "weights": (kept.get("checkpoint_sha256"), selection.sha256),
        "prompts": (kept.get("templates"), json.dumps(list(task.templates), ensure_ascii=False)),
        "images": (kept.get("fingerprint"), task.fingerprint),
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
