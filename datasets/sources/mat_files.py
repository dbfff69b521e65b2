"""MATLAB files (up to version 7.2): variables by name. scipy reads them; no code in them is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.decoding import reason
from datasets.sources.listed import damaged
from datasets.sources.mat_structure import check_mat


def read_mat(name: str, path: Path, *variables: str) -> list[NDArray[Any]]:
    """The ``variables`` of a file of the data set ``name``, without dimensions of size one, but with at least one.

    A cell array of texts becomes an array of ``str`` objects, a struct array one with a field per member.
    """
    from scipy.io import loadmat

    try:
        check_mat(path, variables)
        content = loadmat(path, variable_names=variables, squeeze_me=True)
    except Exception as error:  # scipy raises nearly every type on damaged files
        raise damaged(name, path, f"it is no readable MATLAB file ({reason(error).rstrip('.')})") from error
    if absent := [variable for variable in variables if variable not in content]:
        raise damaged(name, path, f"it has no variable '{absent[0]}'")
    return [np.atleast_1d(content[variable]) for variable in variables]
