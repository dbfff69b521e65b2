"""How many faults the tests in this folder cause: few by default, many with ``CLIPSCOPE_FAULTS=long`` (``make faults``); their count.

They are the same in every run; ``CLIPSCOPE_FAULTS_SEED=1`` draws others.
"""

from __future__ import annotations

import os
from collections import Counter

SEED = os.environ.get("CLIPSCOPE_FAULTS_SEED", "")
COUNTS: Counter[str] = Counter()  # of this process; tests/faults/conftest.py adds those of all processes


def times(short: int, long: int) -> int:
    """``short``, or ``long`` in the long form."""
    return long if os.environ.get("CLIPSCOPE_FAULTS") == "long" else short


def count(what: str, n: int = 1) -> None:
    """Add to the totals that are printed at the end; ``what`` is a plural, such as "kills"."""
    COUNTS[what] += n
