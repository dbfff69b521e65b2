"""Measures of embeddings in parts, read one after the other: those of sums over images, which add up over parts.

Standard errors by the jackknife take a second pass: what a measure is without one image follows from the sums of all and that image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.embeddings import PartedEmbeddings
from engine.scores import spread
from metrics.jackknife import LEFT_OUT, JackknifeError
from metrics.metric import AS_DEFINED
from metrics.sample import Sample, SampleOfWhole
from metrics.statistics import ImageSums, MetricError
from metrics.sums import OF_SUMS, Sums, sums_of
from metrics.table import BY_ANY_NAME
from metrics.uncertainty import Uncertainty, normal_interval, without_interval

Draw = Callable[[int], NDArray[np.int64]]  # of so many images, those that are measured, in order


def score_parts(parts: PartedEmbeddings, names: Sequence[str], draw: Draw) -> tuple[int, int, list[dict[str, Any]]]:
    """N, C and of each measure its row as :func:`engine.scores.score` gives it; afterwards the metadata of ``parts`` is known.

    All ``names`` must be in :data:`metrics.sums.OF_SUMS`, without the large sums of transrate. Raises MetricError where one is undefined.
    """
    chosen, started = draw(parts.n_images), time.perf_counter()
    measures = {name: OF_SUMS[BY_ANY_NAME[name].name] for name in names}
    of, rows = _sums(parts, chosen, max(measure.step for measure in measures.values())), list[dict[str, Any]]()
    for name, measure in measures.items():
        value, seconds, started = measure.function(of), time.perf_counter() - started, time.perf_counter()
        rows.append({"measure": name, "variant": AS_DEFINED, "score": value, "seconds": round(seconds, 6)})
    spreads = _standard_errors(parts, rows, chosen, of.statistics.images)
    return len(chosen), len(of.statistics.texts), [row | spread(spreads[row["measure"]], 0) for row in rows]


def _sums(parts: PartedEmbeddings, chosen: NDArray[np.int64], step: int) -> Sums:
    found: Sums | None = None
    for sample in _samples(parts, chosen):
        found = sums_of(sample, step) if found is None else found + sums_of(sample, step)
    if found is None:
        raise MetricError("no image is measured.")
    return found


def _samples(parts: PartedEmbeddings, chosen: NDArray[np.int64]) -> Iterator[Sample]:
    """The chosen images of every part that has some, with the texts of the first: other machines round them differently."""
    first, texts = 0, None
    for part in parts:
        count = len(part.labels)
        texts = part.text_embeddings if texts is None else texts
        begin, end = np.searchsorted(chosen, [first, first + count])
        rows = slice(None) if end - begin == count else chosen[begin:end] - first
        if end > begin:
            yield Sample(part.image_embeddings[rows], texts, part.labels[rows])
        first += count


def _standard_errors(
    parts: PartedEmbeddings, rows: Sequence[dict[str, Any]], chosen: NDArray[np.int64], whole: ImageSums
) -> dict[str, Uncertainty]:
    """By name, as :func:`metrics.uncertainty.uncertainties` without a bootstrap."""
    errors = {row["measure"]: JackknifeError() for row in rows if BY_ANY_NAME[row["measure"]].name in LEFT_OUT}
    undefined: dict[str, str] = {}
    for sample in _samples(parts, chosen) if errors else ():
        of_whole = SampleOfWhole(sample.images, sample.texts, sample.labels, whole=whole)
        for name in errors.keys() - undefined.keys():
            try:
                errors[name].add(LEFT_OUT[BY_ANY_NAME[name].name](of_whole))
            except MetricError as error:
                undefined[name] = str(error)
    values = {row["measure"]: row["score"] for row in rows}
    known = {name: normal_interval(values[name], of.value) for name, of in errors.items() if name not in undefined}
    return {name: known.get(name) or without_interval(undefined.get(name, "no closed form of sums")) for name in values}
