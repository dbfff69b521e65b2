"""Other images of the same classes: a classifier made from one data set, tested on another (``--transfer``).

Cache, class texts and hyper-parameters are those of the data set that was learnt from. The test sets of ImageNet are known by their
class indices: R and A show 200 of its classes, and of the logits over 1000 those of the others are left out. Any other data set
whose class names are among those of the first will do, e.g. its own test images corrupted (``Digits+contrast-3``).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.facts import facts
from datasets.naming import parse_name
from datasets.sources.imagenet import N_CLASSES, SUBSETS, TEST_SETS
from datasets.task import Task

PUBLISHED_NAMES = {
    "ImageNet-V2": "ImageNetV2",
    "ImageNet-Sketch": "ImageNetSketch",
    "ImageNet-R": "ImageNetRendition",
    "ImageNet-A": "ImageNetAdversarial",
}


def data_set(name: str) -> str:
    """The data set's name here of one that papers write otherwise; other names stay as they are."""
    return PUBLISHED_NAMES.get(name, name)


def class_columns(source: Task, target: Task) -> NDArray[np.int64]:
    """The class of ``source`` that each class of ``target`` is: the columns int64 [C'] of its logits [N, C] that count.

    Raises :class:`UserError` where a class of ``target`` is none of ``source``, or might be two of them.
    """
    base, tested = parse_name(source.name).base, parse_name(target.name).base
    if base == "ImageNet" and tested in TEST_SETS:
        return np.array(facts()[SUBSETS[tested]] if tested in SUBSETS else range(N_CLASSES), dtype=np.int64)
    if source.classnames == target.classnames:
        return np.arange(len(source.classnames))
    found, count = {name: index for index, name in enumerate(source.classnames)}, Counter(source.classnames)
    for name in target.classnames:
        if count[name] != 1:
            problem = "is no class" if name not in found else f"is the name of {count[name]} classes"
            raise UserError(f"'{name}', a class of {target.name}, {problem} of {source.name}; --transfer takes data sets with its classes.")
    return np.array([found[name] for name in target.classnames], dtype=np.int64)
