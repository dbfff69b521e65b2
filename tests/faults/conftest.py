"""Prints how many faults there were, in all processes of the run together."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.faults.scale import COUNTS


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what a worker has counted to the process that prints."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = dict(COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker has counted."""
    COUNTS.update(Counter(getattr(node, "workeroutput", {}).get("faults", {})))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line, as "faults: 1,204 kills, 21 terminations"."""
    if COUNTS:
        terminalreporter.write_line("faults: " + ", ".join(f"{n:,} {what}" for what, n in sorted(COUNTS.items()) if n))
