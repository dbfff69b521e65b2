"""Damaged retrieval data sets: a task that was given has queries, a gallery, and only items of the gallery that count."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from datasets.retrieval.options import Options
from datasets.retrieval.table import load_retrieval
from datasets.retrieval.task import RetrievalTask
from tests.datasets.retrieval.test_caption_sets import write_coco, write_flickr, write_nocaps
from tests.datasets.retrieval.test_image_sets import write_oxford, write_products
from tests.datasets.retrieval.test_text_sets import write_messages, write_nano, write_reviews, write_summaries
from tests.datasets.sources.listed_copies import COPIES
from tests.faults.damage import Reader, attack, files_in, time_limit
from tests.faults.scale import times

IMAGES = (".jpg", ".jpeg", ".png")


def searchable(task: RetrievalTask) -> None:
    """Items can be named, and what is relevant or ignored is in the gallery."""
    with time_limit():
        assert len(task.query) > 0
        assert len(task.gallery) > 0
        assert len(task.fingerprint) == 64
        for relevance in task.protocols.values():
            assert len(relevance) == len(task.query)
            for lists in filter(None, (relevance.positives, relevance.junk)):
                used = [index for query in range(len(lists)) for index in lists[query].tolist()]
                assert all(0 <= index < len(task.gallery) for index in used)


def of_retrieval(folder: Path, name: str, options: Options | None = None, split: str | None = None) -> Reader:
    """Load the task ``name``; its lists are damaged, not its images. A path in ``options`` is within the folder."""
    files = files_in(folder)
    lists = tuple(file for file in files if Path(file).suffix.lower() not in IMAGES)
    names = (name, *(part for file in files for part in Path(file).with_suffix("").parts))

    def read(at: Path) -> RetrievalTask:
        summaries = at / options.summaries if options and options.summaries else None
        asked = options if options is None or summaries is None else Options(summaries=summaries)
        return load_retrieval(name, split, at, asked)

    return Reader(files, read, searchable, lists, names=names)


def coco(folder: Path, light: bool, query: str) -> Reader:
    write_coco(folder, light)
    return of_retrieval(folder, "COCO", Options(query, "text"))


def flickr(folder: Path, split: str) -> Reader:
    write_flickr(folder)
    return of_retrieval(folder, "Flickr30k", split=split)


def nocaps(folder: Path) -> Reader:
    write_nocaps(folder)
    return of_retrieval(folder, "nocaps")


def cub(folder: Path) -> Reader:
    COPIES["CUB"].write(folder)
    return of_retrieval(folder, "CUB")


def products(folder: Path) -> Reader:
    write_products(folder)
    return of_retrieval(folder, "SOP", split="all")


def oxford(folder: Path, crop: bool) -> Reader:
    write_oxford(folder)
    return of_retrieval(folder, "ROxford5k", Options(crop=crop))


def reviews(folder: Path) -> Reader:
    write_reviews(folder)
    return of_retrieval(folder, "IMDB")


def summaries(folder: Path, suffix: str) -> Reader:
    write_reviews(folder)
    write_summaries(folder / f"short{suffix}", {"0": 'Watch "it".', "1": "Stunning.", "2": "Zombies, bad."})
    return of_retrieval(folder, "IMDB", Options(summaries=Path(f"short{suffix}")))


def messages(folder: Path) -> Reader:
    write_messages(folder)
    return of_retrieval(folder, "20Newsgroups")


def nano(folder: Path) -> Reader:
    write_nano(folder)
    return of_retrieval(folder, "NanoNFCorpus")


KINDS: dict[str, Callable[[Path], Reader]] = {
    "coco": partial(coco, light=False, query="image"),
    "coco_light": partial(coco, light=True, query="text"),
    "flickr": partial(flickr, split="val"),
    "flickr_all": partial(flickr, split="all"),
    "nocaps": nocaps,
    "cub": cub,
    "products": products,
    "oxford": partial(oxford, crop=False),
    "oxford_cropped": partial(oxford, crop=True),
    "reviews": reviews,
    "summaries_csv": partial(summaries, suffix=".csv"),
    "summaries_json": partial(summaries, suffix=".json"),
    "messages": messages,
    "nano": nano,
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_retrieval_sets(kind: str, tmp_path: Path) -> None:
    attack(KINDS[kind](tmp_path), times(10, 300))
