"""The Task: images with labels, class names, prompt templates, a split, and a fingerprint of exactly which samples.

A task is made of :class:`~datasets.samples.Samples` (where images come from) and of what is said about them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.stages import staged
from datasets.fingerprint import DIGEST_BYTES, Fingerprint
from datasets.samples import Samples, Subset

SPLITS = ("train", "val", "test")
VALIDATION_LIMIT = 5000  # images; a validation part is never larger (the published protocol)
VALIDATION_SEED = 0  # of the draw of the validation part, whatever --seed is, so that runs stay comparable


@dataclass(frozen=True)
class Groups:
    """A second division of the images: ``labels`` int64 [N] with values in ``range(len(names))``; ``kind`` e.g. "region"."""

    kind: str
    names: tuple[str, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """One split of one data set, ready to be embedded, tested or trained on.

    ``labels`` is int64 [N] with values in ``range(len(classnames))``; each template has the placeholder ``{c}`` for a
    class name. Some data sets divide their images into ``groups`` over which accuracy should not vary.
    """

    name: str
    split: str
    samples: Samples
    labels: NDArray[np.int64]
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    groups: Groups | None = None

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.samples)} samples but {len(self.labels)} labels")
        if self.groups is not None and len(self.groups.labels) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.labels)} labels but groups of {len(self.groups.labels)} samples")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sample_ids(self) -> list[str]:
        """The id of every sample, in order."""
        return [self.samples.sample_id(index) for index in range(len(self))]

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """The hash of every sample's content, uint8 [N, 32]; reads all of it."""
        digests = np.empty((len(self), DIGEST_BYTES), np.uint8)
        for index in range(len(self)):
            digests[index] = np.frombuffer(self.samples.digest(index), np.uint8)
        return digests

    @cached_property
    @staged("fingerprint")
    def fingerprint(self) -> str:
        """SHA-256 over every sample's id, content and label, in order: changes when, and only when, one of them does."""
        of = Fingerprint()
        for index, label in enumerate(self.labels.tolist()):
            of.add(self.samples.sample_id(index), label, self.digests[index].tobytes())
        return of.hexdigest()

    @cached_property
    @staged("fingerprint")
    def listing(self) -> str:
        """SHA-256 over every sample's id and label, in order: the fingerprint less the pixels, quick for any size."""
        digest = hashlib.sha256()
        for index, label in enumerate(self.labels.tolist()):
            name = self.samples.sample_id(index)
            digest.update(f"{label} {len(name)} {name}\n".encode())
        return digest.hexdigest()

    def subset(self, indices: NDArray[np.int64], split: str | None = None) -> Task:
        """The same task with only the samples at ``indices``, in that order."""
        groups = self.groups and replace(self.groups, labels=self.groups.labels[indices])
        return replace(self, samples=Subset(self.samples, indices), labels=self.labels[indices], groups=groups, split=split or self.split)

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
