"""METRICS: every measure, what it needs, what it means. The command line, the documentation and the tests read it.

Each entry stands at the end of the file of its measure.
"""

from __future__ import annotations

from metrics import (
    alignment,
    emms,
    gap,
    gbc,
    hscore,
    iimm,
    knn,
    leep,
    linear_probe,
    logme,
    ncti,
    nleep,
    overlap,
    parc,
    sfda,
    text_text,
    transrate,
    uniformity,
    variance,
    zero_shot,
)
from metrics.metric import Metric
from metrics.statistics import MetricError

_GEOMETRY = (
    *(*iimm.METRICS, alignment.METRIC, text_text.METRIC, gap.METRIC, uniformity.METRIC),
    *(*overlap.METRICS, *variance.METRICS),
)
_TRANSFERABILITY = (
    *(*hscore.METRICS, logme.METRIC, *leep.METRICS, *nleep.METRICS, transrate.METRIC, *gbc.METRICS, sfda.METRIC, ncti.METRIC),
    *(*emms.METRICS, *parc.METRICS, *knn.METRICS, *linear_probe.METRICS, *zero_shot.METRICS),
)
_ALL = (*_GEOMETRY, *_TRANSFERABILITY)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

# Every accepted spelling. The released IIMM code swaps inter and intra relative to the paper: see metrics/iimm.py.
BY_ANY_NAME: dict[str, Metric] = {name: metric for metric in _ALL for name in (metric.name, *metric.released_names)}

__all__ = ["BY_ANY_NAME", "METRICS", "Metric", "MetricError"]
