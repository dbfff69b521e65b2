"""Retrieval: rank a gallery for each query, by native features, by those of an inversion, or by both.

    python retrieval.py --dataset-name Digits --model-name tiny --query image --gallery image
    python oti.py --dataset-name Digits --model-name tiny --exp-name tiny --snapshots 10 50
    python retrieval.py --dataset-name Digits --model-name tiny --query oti --query-exp-name tiny --gallery image --steps all
    python retrieval.py --dataset-name Digits --model-name tiny --query oti --query-exp-name tiny --gallery image --fuse 0.5
    python retrieval.py --dataset-name Digits --model-name tiny --query image --gallery image --project pca
    python retrieval.py --dataset-name COCO --model-name clip --query text --gallery image

image and text are the encoder's own features; oti are text-side features of images, ovi image-side features of texts, learnt
by oti.py and ovi.py. Each side is of any type that fits its items. A classification data set is searched as published: its test
images are the queries, its training images the gallery. One row per evaluation is added to --outfile, scores as percentages,
with a JSON of everything known about it beside the table; earlier rows stay. Native features are kept in --features.

--project pca and --project iso are fixed subspaces for native features. They cost nothing and are published as better than
inversion: compare with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from common.arguments import add_model_arguments, add_run_arguments, count
from common.cli import Parser, run, tuning_flags
from common.errors import UserError
from inversion.released_flags import add_released_model_flags, chosen_model

if TYPE_CHECKING:
    from datasets.retrieval.task import RetrievalTask
    from inversion.retrieval_rows import Asked
    from inversion.retrieve import Retrieval
    from inversion.sides import Features

TYPES = ("image", "text", "oti", "ovi")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    add_task_arguments(parser)
    add_side_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--outfile", type=Path, default=Path("results/retrieval.csv"), help="CSV table to add rows to")
    output.add_argument("--features", type=Path, default=Path("embeddings/retrieval"), metavar="FOLDER", help="where features are kept")
    output.add_argument("--figures", type=Path, metavar="FOLDER", help="draw histograms of similarities here, and curves over steps")
    add_model_arguments(parser)
    add_released_model_flags(parser)
    add_run_arguments(parser, batch_flag="--batch-size")
    return parser.parse_args()


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """What is searched."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset-name", required=True, metavar="NAME", help="a retrieval or classification data set; imagefolder:PATH too")
    group.add_argument("--data-dir", "--dataroot", type=Path, default=Path("data"), help="folder of the data sets")
    group.add_argument("--query-split", metavar="SPLIT", help="default: that of the published numbers")
    group.add_argument("--gallery-split", metavar="SPLIT", help="of a classification data set; that of the queries leaves each of them out")
    group.add_argument("--crop", action="store_true", help="ROxford5k, RParis6k: cut the queries to their landmarks, as the protocol says")
    group.add_argument("--distractors", action="store_true", help="ROxford5k, RParis6k: add the million of revisitop1m to the gallery")
    group.add_argument("--summaries", type=Path, metavar="FILE", help="texts in the place of long ones of the gallery")


def add_side_arguments(parser: argparse.ArgumentParser) -> None:
    """What queries and gallery are represented by."""
    group = parser.add_argument_group("sides")
    group.add_argument("--query", "--query-eval-type", choices=TYPES, required=True, help="what the queries are represented by")
    group.add_argument("--gallery", "--gallery-eval-type", choices=TYPES, required=True, help="what the gallery is represented by")
    group.add_argument("--query-exp-name", nargs="+", metavar="NAME", help="inversions of the queries (default: the model's)")
    group.add_argument("--gallery-exp-name", metavar="NAME", help="inversion of the gallery (default: the model's)")
    group.add_argument("--pseudo-tokens", type=Path, default=Path("pseudo_tokens"), metavar="FOLDER", help="where inversions lie")
    group.add_argument("--steps", nargs="+", metavar="N", help="recorded steps of the inversions, or all (default: the last)")
    group.add_argument("--oti-template-sentence", metavar="TEXT", help="checked only: pseudo-tokens know the sentence they were made with")
    group.add_argument("--fuse", nargs="+", type=float, metavar="WEIGHT", help="rank by (1 - WEIGHT) native + WEIGHT inverted similarity")
    group.add_argument("--project", choices=("pca", "iso"), help="native features in the subspace of PCA of texts, or of IsoCLIP")
    group.add_argument(
        "--drop-top", type=count, metavar="K", help="iso: leave out the K greatest singular directions (default: as published)"
    )
    group.add_argument("--drop-bottom", type=count, metavar="K", help="iso: leave out the K least")


def main() -> None:
    """Evaluate as the command line says."""
    args = parse_arguments()
    check_flags(args)
    from engine.embed import LoadOptions
    from engine.results import check_recordable
    from engine.runtime import start
    from inversion.sides import Features
    from models.selection import select_encoder

    check_recordable(args.outfile)
    task, gallery_split = load_asked_task(args)
    runtime = start(args.device, args.precision, args.seed)
    selection = select_encoder(chosen_model(args), args.model_path, tuning_flags(args))
    features = Features(runtime, selection, LoadOptions.of(args), args.features)
    runtime.say(f"{task.name} {task.split}: {len(task.query)} queries, {len(task.gallery)} in the gallery")
    done: list[tuple[Asked, Retrieval]] = []
    for asked in evaluations(features, task, args):
        found = asked.evaluate(features, task)
        say(features, asked, found, first=not done)
        if runtime.is_main:
            write_row(features, task, asked, found, gallery_split, args.outfile)
        done.append((asked, found))
    if args.figures is not None:
        from inversion.retrieval_figures import draw_evaluations

        for path in draw_evaluations(features, task, done, args.figures):
            runtime.say(f"drawn: {path}")
    runtime.close()


def check_flags(args: argparse.Namespace) -> None:
    """Refuse what contradicts itself before anything is loaded."""
    for role in ("query", "gallery"):
        if getattr(args, f"{role}_exp_name") and getattr(args, role) not in ("oti", "ovi"):
            raise UserError(
                f"--{role}-exp-name names an inversion, but --{role} is {getattr(args, role)}; use oti or ovi, or leave it out."
            )
    if args.project is None and (args.drop_top is not None or args.drop_bottom is not None):
        raise UserError("--drop-top and --drop-bottom belong to --project iso; add it, or leave them out.")
    if args.max_skipped:
        raise UserError("Items are judged by their positions, so no image can be left out; leave --max-skipped at 0.")


def load_asked_task(args: argparse.Namespace) -> tuple[RetrievalTask, str]:
    """The task, and the split that its gallery comes from."""
    from datasets.retrieval.classification import GALLERY_SPLIT
    from datasets.retrieval.options import Options
    from datasets.retrieval.released_names import dataset_name, split_and_side
    from datasets.retrieval.table import RETRIEVAL, load_retrieval

    name = dataset_name(args.dataset_name)
    split, gallery_split = (split_and_side(getattr(args, f"{side}_split") or "", side)[0] for side in ("query", "gallery"))
    if name in RETRIEVAL:
        if split is not None and gallery_split not in (None, split):
            raise UserError(
                f"{name} has a gallery for each of its splits; give --gallery-split {gallery_split} that of the queries, {split}."
            )
        split, gallery_split = split or gallery_split, None
    items = {"image": "image", "oti": "image", "text": "text", "ovi": "text"}
    options = Options(items[args.query], items[args.gallery], gallery_split, args.crop, args.distractors, args.summaries)
    task = load_retrieval(name, split, args.data_dir, options)
    return task, task.split if name in RETRIEVAL else gallery_split or GALLERY_SPLIT


def evaluations(features: Features, task: RetrievalTask, args: argparse.Namespace) -> Iterator[Asked]:
    """Every combination of experiments, recorded steps and weights that was asked for."""
    from inversion.baselines import Projection
    from inversion.retrieval_rows import FINAL, Asked, at_steps, check_template
    from inversion.sides import Side

    steps = ",".join(args.steps or [FINAL]).split(",")  # with blanks or commas between them, as oti.py --snapshots takes them
    projection = Projection(args.project, args.drop_top, args.drop_bottom) if args.project else None
    own = features.selection.label  # what oti.py and ovi.py call an inversion that is not given a name
    gallery = Side(args.gallery, args.gallery_exp_name or own, outfolder=args.pseudo_tokens)
    for exp_name in args.query_exp_name or [own]:
        query = Side(args.query, exp_name, outfolder=args.pseudo_tokens)
        for side, role in ((query, "query"), (gallery, "gallery")):
            if side.type == "oti":
                check_template(features.pseudo_tokens(side, task, role), args.oti_template_sentence)
        for weight in args.fuse or [None]:
            yield from at_steps(features, task, Asked(query, gallery, weight, projection), steps)


def say(features: Features, asked: Asked, found: Retrieval, *, first: bool) -> None:
    """The scores of one evaluation, a line for each protocol; a heading before the first."""
    from inversion.retrieval_rows import heading, lines

    if first:
        features.runtime.say(heading(found))
    for line in lines(asked, found):
        features.runtime.say(line)


def write_row(features: Features, task: RetrievalTask, asked: Asked, found: Retrieval, gallery_split: str, outfile: Path) -> None:
    """Put one evaluation on disk: its row and its JSON."""
    from datasets.registry import task_slug
    from engine.results import record
    from inversion.retrieval_rows import details_of, row_of

    row = row_of(features, task, asked, found, gallery_split)
    name = f"{features.selection.label}_{task_slug(task.name)}_{task.split}_{asked.query.type}_{asked.gallery.type}"
    record(outfile, row, details_of(features, task, asked, found), name)


if __name__ == "__main__":
    run(main)
