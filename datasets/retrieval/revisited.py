"""``ROxford5k`` and ``RParis6k``: photographs of landmarks with the revisited ground truth.

Layout, as released at cmp.felk.cvut.cz/revisitop::

    roxford5k/gnd_roxford5k.pkl    {"imlist": [4993 names], "qimlist": [70 names], "gnd": [70 x {"bbx", "easy", "hard", "junk"}]}
    roxford5k/jpg/<name>.jpg
    rparis6k/...                   the same with 6322 names and 70 queries
    revisitop1m/revisitop1m.txt    optional: the million distractors, one file name below jpg/ in each line
    revisitop1m/jpg/<folder>/*

``easy``, ``hard`` and ``junk`` are positions in ``imlist``; ``bbx`` is left, top, right and bottom of the landmark in the query.
Protocols (Radenovic et al., Revisiting Oxford and Paris, CVPR 2018)::

    easy      positive: easy           junk: junk and hard
    medium    positive: easy and hard  junk: junk
    hard      positive: hard           junk: junk and easy

Some queries have no positives under a protocol. The protocol crops the queries (``crop``); Cross the Gap's numbers are for whole
ones, and for ``easy``. The pickle is read as data: nothing in it is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.image_files import ImageFiles
from datasets.places import find
from datasets.retrieval.collection import Collection
from datasets.retrieval.cropped import CroppedSamples
from datasets.retrieval.options import Options
from datasets.retrieval.relevance import Lists, Relevance
from datasets.retrieval.task import RetrievalTask
from datasets.task import read_lines

GRADES = ("easy", "hard", "junk")
PROTOCOLS = {"easy": (("easy",), ("junk", "hard")), "medium": (("easy", "hard"), ("junk",)), "hard": (("hard",), ("junk", "easy"))}
DISTRACTORS = "revisitop1m"

Judged = Mapping[str, NDArray[np.int64]]  # gallery indices by grade


def revisited_task(name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
    """See :class:`~datasets.retrieval.table.RetrievalSource`. Sample ids are paths relative to ``data_dir``."""
    folder = name.lower()
    path = find(name, data_dir, f"{folder}/gnd_{folder}.pkl")
    find(name, data_dir, f"{folder}/jpg")
    truth = _truth(path)
    query, gallery = ([f"{folder}/jpg/{each}.jpg" for each in truth[key]] for key in ("qimlist", "imlist"))
    distractors = _distractors(data_dir) if options.distractors else []
    images = _images(data_dir, query)
    return RetrievalTask(
        name + ("+1M" if options.distractors else "") + ("-cropped" if options.crop else ""),
        split,
        Collection(CroppedSamples(images, _boxes(path, truth)) if options.crop else images),
        Collection(_images(data_dir, gallery + distractors)),
        protocols([_judged(path, entry, len(gallery)) for entry in truth["gnd"]]),
    )


def protocols(queries: list[Judged]) -> dict[str, Relevance]:
    """The three ways of judging."""

    def lists(grades: tuple[str, ...]) -> Lists:
        return Lists.of([np.concatenate([judged[grade] for grade in grades]) for judged in queries])

    return {protocol: Relevance(lists(positives), lists(junk)) for protocol, (positives, junk) in PROTOCOLS.items()}


def _images(data_dir: Path, names: list[str]) -> ImageFiles:
    return ImageFiles.of(data_dir.expanduser(), [name.encode() for name in names])


def _truth(path: Path) -> dict[str, Any]:
    from datasets.plain_pickle import read_plain_pickle

    truth = read_plain_pickle(path)
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in ("gnd", "imlist", "qimlist")):
        raise UserError(f"'{path}' holds no lists 'gnd', 'imlist' and 'qimlist'; it is not the revisited ground truth.")
    if len(truth["gnd"]) != len(truth["qimlist"]):
        raise UserError(f"'{path}' names {len(truth['qimlist'])} queries but judges {len(truth['gnd'])}; get the file anew.")
    return truth


def _judged(path: Path, entry: Any, n_gallery: int) -> Judged:
    """One query's entry, after making sure that it says one thing about each image."""
    try:
        judged = {grade: np.asarray(entry[grade], dtype=np.int64).reshape(-1) for grade in GRADES}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' has a query without lists of its easy, hard and junk images; get the file anew.") from error
    together = np.concatenate(list(judged.values()))
    if len(together) and not 0 <= together.min() <= together.max() < n_gallery:
        raise UserError(f"'{path}' judges images that are not among its {n_gallery}; get the file anew.")
    if len(np.unique(together)) != len(together):
        raise UserError(f"'{path}' judges an image twice for one query; get the file anew.")
    return judged


def _boxes(path: Path, truth: Mapping[str, Any]) -> NDArray[np.float64]:
    try:
        boxes = np.array([entry["bbx"] for entry in truth["gnd"]], dtype=np.float64).reshape(-1, 4)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{path}' does not give the four sides of every query's box 'bbx', so queries cannot be cropped.") from error
    if (np.rint(boxes[:, :2]) >= np.rint(boxes[:, 2:])).any():
        raise UserError(f"'{path}' has a query whose box is empty, so queries cannot be cropped.")
    return boxes


def _distractors(data_dir: Path) -> list[str]:
    """The listed files, whatever else lies there: what is in the folder must not decide what is measured."""
    listed = read_lines(find(DISTRACTORS, data_dir, f"{DISTRACTORS}/{DISTRACTORS}.txt"))
    find(DISTRACTORS, data_dir, f"{DISTRACTORS}/jpg")
    return [f"{DISTRACTORS}/jpg/{name.removeprefix('jpg/')}" for name in listed]
