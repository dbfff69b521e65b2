"""Data sets by name.

To add a data set, write one small file ``datasets/sources/<source>.py`` with a function ``load(name, split, data_dir)`` that
returns a :class:`~datasets.task.Task`, and add one line to :data:`SOURCES`, with a :class:`Source` for every split convention
that it has (:data:`~datasets.naming.CONVENTIONS`), the default first::

    "SVHN": {"standard": Source("sources.svhn:svhn_task")},

A source gives its ``train`` and ``test`` splits; its ``val`` split is drawn from ``train``, unless it says that it has one of
its own (``own_validation=True``). It raises a :class:`~common.errors.UserError` when its files are not in ``data_dir``
(:func:`datasets.places.find` does). Nothing is imported before a data set is asked for, so that ``--help`` stays fast.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError, nearest, unknown_name
from common.files import slug
from common.stages import staged
from datasets.naming import CONVENTIONS, CORRUPTIONS, ELSEWHERE, NOTES, TaskName, parse_name

if TYPE_CHECKING:
    from datasets.task import Task


@dataclass(frozen=True)
class Source:
    """Where one split convention of a data set comes from: ``module:function``, below the package ``datasets``."""

    function: str
    own_validation: bool = False  # whether it knows the split "val"
    corruption: str | None = None  # of test images that are stored corrupted; the function takes it as its fourth argument

    def load(self, name: str, split: str, data_dir: Path) -> Task:
        """One split; ``name`` tells apart what shares a function."""
        stored = () if self.corruption is None else (self.corruption,)
        return _function(self.function)(name, split, data_dir, *stored)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OwnSource:
    """A scheme for own data, ``SCHEME:WHERE``; the function takes (where, split, val_p, data_dir)."""

    function: str
    expected: str  # what to write after the colon
    is_path: bool = True  # else a name on a hub

    def load(self, where: str, split: str, val_p: float, data_dir: Path) -> Task:
        """One split of the user's data."""
        return _function(self.function)(where, split, val_p, data_dir)  # type: ignore[no-any-return]


def _function(place: str) -> Callable[..., Task]:
    module, _, function = place.partition(":")
    return getattr(import_module(f"datasets.{module}"), function)  # type: ignore[no-any-return]


def _sets(
    function: str, *, own: bool = False, same: bool = False, paper: Source | None = None, coop: bool = False, hub: bool = False
) -> dict[str, Source]:
    """The conventions of a data set with splits of its own; ``same``: the IIMM code used those."""
    standard = Source(function, own)
    return {"standard": standard} | _more(standard if same else paper, coop, hub)


def _more(paper: Source | None = None, coop: bool = False, hub: bool = False) -> dict[str, Source]:
    """Conventions for data sets that come without splits, or beside them."""
    listed = {"paper": paper, "coop": _COOP if coop else None, "hub": _HUB if hub else None}
    return {convention: source for convention, source in listed.items() if source is not None}


_COOP = Source("sources.coop:coop_task", own_validation=True)
_HUB = Source("sources.hub_sets:hub_task")
_CORRUPTED_HUB = {f"hub-{kind}": Source("sources.hub_sets:hub_task", corruption=kind) for kind in CORRUPTIONS}
_EUROSAT, _RESISC45 = "sources.eurosat:eurosat_task", "sources.resisc45:resisc45_task"
_DRAWN = (
    "Shapes-Color", "Shapes-Kind", "Shapes-Background", "Shapes-Texture", "Shapes-Position", "Shapes-Size", "Shapes-Count",
    "Glyphs-Letters", "Glyphs-Digits", "Shapes-Pairs", "Shapes-Outlined", "Shapes-Noisy", "Shapes-Rotated", "Glyphs-Fonts",
    "Glyphs-Inverted", "Glyphs-Mirrored", "Glyphs-Lowercase", "Shapes-Pictograms", "Glyphs-Greek", "Glyphs-Typeface",
)  # fmt: skip

SOURCES: dict[str, dict[str, Source]] = {
    # In the package, or drawn.
    "Digits": _sets("sources.digits:digits_source"),
    **{name: _sets("sources.drawn:drawn_source") for name in _DRAWN},
    # Of the IIMM paper.
    "Cars": _sets("sources.cars:cars_task", same=True, coop=True, hub=True) | _CORRUPTED_HUB,
    "CIFAR100": _sets("sources.cifar:cifar_task", same=True, hub=True),
    "DTD": _sets("sources.dtd:dtd_task", own=True, paper=Source("sources.dtd:dtd_paper_task"), coop=True, hub=True),
    "EuroSAT": _sets(_EUROSAT, own=True, paper=Source(_EUROSAT), coop=True, hub=True) | _CORRUPTED_HUB,
    "FMoW-id": _sets("sources.fmow:fmow_task", own=True, same=True),
    "FMoW-ood": _sets("sources.fmow:fmow_task", own=True, same=True),
    "GTSRB": _sets("sources.gtsrb:gtsrb_task", same=True, hub=True) | _CORRUPTED_HUB,
    "ImageNet": _sets("sources.imagenet:imagenet_task", same=True, coop=True),
    "ImageNetV2": _sets("sources.imagenet:imagenet_task", same=True),
    "ImageNetSketch": _sets("sources.imagenet:imagenet_task", same=True),
    "ImageNetRendition": _sets("sources.imagenet:imagenet_task", same=True),
    "ImageNetAdversarial": _sets("sources.imagenet:imagenet_task", same=True),
    "MNIST": _sets("sources.idx:idx_task", same=True, hub=True),
    "RESISC45": _sets(_RESISC45, own=True, paper=Source(_RESISC45), hub=True) | _CORRUPTED_HUB,
    "STL10": _sets("sources.stl10:stl10_task", same=True, hub=True),
    "SUN397": _sets("sources.sun397:sun397_task", same=True, coop=True, hub=True),
    "SVHN": _sets("sources.svhn:svhn_task", same=True, hub=True),
    # Besides these, of the merging benchmarks.
    "CIFAR10": _sets("sources.cifar:cifar_task", hub=True),
    "EMNISTLetters": _sets("sources.idx:idx_task", hub=True),
    "FashionMNIST": _sets("sources.idx:idx_task", hub=True),
    "FER2013": _sets("sources.fer2013:fer2013_task", hub=True),
    "Flowers102": _sets("sources.flowers102:flowers102_task", own=True, coop=True, hub=True),
    "Food101": _sets("sources.food101:food101_task", coop=True, hub=True),
    "KMNIST": _sets("sources.idx:idx_task", hub=True),
    "OxfordPets": _sets("sources.oxford_pets:oxford_pets_task", coop=True, hub=True),
    "PCAM": _sets("sources.pcam:pcam_task", own=True, hub=True),
    "RenderedSST2": _sets("sources.rendered_sst2:rendered_sst2_task", own=True, hub=True),
    # Besides these, of few-shot classification.
    "Caltech101": _more(coop=True),
    "CUB": _sets("sources.cub:cub_task", coop=True, hub=True),
    "FGVCAircraft": _sets("sources.fgvc_aircraft:fgvc_aircraft_task", own=True, coop=True),
    "PlantDoc": _sets("sources.plantdoc:plantdoc_task", coop=True),
    "StanfordDogs": _sets("sources.stanford_dogs:stanford_dogs_task", coop=True),
    "UCF101": _sets("sources.ucf101:ucf101_task", coop=True),
    # For training adapters.
    "OpenImages": _sets("sources.open_images:open_images_task"),
}

OWN_SOURCES: dict[str, OwnSource] = {
    "imagefolder": OwnSource("own.imagefolder:imagefolder_source", "PATH"),
    "csv": OwnSource("own.tables:csv_task", "FILE"),
    "parquet": OwnSource("own.tables:parquet_task", "FILE"),
    "wds": OwnSource("own.webdataset:webdataset_task", "PATTERN"),
    "hub": OwnSource("own.hub:hub_source", "ORG/NAME", is_path=False),
}


def task_names() -> list[str]:
    """All fixed names. Besides these, there are the schemes of :data:`OWN_SOURCES` for own data."""
    return list(SOURCES)


@staged("data")
def load_task(
    name: str,
    split: str,
    *,
    data_dir: Path = Path("./data"),
    val_p: float = 0.1,
    templates: Sequence[str] | None = None,
    prompts: str | None = None,
) -> Task:
    """The split ``train``, ``val`` or ``test`` of the data set ``name`` (see :mod:`datasets.naming`).

    ``val_p`` is the proportion of the training images that is drawn for validation where the data set has no validation
    split of its own; ``templates``, or the set or file named by ``prompts``, take the place of the data set's own. Unknown
    names, missing files and bad templates are a :class:`UserError`. Examples::

        load_task("DTD@paper", "test", prompts="openai")
        load_task("imagefolder:photos/birds", "test", templates=["a photo of a {c}, a type of bird."])
    """
    from datasets.task import SPLITS

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    parts = checked_name(name)
    own = OWN_SOURCES.get(parts.scheme or "")
    task = own.load(parts.where, split, val_p, data_dir) if own else _load_fixed(parts, split, data_dir, val_p)
    return _corrupted(_prompted(replace(task, name=str(replace(parts, corruption=None))), parts, templates, prompts), parts)


def checked_name(name: str) -> TaskName:
    """The parts of ``name``; a :class:`UserError` when there is no such data set or split convention."""
    parts = parse_name(name)
    if parts.scheme in OWN_SOURCES and parts.where.strip():
        return parts
    if parts.base not in SOURCES:
        raise _unknown_task(parts)
    conventions = SOURCES[parts.base]
    if parts.convention is None or parts.convention == next(iter(conventions)):
        return replace(parts, convention=None)
    if parts.convention not in conventions:
        raise UserError(f"{parts.base} has no '{parts.convention}' splits; known: {', '.join(conventions)}.")
    return parts


def _load_fixed(parts: TaskName, split: str, data_dir: Path, val_p: float) -> Task:
    from datasets.task import split_validation

    conventions = SOURCES[parts.base]
    source = conventions[parts.convention or next(iter(conventions))]
    if split == "test" or source.own_validation:
        return source.load(parts.base, split, data_dir)
    train, val = split_validation(source.load(parts.base, "train", data_dir), val_p)
    return val if split == "val" else train


def _prompted(task: Task, parts: TaskName, templates: Sequence[str] | None, prompts: str | None) -> Task:
    from datasets.prompts import chosen_templates
    from datasets.task import as_templates

    if templates is not None and prompts is not None:
        raise UserError("--template and --prompts both say what the prompts are; give one of them.")
    if prompts is not None:
        return replace(task, templates=chosen_templates(parts.base, prompts))
    return replace(task, templates=as_templates(templates)) if templates is not None else task


def _corrupted(task: Task, parts: TaskName) -> Task:
    if parts.corruption is None:
        return task
    from datasets.corruptions import CorruptedSamples

    return replace(task, name=str(parts), samples=CorruptedSamples(task.samples, parts.corruption))


def _unknown_task(parts: TaskName) -> UserError:
    name, scheme = parts.base, parts.scheme
    if scheme in OWN_SOURCES:
        return UserError(f"'{name}' names nothing; write '{scheme}:{OWN_SOURCES[scheme].expected}'.")
    if scheme is not None and (known := nearest(scheme, OWN_SOURCES)):
        return UserError(f"Unknown data set '{name}'; did you mean '{known}:{parts.where}'?")
    if os.path.isdir(name):  # noqa: PTH112 (which has no error for a name that no folder can have)
        return UserError(f"Unknown data set '{name}'; for a folder of images write 'imagefolder:{name}'.")
    from datasets.retrieval.table import RETRIEVAL

    if name in RETRIEVAL:
        return UserError(f"'{name}' is a retrieval task without classes; it is no data set to classify.")
    if (elsewhere := nearest(name, ELSEWHERE, alike=0.9)) is not None:
        return UserError(f"Unknown data set '{name}'; its name here is '{ELSEWHERE[elsewhere]}'{_with_coop(ELSEWHERE[elsewhere])}.")
    unknown = str(unknown_name("data set", name, task_names()))
    own = ", ".join(f"{scheme}:{source.expected}" for scheme, source in OWN_SOURCES.items())
    return UserError(f"{unknown[:-1]} (own data: {own}){unknown[-1]}")


def _with_coop(base: str) -> str:
    return f", and '{base}@coop' with the splits of few-shot papers" if "coop" in SOURCES[base] else ""


def task_slug(name: str) -> str:
    """The data set's name as part of a file name; fixed names stay as they are, but for the signs of their suffixes.

    ``imagefolder:/a/b/cats`` becomes ``cats-`` and six hexadecimal digits of the absolute path's SHA-256, so two folders
    of one name have two slugs, and one folder has one, however its path is written.
    """
    parts = parse_name(name)
    own = OWN_SOURCES.get(parts.scheme or "")
    if own is None or not own.is_path:
        return slug(name)
    absolute = os.path.normpath(Path(parts.where).expanduser().absolute())
    mark = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:6]
    return f"{slug(Path(absolute).name)}-{mark}" + (f"-{slug(str(parts.corruption))}" if parts.corruption else "")


def conventions_of(name: str) -> Mapping[str, str]:
    """The split conventions of a fixed name, the default first, each with what it means."""
    return {convention: NOTES.get((name, convention), CONVENTIONS[convention]) for convention in SOURCES[name]}


def read_templates(values: Sequence[str] | None) -> tuple[str, ...] | None:
    """The templates of a repeatable ``--template``: each value is a template, or a ``.txt`` file with one per line.

    None, for the data set's own templates, when the option was not given.
    """
    from datasets.task import as_templates, read_template_file

    if not values:
        return None
    parts = (read_template_file(Path(value).expanduser()) if _is_file(value) else [value] for value in values)
    return as_templates([template for part in parts for template in part])


def _is_file(value: str) -> bool:
    return value.endswith(".txt") and "{c}" not in value and "{}" not in value
