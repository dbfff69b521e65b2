"""The Task: images with labels, class names, prompt templates, a split, and a fingerprint of exactly which samples.

A task is made of :class:`Samples` (where images come from) and of what is said about them. Samples of every kind, files
or drawings or arrays, have the same three methods, so nothing downstream knows where pixels come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UserError

SPLITS = ("train", "val", "test")
VALIDATION_LIMIT = 5000  # images; a validation part is never larger (the published protocol)
VALIDATION_SEED = 0  # of the draw of the validation part, whatever --seed is, so that runs stay comparable


class UnreadableImage(Exception):
    """An image that cannot be decoded; ``str()`` is the sample's id and the reason."""

    def __init__(self, sample_id: str, reason: str) -> None:
        super().__init__(sample_id, reason)  # both, so that the error survives the way from a loader process
        self.sample_id = sample_id
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.sample_id}: {self.reason}"


class Samples(Protocol):
    """Where the images of a task come from. Must be picklable: loader processes receive a copy."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Image.Image:
        """The image as RGB; raises :class:`UnreadableImage`."""

    def sample_id(self, index: int) -> str:
        """A name that is unique in this split and stays the same between runs and machines."""

    def digest(self, index: int) -> bytes:
        """A hash of the sample's content: changes when a pixel can have changed. Defined for unreadable images too."""


@dataclass(frozen=True)
class Subset:
    """Some samples of another source, in the given order."""

    samples: Samples
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def image(self, index: int) -> Image.Image:
        """See :class:`Samples`."""
        return self.samples.image(int(self.indices[index]))

    def sample_id(self, index: int) -> str:
        """See :class:`Samples`."""
        return self.samples.sample_id(int(self.indices[index]))

    def digest(self, index: int) -> bytes:
        """See :class:`Samples`."""
        return self.samples.digest(int(self.indices[index]))


@dataclass(frozen=True)
class Task:
    """One split of one data set, ready to be embedded, tested or trained on.

    ``labels`` is int64 [N] with values in ``range(len(classnames))``; each template has the placeholder ``{c}`` for a
    class name.
    """

    name: str
    split: str
    samples: Samples
    labels: NDArray[np.int64]
    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.samples)} samples but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sample_ids(self) -> list[str]:
        """The id of every sample, in order."""
        return [self.samples.sample_id(index) for index in range(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every sample's id, content and label, in order: changes when, and only when, one of them does."""
        digest = hashlib.sha256()
        for index, label in enumerate(self.labels.tolist()):
            name = self.samples.sample_id(index).encode()
            digest.update(b"%d %d %s" % (label, len(name), name))
            digest.update(self.samples.digest(index))
        return digest.hexdigest()

    @cached_property
    def listing(self) -> str:
        """SHA-256 over every sample's id and label, in order: the fingerprint less the pixels, quick for any size."""
        digest = hashlib.sha256()
        for name, label in zip(self.sample_ids, self.labels.tolist(), strict=True):
            digest.update(f"{label} {len(name)} {name}\n".encode())
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.int64], split: str | None = None) -> Task:
        """The same task with only the samples at ``indices``, in that order."""
        return replace(self, samples=Subset(self.samples, indices), labels=self.labels[indices], split=split or self.split)

    def prompts(self) -> list[list[str]]:
        """Every class's prompts: one list per class, one prompt per template."""
        return [[fill(template, name) for template in self.templates] for name in self.classnames]


def fill(template: str, classname: str) -> str:
    """Put a class name into a template."""
    return template.replace("{c}", classname)


def as_templates(texts: Sequence[str]) -> tuple[str, ...]:
    """Templates in the one spelling ``{c}``; ``{}`` is accepted. A template without a placeholder is an error."""
    templates = tuple(text.replace("{}", "{c}") for text in texts)
    for template in templates:
        if "{c}" not in template:
            raise UserError(f"The template '{template}' has no place for the class name; write it as {{c}}, e.g. 'a photo of a {{c}}'.")
    if not templates:
        raise UserError("No template was given; write one with {c} for the class name, e.g. 'a photo of a {c}'.")
    return templates


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file without surrounding blanks; empty lines are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    return [line.strip() for line in text.split("\n") if line.strip()]


def read_template_file(path: Path) -> tuple[str, ...]:
    """The templates of a text file, one per line."""
    lines = read_lines(path)
    if not lines:
        raise UserError(f"'{path}' holds no template; write one per line with {{c}} for the class name, e.g. 'a photo of a {{c}}'.")
    return as_templates(lines)


def split_validation(train: Task, proportion: float) -> tuple[Task, Task]:
    """Draw the validation part from a training split: ``proportion`` of it, at most 5000 images, by seed 0.

    Returns (train, validation), both in the order of the original split.
    """
    if not 0 < proportion < 1:
        raise UserError(f"--val-p must lie between 0 and 1, not {proportion:g}.")
    size = min(round(proportion * len(train)), VALIDATION_LIMIT)
    if size == 0:
        raise UserError(f"--val-p {proportion:g} of the {len(train)} training images of {train.name} is no image; use a larger one.")
    if size == len(train):
        raise UserError(f"--val-p {proportion:g} leaves none of the {len(train)} training images of {train.name}; use a smaller one.")
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(train))
    return train.subset(np.sort(order[size:]), "train"), train.subset(np.sort(order[:size]), "val")
