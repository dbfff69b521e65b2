"""A small plan for tests, as TOML."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAINING = {"epochs": 1, "lr": [0.01, 0.001], "optimizer": "SGD", "batch_size": 8}
TUNINGS = {"lora": {"rank": 2}, "probe": {"lr": 0.01}}


def write_plan(path: Path, training: dict[str, Any] = TRAINING, tunings: dict[str, Any] = TUNINGS, **top: Any) -> Path:
    """A plan with these keys above its first table; a value is written as JSON, which is TOML for what stands here."""
    asked = {"title": "A small study", "measures": ["iimm", "gap"], "val_p": 0.2, **top}
    inversion = asked.pop("inversion", None)
    tables = {"training": training} if training else {}
    tables |= {f"tunings.{name}": table for name, table in tunings.items()}
    tables |= {} if inversion is None else dict(_tables("inversion", inversion))
    lines = [_line(name, value) for name, value in asked.items()]
    for table, values in tables.items():
        lines += [f"[{table}]", *(_line(name, value) for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_inversion_plan(path: Path, top: dict[str, Any], **inversion: Any) -> Path:
    """A plan of inversion alone; a keyword's dictionary is a table below [inversion]."""
    lines = [_line(name, value) for name, value in {"title": "A small inversion", **top}.items()]
    for table, values in _tables("inversion", inversion):
        lines += [f"[{table}]", *(_line(name, value) for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def _tables(name: str, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A table without the dictionaries in it, then each of these as a table of its own."""
    yield name, {key: value for key, value in values.items() if not isinstance(value, dict)}
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _tables(f"{name}.{json.dumps(key)}", value)


def _line(name: str, value: Any) -> str:
    return f"{name} = {json.dumps(value)}"
