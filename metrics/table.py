"""METRICS: every measure, what it needs, what it means. The command line, the documentation and the tests read it.

Each entry stands at the end of the file of its measure.
"""

from __future__ import annotations

from metrics import alignment, gap, iimm, text_text, uniformity
from metrics.metric import GEOMETRY, Metric
from metrics.statistics import MetricError

_GEOMETRY = (*iimm.METRICS, alignment.METRIC, text_text.METRIC, gap.METRIC, uniformity.METRIC)
_ALL = (*_GEOMETRY,)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

# Every accepted spelling. The released IIMM code swaps inter and intra relative to the paper: see metrics/iimm.py.
BY_ANY_NAME: dict[str, Metric] = {name: metric for metric in _ALL for name in (metric.name, *metric.released_names)}

__all__ = ["BY_ANY_NAME", "GEOMETRY", "METRICS", "Metric", "MetricError"]
