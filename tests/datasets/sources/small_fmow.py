"""A small copy of FMoW in the layout and with the columns that WILDS published (version 1.1)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = (
    "split", "img_filename", "img_path", "spatial_reference", "epsg", "category", "visible", "img_width", "img_height",
    "country_code", "cloud_cover", "timestamp", "lat", "lon",
)  # fmt: skip
COUNTRIES = (
    ("China", "CN", "CHN", "Asia"),
    ("France", "FR", "FRA", "Europe"),
    ("Kenya", "KE", "KEN", "Africa"),
    ("Namibia", "NA", "NAM", "Africa"),
    ("United States of America", "US", "USA", "Americas"),
    ("Australia", "AU", "AUS", "Oceania"),
)
ELSEWHERE = "XKX"  # Kosovo: a code of fMoW that the table of countries lacks
CATEGORIES = ("zoo", "airport", "race_track", "multi-unit_residential")
SPLITS = ("train", "val", "test", "seq")
YEARS = {
    "2002-06-01T10:00:00Z": "id",
    "2011-02-07T02:48:56.643Z": "id",  # a few have fractions of a second
    "2012-12-31T23:59:59Z": "id",
    "2013-01-01T00:00:00Z": "between",
    "2015-12-31T23:59:59Z": "between",
    "2016-01-01T00:00:00Z": "ood",
    "2017-09-30T12:00:00Z": "ood",
}
ROWS = 350


def rows_of_table() -> list[dict[str, str]]:
    """Every split with every time, several times over, countries and categories at random."""
    generator = np.random.default_rng(0)
    codes = [country[2] for country in COUNTRIES] + [ELSEWHERE]
    rows = []
    for number in generator.permutation(ROWS).tolist():
        category = str(generator.choice(CATEGORIES))
        name = f"{category}_{number}_0_rgb.jpg"
        row = dict.fromkeys(COLUMNS, "1") | {"img_filename": name, "img_path": f"x/{category}/{name}", "category": category}
        row |= {"split": SPLITS[number % 4], "country_code": str(generator.choice(codes)), "timestamp": list(YEARS)[number % 7]}
        rows.append(row)
    return rows


def color_of(row: int) -> tuple[int, int, int]:
    """The colour of image ``row``: no two are alike."""
    return row % 256, row // 256 * 100, 255 - row % 200


def write_fmow(data_dir: Path) -> list[dict[str, str]]:
    """``data_dir/fmow_v1.1`` with :data:`ROWS` images; returns the rows of its table."""
    root, rows = data_dir / "fmow_v1.1", rows_of_table()
    (root / "images").mkdir(parents=True)
    (root / "RELEASE_v1.1.txt").write_text("\n")
    countries = [dict(zip(("name", "alpha-2", "alpha-3", "region"), country, strict=True)) for country in COUNTRIES]
    for file, table in (("rgb_metadata.csv", rows), ("country_code_mapping.csv", countries)):
        with (root / file).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    for number in range(len(rows)):
        Image.new("RGB", (16, 16), color_of(number)).save(root / f"images/rgb_img_{number}.png")
    return rows
