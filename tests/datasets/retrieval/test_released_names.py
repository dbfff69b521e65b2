"""Names of the released code of Cross the Gap: each means a task that is here, with the paper's splits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.errors import UserError
from datasets.registry import SOURCES, checked_name
from datasets.retrieval.classification import GALLERY_SPLIT
from datasets.retrieval.released_names import RELEASED, dataset_name, paper_task, split_and_side
from datasets.retrieval.table import CLASSIFICATION, RETRIEVAL
from tests.helpers import ROOT

PAPER = """cub2011 sop roxford5k rparis6k caltech101 dtd eurosat fgvc_aircraft food101 imagenet oxford_flowers oxford_pets stanford_cars
sun397 ucf101 coco_text flickr30k_text nocaps_text imdb_text newsgroup_text nanoclimatefever nanodbpedia nanofever nanonfcorpus nanonq
nanoscidocs nanoscifact"""


def test_every_released_name_is_known_and_none_is_one_of_ours() -> None:
    assert sorted(RELEASED) == sorted(PAPER.split())
    assert not RELEASED.keys() & (RETRIEVAL.keys() | SOURCES.keys())


@pytest.mark.parametrize("released", RELEASED)
def test_a_released_name_is_a_task_with_the_papers_splits_as_defaults(released: str) -> None:
    task = RELEASED[released]
    source = RETRIEVAL.get(task.name, CLASSIFICATION)
    if source is CLASSIFICATION:
        parts = checked_name(task.name)
        assert task.name == f"{parts.base}@coop"
        assert "coop" in SOURCES[parts.base]
        assert task.gallery_split == GALLERY_SPLIT
    assert task.modality == source.modalities[0]
    assert task.split == source.splits[0]
    assert (source is CLASSIFICATION) == (task.gallery_split is not None)


def test_there_are_fifteen_sets_of_images_of_which_eleven_are_those_of_coop() -> None:
    images = [task for task in RELEASED.values() if task.modality == "image"]
    assert len(images) == 15
    assert sum(task.name.endswith("@coop") for task in images) == 11


def test_names_are_translated_or_pass_through() -> None:
    assert dataset_name("stanford_cars") == "Cars@coop"
    assert dataset_name("oxford_flowers") == "Flowers102@coop"
    assert dataset_name("nanonq") == "NanoNQ"
    for ours in ("Cars", "DTD@paper", "NanoNQ", "imagefolder:photos", "Carz"):
        assert dataset_name(ours) == ours
        assert paper_task(ours) is None


@pytest.mark.parametrize(
    ("split", "side", "meant"),
    [
        ("test_query", None, ("test", "query")),
        ("val_gallery", None, ("val", "gallery")),
        ("query", None, (None, "query")),
        ("gallery", "gallery", (None, "gallery")),
        ("all", "gallery", ("all", "gallery")),
        ("test", None, ("test", "query")),
        ("", "gallery", (None, "gallery")),
        ("all_query", "query", ("all", "query")),
    ],
)
def test_splits(split: str, side: str | None, meant: tuple[str | None, str]) -> None:
    assert split_and_side(split, side) == meant  # type: ignore[arg-type]


def test_a_split_of_the_other_side() -> None:
    with pytest.raises(UserError, match="The split 'test_query' is that of the query, but the gallery is asked for; write 'test' alone"):
        split_and_side("test_query", side="gallery")
    with pytest.raises(UserError, match="The split 'gallery' is that of the gallery, but the query is asked for; leave it out"):
        split_and_side("gallery", side="query")


def test_nothing_large_is_imported() -> None:
    code = "import sys, datasets.retrieval.released_names; sys.exit(bool({'torch', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
