"""The entries of the table, and options from the command line to those of a routed encoder."""

from types import SimpleNamespace

import pytest

from common.errors import UserError
from merging.wemoe.method import METHODS, READS, options_for
from merging.wemoe.options import E_WEMOE, WemoeOptions
from tests.merging.small_weights import draw, pool


def given(**values):
    """Options of which only ``values`` were typed."""
    return SimpleNamespace(**{name: values.get(name) for name in READS})


def test_what_is_not_typed_is_as_published():
    assert options_for("wemoe", given()) == WemoeOptions()
    assert options_for("e_wemoe", given()) == E_WEMOE


def test_what_is_typed_counts():
    options = options_for("e_wemoe", given(prune_ratio=0.5, position_dim=8, adapt_steps=0))
    assert (options.prune_ratio, options.position_dim, options.adapt_steps, options.shared_gate) == (0.5, 8, 0, True)
    with pytest.raises(UserError, match="add --shared-gate"):
        options_for("wemoe", given(position_dim=8))


def test_without_images_the_methods_say_what_they_need():
    for method in METHODS:
        assert (method.default_scaling, method.transductive) == (0.3, True)
        with pytest.raises(UserError, match=f"{method.name} looks at images"):
            method.start(pool(*draw(2)), SimpleNamespace())
