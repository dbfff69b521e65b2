"""SVHN: house numbers, cropped to one digit, colour images of 32 x 32 pixels (Netzer et al., "Reading digits in natural images", 2011).

Layout::

    svhn/{train,test}_32x32.mat      MATLAB 5; X uint8 [32, 32, 3, N], y [N, 1] from 1 to 10, where 10 is the digit 0
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.decoding import reason
from datasets.facts import classnames
from datasets.places import find
from datasets.sources.arrays import raw_task
from datasets.sources.mat_structure import check_mat
from datasets.task import Task


def svhn_task(name: str, split: str, data_dir: Path) -> Task:
    """The split ``train`` or ``test``; see :class:`~datasets.registry.Source`."""
    path = find(name, data_dir, f"svhn/{split}_32x32.mat")
    pixels, labels = _read(path)
    digits = np.where(labels == 10, 0, labels)
    return raw_task(name, split, np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), digits, classnames("svhn"), path)


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """X as it is and y [N]."""
    from scipy.io import loadmat

    try:
        check_mat(path, ("X", "y"))
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # on damaged files, nearly every type
        raise UserError(f"'{path}' is torn or no MATLAB file ({reason(error)}); get it anew.") from error
    pixels, labels = content.get("X"), content.get("y")
    are_images = pixels is not None and pixels.shape[:3] == (32, 32, 3) and pixels.ndim == 4 and pixels.dtype == np.uint8
    if not are_images or labels is None or labels.dtype.kind not in "iuf":
        raise UserError(f"'{path}' lacks X [32, 32, 3, N] of unsigned bytes or y [N, 1]; get the cropped digits (format 2) of SVHN.")
    return pixels, labels.reshape(-1)
