"""Retrieval tasks by name.

To add one, write one small file with a function that returns a :class:`~datasets.retrieval.task.RetrievalTask`, and add one
line to :data:`RETRIEVAL`. Nothing is imported before a task is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError, unknown_name
from datasets.naming import parse_name
from datasets.registry import SOURCES
from datasets.retrieval.options import Options

if TYPE_CHECKING:
    from datasets.retrieval.task import RetrievalTask


@dataclass(frozen=True)
class RetrievalSource:
    """Where a retrieval task comes from: ``module:function``, below ``datasets.retrieval``.

    The function takes (name, split, data_dir, options); in ``options``, ``query`` and ``gallery`` are never None.
    """

    function: str
    splits: tuple[str, ...]  # the published one first: it is the default
    modalities: tuple[str, ...]  # the published one first
    options: tuple[str, ...] = ()  # those of Options that it knows, besides query and gallery

    def load(self, name: str, split: str, data_dir: Path, options: Options) -> RetrievalTask:
        """One split of it."""
        module, _, function = self.function.partition(":")
        load: Callable[..., RetrievalTask] = getattr(import_module(f"datasets.retrieval.{module}"), function)
        return load(name, split, data_dir, options)


_IMAGE, _TEXT, _BOTH = ("image",), ("text",), ("text", "image")
_REVISITED = RetrievalSource("revisited:revisited_task", ("test",), _IMAGE, ("crop", "distractors"))
_NANO = RetrievalSource("nanobeir:nanobeir_task", ("test",), _TEXT, ("summaries",))
_NANO_SETS = ("ClimateFEVER", "DBPedia", "FEVER", "NFCorpus", "NQ", "SCIDOCS", "SciFact")

RETRIEVAL: dict[str, RetrievalSource] = {
    "CUB": RetrievalSource("cub:cub_task", ("all", "train", "test"), _IMAGE),
    "SOP": RetrievalSource("sop:sop_task", ("test", "train", "all"), _IMAGE),
    "ROxford5k": _REVISITED,
    "RParis6k": _REVISITED,
    "COCO": RetrievalSource("coco:coco_task", ("test", "val", "train"), _BOTH),
    "Flickr30k": RetrievalSource("flickr30k:flickr30k_task", ("val", "test", "train", "all"), _BOTH),
    "nocaps": RetrievalSource("nocaps:nocaps_task", ("val",), _BOTH),
    "IMDB": RetrievalSource("imdb:imdb_task", ("all",), _TEXT, ("summaries",)),
    "20Newsgroups": RetrievalSource("newsgroups:newsgroups_task", ("test", "train"), _TEXT, ("summaries",)),
    **{f"Nano{name}": _NANO for name in _NANO_SETS},
    "Shapes-Captions": RetrievalSource("drawn_captions:drawn_captions_task", ("test", "train"), _BOTH),
}
CLASSIFICATION = RetrievalSource("classification:classification_task", ("test", "val", "train"), ("image", "text"), ("gallery_split",))


def retrieval_names() -> list[str]:
    """All fixed names: the retrieval data sets, then the classification data sets, every one of which serves too."""
    return [*RETRIEVAL, *(name for name in SOURCES if name not in RETRIEVAL)]


def load_retrieval(name: str, split: str | None = None, data_dir: Path = Path("./data"), options: Options | None = None) -> RetrievalTask:
    """The retrieval task ``name``; without ``split``, the one that published numbers are for.

    ``name`` is one of :data:`RETRIEVAL`, or any name that :func:`datasets.registry.load_task` takes. ``CUB`` is the retrieval
    task with its 11,788 images; ``CUB@standard`` is the classification data set. Unknown names and splits, options that
    the task does not have, and missing or torn files are a :class:`UserError`. Examples::

        load_retrieval("ROxford5k", options=Options(crop=True))
        load_retrieval("COCO", "test", options=Options(query="text", gallery="image"))
        load_retrieval("DTD@coop", options=Options(gallery_split="test"))    # leave-one-out
    """
    source, options = _source(name), options or Options()
    if split is not None and split not in source.splits:
        raise unknown_name(f"split of {name}", split, source.splits)
    _check(name, source, options)
    own = source.modalities[0]
    options = replace(options, query=options.query or own, gallery=options.gallery or own)
    return source.load(name, split or source.splits[0], data_dir, options)


def _source(name: str) -> RetrievalSource:
    if name in RETRIEVAL:
        return RETRIEVAL[name]
    parts = parse_name(name)
    if parts.base in SOURCES or parts.scheme is not None:
        return CLASSIFICATION  # load_task has the right words for what is wrong with the name
    raise unknown_name("retrieval task", name, retrieval_names())


def _check(name: str, source: RetrievalSource, options: Options) -> None:
    """Refuse what the task does not have."""
    for side in ("query", "gallery"):
        if (wanted := getattr(options, side) or source.modalities[0]) not in source.modalities:
            raise UserError(f"The {side} of {name} cannot be of the type '{wanted}', only {' or '.join(source.modalities)}.")
    for option in options.given():
        if option in ("query", "gallery") or option in source.options:
            continue
        takers = [known for known, other in RETRIEVAL.items() if option in other.options] or ["classification data sets"]
        raise UserError(f"--{option.replace('_', '-')} is not for {name}; it is for {', '.join(takers)}.")
