"""METHODS: every merging method, what it reads and what it needs. The command line, the documentation and the tests read it.

Each entry stands at the end of the file of its method.
"""

from __future__ import annotations

from merging.method import Method
from merging.methods import (
    adamerging,
    average,
    concrete,
    dare,
    emr,
    fisher,
    isotropic,
    magmax,
    model_stock,
    regmean,
    regmean_plus_plus,
    slerp,
    tall_mask,
    task_arithmetic,
    ties,
    tsv_m,
    wudi,
)
from merging.wemoe import method as wemoe

_ALL = (
    *(*average.METHODS, slerp.METHOD, model_stock.METHOD),
    *(task_arithmetic.METHOD, ties.METHOD, *dare.METHODS, magmax.METHOD),
    *(*isotropic.METHODS, tsv_m.METHOD, wudi.METHOD),
    *(tall_mask.METHOD, emr.METHOD),
    *(fisher.METHOD, regmean.METHOD, regmean_plus_plus.METHOD),
    *(*adamerging.METHODS, *concrete.METHODS, *wemoe.METHODS),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}

__all__ = ["METHODS", "Method"]
