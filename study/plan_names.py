"""The names in a plan, each looked up where the commands look it up. What is slow to import waits until a name needs it."""

from __future__ import annotations

import os

from common.errors import UserError, nearest, unknown_name
from models.tuning_options import TUNING_NAMES


def model_name(name: str) -> str:
    """A model's short name where it has one; a :class:`UserError` for an unknown one.

    The file of weights that SLIP's architectures take need not be there before a cell is worked on.
    """
    from models.zoo import SLIP, ZOO, canonical_name

    if name in TUNING_NAMES:
        raise UserError(f"'{name}' is a tuning, not a model; give it a table, [tunings.{name}].")
    architecture, _, weights = name.partition("/")
    if architecture in SLIP and weights:
        return f"{architecture}/{os.path.normpath(weights)}"
    return name if name in ZOO else canonical_name(name)  # open_clip is imported for other names only


def task_name(name: str) -> str:
    """A data set's name in the one spelling, without the convention that it has anyway."""
    from datasets.naming import parse_name
    from datasets.registry import SOURCES, checked_name

    parts = parse_name(name)
    if parts.scheme is None and parts.base not in SOURCES and nearest(parts.base, SOURCES):
        raise unknown_name("task", parts.base, SOURCES)
    return str(checked_name(name))


def image_task_name(name: str) -> str:
    """A retrieval set of images, or a classification data set to be searched as one."""
    from datasets.retrieval.table import RETRIEVAL

    if name in RETRIEVAL and RETRIEVAL[name].modalities[0] != "image":
        raise UserError(f"'{name}' is a set of texts; list it in text_tasks.")
    return name if name in RETRIEVAL else classification_name(name)


def text_task_name(name: str) -> str:
    """A retrieval set of texts."""
    from datasets.retrieval.table import RETRIEVAL

    known = [known for known, source in RETRIEVAL.items() if source.modalities[0] == "text"]
    if name not in known:
        raise unknown_name("set of texts", name, known)
    return name


def classification_name(name: str) -> str:
    """A classification data set; where a retrieval set has the same name, with the convention that tells it from that one."""
    from datasets.retrieval.table import RETRIEVAL

    known = task_name(name)
    return f"{known}@standard" if known in RETRIEVAL else known


def measure_name(name: str) -> str:
    """A measure's own name, also from the one that the IIMM paper's code has for it."""
    from metrics.table import BY_ANY_NAME

    if name not in BY_ANY_NAME:
        raise unknown_name("measure", name, BY_ANY_NAME)
    return BY_ANY_NAME[name].name


def published_name(name: str) -> str:
    """A key of ``PUBLISHED`` in :mod:`study.published`, or of its likes for inversion and merging."""
    from study.published import PUBLISHED
    from study.published_inversion import PUBLISHED_INVERSION
    from study.published_merging import PUBLISHED_MERGING

    if name not in (known := [*PUBLISHED, *PUBLISHED_INVERSION, *PUBLISHED_MERGING]):
        raise unknown_name("published study", name, known)
    return name


def check_prompts(task: str, prompts: str) -> None:
    """A :class:`UserError` unless ``task`` has the prompt set, or it is a file of prompts."""
    from datasets.naming import parse_name
    from datasets.prompts import chosen_templates, prompt_names

    base = parse_name(task).base
    if prompts not in prompt_names(base):  # a set that it has need not be loaded, which for one of them takes seconds
        chosen_templates(base, prompts)
