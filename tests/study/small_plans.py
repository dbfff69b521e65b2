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
    others = {name: asked.pop(name) for name in ("inversion", "merging") if name in asked}
    tables = {"training": training} if training else {}
    tables |= {f"tunings.{name}": table for name, table in tunings.items()}
    for name, values in others.items():
        tables |= dict(_tables(name, values))
    lines = [_line(name, value) for name, value in asked.items()]
    for table, values in tables.items():
        lines += [f"[{table}]", *(_line(name, value) for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_inversion_plan(path: Path, top: dict[str, Any], **inversion: Any) -> Path:
    """A plan of inversion alone; a keyword's dictionary is a table below [inversion]."""
    return write_tables(path, {"title": "A small inversion", **top}, {"inversion": inversion})


def write_tables(path: Path, top: dict[str, Any], tables: dict[str, dict[str, Any]]) -> Path:
    """A plan with these keys above its first table, and these tables; a dictionary in one is a table below it."""
    lines = [_line(name, value) for name, value in top.items()]
    for name, values in tables.items():
        for table, of in _tables(name, values):
            lines += [f"[{table}]", *(_line(key, value) for key, value in of.items())]
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
