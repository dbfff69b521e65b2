"""Own images: ``imagefolder:PATH``, one folder per class, with or without split folders.

Layouts::

    PATH/<class>/**/*.jpg                     no split folders
    PATH/{train,val,test}/<class>/**/*.jpg    train or test or both; val is optional, also spelt valid or validation
    PATH/classnames.txt                       optional: class names for the prompts, see :func:`~datasets.own.classnames.read_classnames`
    PATH/templates.txt                        optional: one prompt template per line, {c} or {} is the class name

Rules:

- Classes are the folders of ``train`` (of ``test`` where there is no ``train``), sorted by code point. Another split may
  lack a class; it must not have one more. A folder's name is its class's name, ``_`` read as a space.
- Files are those with an extension of :data:`EXTENSIONS` at any depth, class by class, sorted by relative path. Hidden
  files and ``__MACOSX`` do not count; links are followed.
- Without ``val``, validation images are drawn from ``train`` (:func:`~datasets.task.split_validation`).
- Without split folders, a fifth of each class's images is the test split (:func:`divide`).
- A folder named ``train`` or ``test`` is a split when it holds folders, or when nothing but split folders lies beside it;
  otherwise it is a class, e.g. of vehicles.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError, unknown_name
from datasets.image_files import ImageFiles, printable
from datasets.own.classnames import read_classnames
from datasets.task import SPLITS, Task, read_template_file, split_validation

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
DEFAULT_TEMPLATES = ("a photo of a {c}",)
DIVISION_SEED = 0  # of the division into train and test, whatever --seed is, so that runs stay comparable

_SUFFIXES = tuple(extension.encode() for extension in EXTENSIONS)


def imagefolder_task(path: Path, split: str, val_p: float) -> Task:
    """The split ``train``, ``val`` or ``test`` of the images below ``path``; no image file is opened.

    Sample ids are paths relative to ``path``. ``val_p`` is the proportion of the training images that becomes the
    validation split where there is no folder of that. Everything wrong with the folder is a :class:`UserError`.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    root = path.expanduser()
    if not root.is_dir():
        raise UserError(
            f"'{path}' is {'not a folder' if root.exists() else 'missing'}; expected a folder of images, '{path}/<class>/*.jpg'."
        )
    parts = split_folders(root)
    if split == "test" or "val" in parts:
        return _task(path, root, parts, split)
    train, val = split_validation(_task(path, root, parts, "train"), val_p)
    return val if split == "val" else train


def imagefolder_source(where: str, split: str, val_p: float, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.OwnSource`."""
    return imagefolder_task(Path(where), split, val_p)


def split_folders(root: Path) -> dict[str, str]:
    """Which split lies in which folder of ``root``, e.g. ``{"train": "train", "val": "valid"}``; empty without any."""
    folders = subfolders(root)
    named = [folder for folder in folders if folder.lower() in SPLIT_FOLDERS]
    if not named or not (len(named) == len(folders) or any(subfolders(root / folder) for folder in named)):
        return {}
    parts: dict[str, str] = {}
    for folder in named:
        split = SPLIT_FOLDERS[folder.lower()]
        if split in parts:
            raise UserError(f"'{root}' has two folders of the {split} split, '{parts[split]}' and '{folder}'; keep one.")
        parts[split] = folder
    if parts.keys() == {"val"}:
        raise UserError(f"'{root}' has a {parts['val']}/ folder only; expected train/ or test/, or both, beside it.")
    return parts


def _task(path: Path, root: Path, parts: dict[str, str], split: str) -> Task:
    """The images of one folder (or of one part of the division) with all that is said about them."""
    folder, source = _split_folder(root, parts, split), _split_folder(root, parts, "train" if "train" in parts else "test")
    classes = _classes(source)
    if extra := sorted(set(subfolders(folder)) - set(classes)):
        raise UserError(f"'{folder / extra[0]}' is a class that '{source}' does not have; make its folder there, or remove this one.")
    files = [class_files(root, folder / name) for name in classes]
    if empty := [name for name, found in zip(classes, files, strict=True) if not found and folder == source]:
        raise UserError(f"The class folder '{folder / empty[0]}' holds no image ({' '.join(EXTENSIONS)}).")
    if not any(files):
        raise UserError(f"'{folder}' holds no image in a class folder; expected '{folder}/<class>/*' ({' '.join(EXTENSIONS)}).")
    files = files if parts else [divide(names, split) for names in files]
    return Task(
        name=f"imagefolder:{path}",
        split=split,
        samples=ImageFiles.of(root, [name for names in files for name in names]),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in files]),
        classnames=_classnames(root, classes),
        templates=_templates(root),
    )


def _split_folder(root: Path, parts: dict[str, str], split: str) -> Path:
    if not parts:
        return root
    if split not in parts:
        raise UserError(f"'{root}' has no {split}/ folder; expected images in '{root / split}/<class>/'.")
    return root / parts[split]


def _classes(folder: Path) -> list[str]:
    """The class folders of ``folder``, sorted; at least two."""
    classes = subfolders(folder)
    if not classes:
        found = "images, but no class folders" if any(_is_image(entry.name) for entry in _visible(folder)) else "no class folders"
        raise UserError(f"'{folder}' holds {found}; expected '{folder}/<class>/*.jpg'.")
    if len(classes) == 1:
        raise UserError(f"'{folder}' holds only one class folder, '{classes[0]}'; at least two classes are needed.")
    return classes


def divide(names: Sequence[bytes], split: str) -> list[bytes]:
    """The ``train`` or the ``test`` part of one class's images, sorted.

    Images are ranked by a hash of the seed and their relative path; the first fifth, rounded, but at least one image of
    two or more, is the test part. So the division is the same on every machine, and a new image moves few others.
    """
    ranked = sorted(names, key=lambda name: hashlib.sha256(b"%d:%s" % (DIVISION_SEED, name)).digest())
    n_test = max(1, (len(names) + 2) // 5) if len(names) > 1 else 0
    return sorted(ranked[:n_test] if split == "test" else ranked[n_test:])


def _classnames(root: Path, classes: Sequence[str]) -> tuple[str, ...]:
    listed = root / "classnames.txt"
    if listed.exists():
        names = read_classnames(listed, classes)
    else:
        names = tuple(printable(os.fsencode(name)).replace("_", " ") for name in classes)
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise UserError(f"Two classes of '{root}' are named '{twice}'; give each its own name in '{listed}'.")
    return names


def _templates(root: Path) -> tuple[str, ...]:
    listed = root / "templates.txt"
    return read_template_file(listed) if listed.exists() else DEFAULT_TEMPLATES


def _visible(folder: Path | bytes) -> Iterator[os.DirEntry[bytes]]:
    """The entries of a folder, hidden ones left out. Names stay bytes: they need not be text in any encoding."""
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            for entry in entries:
                if not entry.name.startswith(b".") and entry.name != b"__MACOSX":
                    yield entry
    except OSError as error:
        raise UserError(f"Cannot read the folder '{os.fsdecode(folder)}': {error.strerror}.") from error


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()  # asks the file system only about links
    except OSError:
        return False  # a link to itself


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(_SUFFIXES)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in ``folder``, hidden ones left out, sorted by code point."""
    return sorted(os.fsdecode(entry.name) for entry in _visible(folder) if _is_folder(entry))


def class_files(root: Path, folder: Path) -> list[bytes]:
    """The image files at any depth below ``folder``, relative to ``root``, sorted; none when there is no such folder."""
    if not folder.is_dir():
        return []
    prefix = os.fsencode(folder.relative_to(root).as_posix()) + b"/"
    return sorted(_walk(os.fsencode(folder), prefix, frozenset()))


def _walk(folder: bytes, prefix: bytes, above: frozenset[tuple[int, int]]) -> Iterator[bytes]:
    status = Path(os.fsdecode(folder)).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return  # a link to a folder above: already being walked through
    for entry in _visible(folder):
        if _is_folder(entry):
            yield from _walk(entry.path, prefix + entry.name + b"/", above | {here})
        elif _is_image(entry.name):
            yield prefix + entry.name
