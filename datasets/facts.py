"""Facts about data sets: class names and prompt templates as published, and ImageNet's subsets."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("facts.json")


@cache
def facts() -> dict[str, Any]:
    """Everything, by the key of the data set: ``{"dtd": {"classnames": [...], "templates": [...]}, ...}``."""
    return json.loads(PATH.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def published_classnames(key: str) -> tuple[str, ...]:
    """The class names of the OpenAI and merging lists, in the order of the labels, exactly as published."""
    return tuple(facts()[key]["classnames"])


def classnames(key: str) -> tuple[str, ...]:
    """The same as words: ``_`` is read as a space."""
    return tuple(name.replace("_", " ") for name in published_classnames(key))
