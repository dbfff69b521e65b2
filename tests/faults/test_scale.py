from __future__ import annotations

import pytest

from tests.faults.scale import COUNTS, count, times


def test_the_short_form_is_the_default_and_the_long_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPSCOPE_FAULTS", raising=False)
    assert times(3, 100) == 3
    monkeypatch.setenv("CLIPSCOPE_FAULTS", "long")
    assert times(3, 100) == 100


def test_counts_add_up() -> None:
    try:
        count("tries")
        count("tries", 4)
        assert COUNTS["tries"] == 5
    finally:
        del COUNTS["tries"]
