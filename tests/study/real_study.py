"""A study that really runs, in seconds: a small random model, two folders of coloured images, three tunings."""

from __future__ import annotations

import csv
from pathlib import Path

from tests.helpers import write_images

QUICK = ("--num-workers", 0, "--device", "cpu")
TUNINGS = {"full": "lr = [1e-3, 1e-4]", "lora": "lr = 1e-2\nrank = [2, 4]", "probe": "lr = 1e-2"}
PLAN = """
title = "A small study"
about = "Coloured images and a random model: nothing to be learnt from it."
models = ["local-dir:{model}"]
tasks = ["imagefolder:{folder}/one", "imagefolder:{folder}/two"]
measures = ["iimm", "image_image", "wrong_label", "hscore"]
components = ["image_image", "wrong_label"]
val_p = 0.2

[training]
epochs = 4
batch_size = 4
optimizer = "AdamW"
"""


def write_plan(folder: Path, model: Path, tunings: tuple[str, ...] = tuple(TUNINGS)) -> Path:
    """A plan file with its images beside it."""
    for seed, name in enumerate(("one", "two")):
        write_images(folder / name / "train", 8, seed)
        write_images(folder / name / "test", 4, seed + 10)
    tables = "".join(f"\n[tunings.{name}]\n{TUNINGS[name]}\n" for name in tunings)
    path = folder / "small.toml"
    path.write_text(PLAN.format(model=model, folder=folder) + tables)
    return path


def tables(out: Path) -> dict[str, list[list[str]]]:
    """The report's tables by file name, without what no two runs have in common: seconds and times of day."""
    found = {}
    for path in sorted((out / "tables").glob("*.csv")):
        with path.open(newline="") as stream:
            header, *rows = csv.reader(stream)
        kept = [number for number, column in enumerate(header) if not (column.endswith(" s") or "second" in column or column == "longest")]
        found[path.name] = [[row[number] for number in kept] for row in (header, *rows) if row[0] not in ("first cell", "last cell")]
    assert found, "no tables"
    return found
