"""The data sets of the merging benchmarks as they lie on the Hugging Face hub: what the published checkpoints were trained on.

How they are found and at which revision is told in :mod:`datasets.hub_repository`; class names are the published ones, whatever the
set calls its classes. Their rows are mostly sorted by class. Four sets also keep their test images corrupted (as
``contrast`` ... ``spatter``, of an unrecorded severity, after CIFAR's constants); these are conventions of their own, e.g.
``Cars@hub-contrast``, with a test split only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from datasets.facts import published_classnames
from datasets.hub_images import read_split
from datasets.hub_repository import open_repository
from datasets.prompts import MERGING_KEYS, default_templates
from datasets.task import Task


@dataclass(frozen=True)
class HubSet:
    """A repository on the hub, and its configuration where it has several."""

    repository: str
    config: str | None = None
    test: str = "test"  # what the set calls its test split


HUB_SETS = {
    "SUN397": HubSet("tanganke/sun397"),
    "Cars": HubSet("tanganke/stanford_cars"),
    "RESISC45": HubSet("tanganke/resisc45"),
    "EuroSAT": HubSet("tanganke/eurosat"),
    "SVHN": HubSet("ufldl-stanford/svhn", "cropped_digits"),
    "GTSRB": HubSet("tanganke/gtsrb"),
    "MNIST": HubSet("ylecun/mnist"),
    "DTD": HubSet("tanganke/dtd"),
    "Flowers102": HubSet("dpdl-benchmark/oxford_flowers102"),
    "PCAM": HubSet("1aurent/PatchCamelyon"),
    "FER2013": HubSet("clip-benchmark/wds_fer2013"),
    "OxfordPets": HubSet("timm/oxford-iiit-pet"),
    "STL10": HubSet("tanganke/stl10"),
    "CIFAR100": HubSet("tanganke/cifar100"),
    "CIFAR10": HubSet("tanganke/cifar10"),
    "Food101": HubSet("ethz/food101", test="validation"),
    "FashionMNIST": HubSet("zalando-datasets/fashion_mnist"),
    "EMNISTLetters": HubSet("tanganke/emnist_letters"),
    "KMNIST": HubSet("tanganke/kmnist"),
    "RenderedSST2": HubSet("nateraw/rendered-sst2"),
    "CUB": HubSet("Donghyun99/CUB-200-2011"),
}


def hub_task(name: str, split: str, data_dir: Path, corruption: str | None = None) -> Task:
    """The split ``train`` or ``test``; with a ``corruption``, the test images that are stored corrupted."""
    listed = HUB_SETS[name]
    if corruption is not None and split != "test":
        raise UserError(f"{name}@hub-{corruption} has test images only; train on {name}@hub.")
    repository = open_repository(listed.repository, data_dir)
    stored = corruption or {"test": listed.test}.get(split, split)
    images = read_split(repository, stored, listed.config, data_dir)
    classnames = published_classnames(MERGING_KEYS[name])
    labels = images.numbers(len(classnames), f"The split '{stored}' of '{listed.repository}'")
    return Task(name, split, images.samples, labels, classnames, default_templates(name))
