"""The documentation's table of measures, made from METRICS.

python -m metrics.document > docs/measures.md
"""

from __future__ import annotations

from metrics.metric import Metric
from metrics.table import METRICS

HEAD = """# Measures

Made from `metrics/table.py` by `python -m metrics.document > docs/measures.md`. The definition of each measure, with formula
and source, stands in the file of its name in `metrics/`. N images, C classes, D dimensions; all in float64.

| name | what it is | high means | range | least images, classes | time | released names |
|---|---|---|---|---|---|---|
"""

RELEASED = """
## As released

`--as-released` gives the number of the papers' released code where that differs from the definition, so that published tables can be met.

| name | what the released code does |
|---|---|
"""


def _row(metric: Metric) -> str:
    low, high = metric.range
    cells = (
        f"`{metric.name}`",
        metric.description,
        metric.higher_is,
        f"{low:g} to {high:g}",
        f"{metric.min_images}, {metric.min_classes}",
        getattr(metric, "cost", ""),
        ", ".join(f"`{name}`" for name in metric.released_names),
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def document() -> str:
    """The page as Markdown."""
    rows = "".join(_row(metric) for metric in METRICS.values())
    released = "".join(f"| `{metric.name}` | {metric.released_note} |\n" for metric in METRICS.values() if metric.as_released is not None)
    return HEAD + rows + RELEASED + released


if __name__ == "__main__":
    print(document(), end="")
