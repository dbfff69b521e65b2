"""Errors that a user can cause.

A :class:`UserError` carries one sentence that names the thing, says what was expected and, where it helps, the nearest
valid name or the command that mends it. The scripts print it and exit with status 2; anything else is a defect of
clipscope and raises with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A user's mistake, told in one sentence."""


class Interrupted(Exception):
    """A signal asked to stop; what was done is saved. The scripts print it and exit with status 75, "try again later"."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name`` (case does not count), or None when nothing is alike."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table: says the nearest valid name, or lists all of them."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f"did you mean '{guess}'?" if guess else f"known: {', '.join(names)}."
    return UserError(f"Unknown {kind} '{name}'; {hint}")
