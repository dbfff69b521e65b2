"""Work that several measures of one sample share, or a measure and its standard error, is done once."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from metrics.sample import Sample

Result = TypeVar("Result")


def once_per_sample(function: Callable[[Sample], Result]) -> Callable[[Sample], Result]:
    """The function, which remembers its result for each sample for as long as the sample exists.

    >>> import numpy as np
    >>> measured = []
    >>> size = once_per_sample(lambda sample: measured.append(len(sample)) or len(sample))
    >>> sample = Sample(np.eye(3))
    >>> size(sample), size(sample), measured
    (3, 3, [3])
    """
    results: WeakKeyDictionary[Sample, Result] = WeakKeyDictionary()

    @wraps(function)
    def remembered(sample: Sample) -> Result:
        if sample not in results:
            results[sample] = function(sample)
        return results[sample]

    return remembered
