"""A small plan for tests, as TOML."""

import json
from pathlib import Path
from typing import Any

TRAINING = {"epochs": 1, "lr": [0.01, 0.001], "optimizer": "SGD", "batch_size": 8}
TUNINGS = {"lora": {"rank": 2}, "probe": {"lr": 0.01}}


def write_plan(path: Path, training: dict[str, Any] = TRAINING, tunings: dict[str, Any] = TUNINGS, **top: Any) -> Path:
    """A plan with these keys above its first table; a value is written as JSON, which is TOML for what stands here."""
    asked = {"title": "A small study", "measures": ["iimm", "gap"], "val_p": 0.2, **top}
    tables = {"training": training} if training else {}
    tables |= {f"tunings.{name}": table for name, table in tunings.items()}
    lines = [_line(name, value) for name, value in asked.items()]
    for table, values in tables.items():
        lines += [f"[{table}]", *(_line(name, value) for name, value in values.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def _line(name: str, value: Any) -> str:
    return f"{name} = {json.dumps(value)}"
