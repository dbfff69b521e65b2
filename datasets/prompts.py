"""Prompt templates of the data sets, as five communities wrote them; ``--prompts`` chooses.

=================  =================================================================================
``iimm``           one per data set, without a full stop: what the IIMM paper's numbers are made with
``openai``         the ensembles that OpenAI published with CLIP
``coop``           those of CoOp, Tip-Adapter and the few-shot literature
``merging``        those of the merging benchmarks' zero-shot heads
``cross_the_gap``  those of Cross the Gap, on modality inversion: ``coop``, but for ImageNet
=================  =================================================================================

Papers differ on ``coop`` for ImageNet: these are Tip-Adapter's seven; CoOp and Cross the Gap have ``a photo of a {c}.``,
which is also everyone's for ImageNet's variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from datasets.facts import facts
from datasets.task import as_templates, read_template_file

PROMPT_SETS = ("iimm", "openai", "coop", "merging", "cross_the_gap")
FALLBACK = ("iimm", "coop", "merging", "openai")  # the default is the first of these that a data set has
ANY = ("a photo of a {}",)  # ... or this

_IMAGENETS = ("ImageNet", "ImageNetV2", "ImageNetSketch", "ImageNetRendition", "ImageNetAdversarial")
_PLAIN = ("a photo of a {}.",)

IIMM: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Cars", "CIFAR100", "STL10", "SUN397", *_IMAGENETS), ("a photo of a {}",)),
    "DTD": ("a photo of a {} texture",),
    "EuroSAT": ("a centered satellite photo of a {}",),
    **dict.fromkeys(("FMoW-id", "FMoW-ood"), ("a satellite image of a {}",)),
    "GTSRB": ('a photo of a "{}" traffic sign',),
    **dict.fromkeys(("MNIST", "SVHN"), ('a photo of the number: "{}"',)),
    "RESISC45": ("satellite imagery of {}",),
}

_SEVEN = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)  # the seven that CLIP's authors chose from the eighty

COOP: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Cars", "SUN397", "Caltech101", "PlantDoc", "StanfordDogs", *_IMAGENETS), _PLAIN),
    "ImageNet": _SEVEN,
    "OxfordPets": ("a photo of a {}, a type of pet.",),
    "Flowers102": ("a photo of a {}, a type of flower.",),
    "FGVCAircraft": ("a photo of a {}, a type of aircraft.",),
    "DTD": ("{} texture.",),
    "EuroSAT": ("a centered satellite photo of {}.",),
    "Food101": ("a photo of {}, a type of food.",),
    "UCF101": ("a photo of a person doing {}.",),
    "CUB": ("a photo of a {}, a type of bird.",),
}

CROSS_THE_GAP: dict[str, tuple[str, ...]] = {**COOP, "ImageNet": _PLAIN}

_TABLES = {"iimm": IIMM, "coop": COOP, "cross_the_gap": CROSS_THE_GAP}

MERGING_KEYS = {
    "Cars": "stanford_cars",
    "CIFAR10": "cifar10",
    "CIFAR100": "cifar100",
    "CUB": "cub_200_2011",
    "DTD": "dtd",
    "EMNISTLetters": "emnist_letters",
    "EuroSAT": "eurosat",
    "FashionMNIST": "fashion_mnist",
    "FER2013": "fer2013",
    "Flowers102": "flower102",
    "Food101": "food101",
    "GTSRB": "gtsrb",
    "KMNIST": "kmnist",
    "MNIST": "mnist",
    "OxfordPets": "oxford_iiit_pet",
    "PCAM": "pcam",
    "RenderedSST2": "rendered_sst2",
    "RESISC45": "resisc45",
    "STL10": "stl10",
    "SUN397": "sun397",
    "SVHN": "svhn",
}  # keys of facts.json, whose class names and templates are those of the merging benchmarks

SAME_AS_OPENAI = tuple(
    name for name in MERGING_KEYS if name not in ("CUB", "EMNISTLetters", "FashionMNIST", "KMNIST")
)  # the merging benchmarks took these from OpenAI; only SVHN's are MNIST's, since OpenAI did not test on SVHN

_CALTECH_STYLES = (
    "a photo of {a} {}.", "a painting of {a} {}.", "{a} plastic {}.", "a sculpture of {a} {}.", "a sketch of {a} {}.",
    "a tattoo of {a} {}.", "{a} toy {}.", "a rendition of {a} {}.", "{a} embroidered {}.", "{a} cartoon {}.",
    "{a} {} in a video game.", "{a} plushie {}.", "{a} origami {}.", "art of {a} {}.", "graffiti of {a} {}.",
    "a drawing of {a} {}.", "a doodle of {a} {}.",
)  # fmt: skip
_ACTION_VERBS = ("", " using", " doing", " during", " performing", " practicing")

OPENAI = {
    "Caltech101": tuple(style.replace("{a}", article) for article in ("a", "the") for style in _CALTECH_STYLES),
    "FGVCAircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "UCF101": tuple(
        f"a {medium} of {article} person{verb} {{}}."
        for verb in _ACTION_VERBS
        for article in ("a", "the")
        for medium in ("photo", "video", "example", "demonstration")
    ),
    "CUB": ("a photo of a {}, a type of bird.",),  # Birdsnap's, OpenAI's birds
}


def prompt_names(name: str) -> list[str]:
    """Which of :data:`PROMPT_SETS` the data set ``name`` has; without loading them, as the table of 80 needs torch."""
    tables = {**_TABLES, "openai": (*_IMAGENETS, *SAME_AS_OPENAI, *OPENAI), "merging": MERGING_KEYS}
    return [prompts for prompts in PROMPT_SETS if name in tables[prompts]]


def default_templates(name: str) -> tuple[str, ...]:
    """The IIMM prompt, for data sets of the other papers theirs, and without any ``a photo of a {c}``."""
    names = prompt_names(name)
    return next((_templates(name, prompts) for prompts in FALLBACK if prompts in names), as_templates(ANY))


def chosen_templates(name: str, prompts: str) -> tuple[str, ...]:
    """The templates that ``--prompts`` asks for: a prompt set of the data set ``name``, or a text file with one per line."""
    names = prompt_names(name)
    if prompts in names:
        return _templates(name, prompts)
    if prompts not in PROMPT_SETS and (prompts.endswith(".txt") or Path(prompts).expanduser().is_file()):
        return read_template_file(Path(prompts).expanduser())
    problem = f"{name} has no '{prompts}' prompts" if prompts in PROMPT_SETS else f"Unknown prompts '{prompts}' for {name}"
    known = f"known: {', '.join(names)}; " if names else ""
    raise UserError(f"{problem}; {known}a text file with one prompt per line works too.")


def _templates(name: str, prompts: str) -> tuple[str, ...]:
    if prompts in _TABLES:
        return as_templates(_TABLES[prompts][name])
    return as_templates(_openai(name) if prompts == "openai" else _merging(name))


def _merging(name: str) -> Sequence[str]:
    return facts()[MERGING_KEYS[name]]["templates"]  # type: ignore[no-any-return]


def _openai(name: str) -> Sequence[str]:
    if name in _IMAGENETS:
        from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

        return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
    return _merging(name) if name in SAME_AS_OPENAI else OPENAI[name]
