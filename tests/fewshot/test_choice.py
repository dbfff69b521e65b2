"""From names and flags to methods and an encoder."""

from pathlib import Path

import pytest

from common.errors import UserError
from fewshot.choice import chosen_methods, listing
from fewshot.table import METHODS

ADAPTER = Path("adapter.safetensors")


def names(*asked, adapter=None, processes=1):
    return [method.name for method in chosen_methods(asked or None, adapter, processes)]


def test_groups():
    """Corrected methods with an adapter alone; without names the methods that need no training."""
    plain = [name for name, method in METHODS.items() if not method.needs_adapter]
    free = [name for name, method in METHODS.items() if not method.trains]
    assert names() == names("training-free") == [name for name in free if name in plain]
    assert names(adapter=ADAPTER) == free
    assert names("all") == plain
    assert names("all", "zero_shot", adapter=ADAPTER) == list(METHODS)


def test_the_order_is_the_tables_and_each_counts_once():
    assert names("tip_x", "zero_shot", "tip_x") == ["zero_shot", "tip_x"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("tipx",), r"Unknown method 'tipx'; did you mean 'tip_x'\?"),
        (("trainingfree",), r"did you mean 'training-free'\?"),
        (("tip_x_corrected",), r"tip_x_corrected compares images by adapted features; .* with --adapter\."),
    ],
)
def test_mistakes(asked, told):
    with pytest.raises(UserError, match=told):
        names(*asked)


def test_towers_are_trained_in_one_process():
    tuned = next(name for name, method in METHODS.items() if method.fit_with_images is not None)
    assert names(tuned) == [tuned]
    with pytest.raises(UserError, match=f"{tuned} trains the towers in one process, and 2 were started"):
        names(tuned, processes=2)


def test_the_listing_says_what_each_needs():
    lines = dict(line.split(maxsplit=1) for line in listing().splitlines())
    assert list(lines) == list(METHODS)
    for name, method in METHODS.items():
        assert ("--adapter" in lines[name]) == method.needs_adapter
        assert ("no training" in lines[name]) != method.trains
        assert method.paper in lines[name]
