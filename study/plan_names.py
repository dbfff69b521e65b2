"""The names in a plan, each looked up where the commands look it up. What is slow to import waits until a name needs it."""

from __future__ import annotations

from common.errors import UserError, nearest, unknown_name
from models.tuning_options import TUNING_NAMES


def model_name(name: str) -> str:
    """A model's short name where it has one; a :class:`UserError` for an unknown one."""
    from models.zoo import ZOO, canonical_name

    if name in TUNING_NAMES:
        raise UserError(f"'{name}' is a tuning, not a model; give it a table, [tunings.{name}].")
    return name if name in ZOO else canonical_name(name)  # open_clip is imported for other names only


def task_name(name: str) -> str:
    """A data set's name in the one spelling, without the convention that it has anyway."""
    from datasets.naming import parse_name
    from datasets.registry import SOURCES, checked_name

    parts = parse_name(name)
    if parts.scheme is None and parts.base not in SOURCES and nearest(parts.base, SOURCES):
        raise unknown_name("task", parts.base, SOURCES)
    return str(checked_name(name))


def measure_name(name: str) -> str:
    """A measure's own name, also from the one that the IIMM paper's code has for it."""
    from metrics.table import BY_ANY_NAME

    if name not in BY_ANY_NAME:
        raise unknown_name("measure", name, BY_ANY_NAME)
    return BY_ANY_NAME[name].name


def published_name(name: str) -> str:
    """A key of :data:`study.published.PUBLISHED`."""
    from study.published import PUBLISHED

    if name not in PUBLISHED:
        raise unknown_name("published study", name, PUBLISHED)
    return name


def check_prompts(task: str, prompts: str) -> None:
    """A :class:`UserError` unless ``task`` has the prompt set, or it is a file of prompts."""
    from datasets.naming import parse_name
    from datasets.prompts import chosen_templates, prompt_names

    base = parse_name(task).base
    if prompts not in prompt_names(base):  # a set that it has need not be loaded, which for one of them takes seconds
        chosen_templates(base, prompts)
