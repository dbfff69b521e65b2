"""Accuracies as they are printed: a block for each data set, a line for each method, a column for each number of shots."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from common.text import aligned
from fewshot.results import ARROW, Mean

Means = Mapping[tuple[str, str, int], Mean]
AVERAGE = "mean of the data sets"
ZERO_SHOT = "zero_shot"


def accuracy_tables(means: Means) -> str:
    """All blocks, per cent, mean ± deviation over seeds; with several data sets also the mean over them, which count alike."""
    blocks = [_block(dataset, dataset, means) for dataset in data_sets(means)]
    own = data_sets(means, only_own=True)
    if len(own) > 1:
        blocks.append(_block(AVERAGE, f"{AVERAGE} (n = {len(own)})", average(means)))
    return "\n\n".join(blocks)


def data_sets(means: Means, only_own: bool = False) -> list[str]:
    """What was tested on, in order; with ``only_own`` less what a data set's classifiers were transferred to."""
    return [name for name in dict.fromkeys(name for name, _, _ in means) if not (only_own and ARROW in name)]


def average(means: Means) -> dict[tuple[str, str, int], Mean]:
    """The mean over the data sets, under the name :data:`AVERAGE`, of the methods and shots that all of them have; no deviation."""
    own = data_sets(means, only_own=True)
    found = {
        (AVERAGE, method, shots): [means[name, method, shots] for name in own if (name, method, shots) in means]
        for method, shots in dict.fromkeys((method, shots) for _, method, shots in means)
    }
    return {key: Mean(fmean(of.mean for of in each), None, len(each)) for key, each in found.items() if len(each) == len(own)}


def _block(dataset: str, title: str, means: Means) -> str:
    own = {(method, shots): mean for (of, method, shots), mean in means.items() if of == dataset}
    shots = sorted({count for _, count in own if count}) or [0]
    lines = [[title, *(f"{count} shot{'s' * (count != 1)}" if count else "no shots" for count in shots)]]
    for method in dict.fromkeys(method for method, _ in own):
        lines.append([f"  {method}", *(str(own[key]) if (key := _key(method, count)) in own else "" for count in shots)])
    return aligned(lines)


def _key(method: str, shots: int) -> tuple[str, int]:
    """Zero-shot classification is the same for all numbers of shots."""
    return (method, 0) if method == ZERO_SHOT else (method, shots)
