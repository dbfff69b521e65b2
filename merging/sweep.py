"""The grid of a sweep: which merges it asks for. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from common.errors import UserError, unknown_name
from common.files import exact
from merging.arguments import dashed, flag_of
from merging.options import MergeOptions

if TYPE_CHECKING:
    from merging.method import Method

MOST = 1000  # merges in one sweep; more are a slip of the pen


@dataclass(frozen=True)
class Point:
    """One merge of a sweep: the values of the swept options, and all options."""

    swept: dict[str, float]
    options: MergeOptions

    @property
    def label(self) -> str:
        """What tables call it, e.g. ``scaling=0.3 density=0.2``."""
        return " ".join(f"{dashed(name)}={exact(value)}" for name, value in self.swept.items())


def grid(axes: Sequence[str], options: MergeOptions, method: Method) -> list[Point]:
    """Every combination of the ``axes``, each as :func:`parse_axis` takes it, with the other ``options`` as they are.

    Raises :class:`UserError` for an axis that is no numeric option of the method, or is given twice, and for values out of range.
    """
    parsed = [parse_axis(axis) for axis in axes]
    if options.save_weights is not None:
        raise UserError("--save-weights keeps what one merge learns, and --sweep makes many; leave one of them out.")
    for name, _ in parsed:
        if name not in method.reads or name not in _numeric():
            known = [other for other in method.reads if other in _numeric()]
            raise unknown_name(f"numeric option of {method.name}", dashed(name), map(dashed, known))
        if [other for other, _ in parsed].count(name) > 1:
            raise UserError(f"--sweep gives {dashed(name)} twice; give all its values at once, e.g. {dashed(name)}=0.1,0.2,0.5.")
        if getattr(options, name) != getattr(MergeOptions(), name):
            raise UserError(f"{flag_of(name)} and --sweep both say what it is; leave {flag_of(name)} out.")
    combinations = product(*(values for _, values in parsed))
    points: list[dict[str, Any]] = [dict(zip([name for name, _ in parsed], combination, strict=True)) for combination in combinations]
    if len(points) > MOST:
        raise UserError(f"--sweep asks for {len(points)} merges; at most {MOST} are made, take fewer values.")
    return [Point(point, replace(options, **point)) for point in points]


def parse_axis(text: str) -> tuple[str, list[float]]:
    """``NAME=FROM:TO:STEP``, both ends included, or ``NAME=VALUE,VALUE,...``, as the option's name and its values.

    Steps are added in decimal arithmetic: ``0.1:1.0:0.1`` are ten values, the third of them 0.3.
    """
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    try:
        listed = _range(values) if ":" in values else [Decimal(value) for value in values.split(",")]
    except (InvalidOperation, ValueError):
        listed = []
    if not (name and equals and listed and all(value.is_finite() for value in listed)):
        raise UserError(f"--sweep '{text}' is not NAME=FROM:TO:STEP or NAME=VALUE,VALUE,..., e.g. scaling=0.1:1.0:0.1.")
    kind = _numeric().get(name, float)
    if kind is int and any(value != int(value) for value in listed):
        raise UserError(f"--sweep '{text}': {dashed(name)} takes whole numbers.")
    return name, [kind(value) for value in dict.fromkeys(listed)]


def _range(text: str) -> list[Decimal]:
    first, last, step = map(Decimal, text.split(":"))
    if not all(value.is_finite() for value in (first, last, step)) or step == 0 or (last - first) / step < 0:
        return []
    return [first + number * step for number in range(min(int((last - first) / step) + 1, MOST + 1))]


def _numeric() -> dict[str, type]:
    """The options that are a number, and whether it is whole."""
    kinds: dict[str, Any] = get_type_hints(MergeOptions)
    plain = {name: next((one for one in get_args(kind) if one in (int, float)), kind) for name, kind in kinds.items()}
    return {name: kind for name, kind in plain.items() if kind in (int, float)}
