"""Search with what was just inverted: does it find more than the native features do?"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from datasets.registry import task_slug
from datasets.retrieval.classification import GALLERY_SPLIT
from datasets.retrieval.table import RETRIEVAL
from engine.embed import LoadOptions
from engine.results import record
from engine.runtime import Runtime
from inversion.items import Items
from inversion.retrieval_rows import ALL, Asked, at_steps, details_of, heading, lines, row_of
from inversion.sides import Features, Side
from models.selection import Selection


def validate(runtime: Runtime, selection: Selection, items: Items, kind: str, exp_name: str, args: Namespace) -> None:
    """Print the scores of native features, then of the inversion after each recorded step, and add them to ``args.outfile``.

    The task is the one that was inverted: the same split, the inversion on its own side, native features on the other one. The
    template is that of the pseudo-tokens.
    """
    assert items.task is not None
    features = Features(runtime, selection, LoadOptions.of(args), args.features)
    gallery_split = items.task.split if items.name in RETRIEVAL else args.gallery_split or GALLERY_SPLIT
    for number, asked in enumerate(_evaluations(features, items, Side(kind, exp_name, outfolder=args.outfolder))):
        found = asked.evaluate(features, items.task)
        for line in ([] if number else [heading(found)]) + list(lines(asked, found)):
            runtime.say(line)
        if runtime.is_main:
            name = f"{selection.label}_{task_slug(items.name)}_{items.split}_{asked.query.type}_{asked.gallery.type}"
            row = row_of(features, items.task, asked, found, gallery_split)
            record(args.outfile, row, details_of(features, items.task, asked, found), name)


def _evaluations(features: Features, items: Items, inverted: Side) -> Iterator[Asked]:
    assert items.task is not None
    native = Asked(Side(items.task.query.modality), Side(items.task.gallery.modality))
    yield native
    asked = Asked(inverted, native.gallery) if items.side == "query" else Asked(native.query, inverted)
    yield from at_steps(features, items.task, asked, [ALL])
