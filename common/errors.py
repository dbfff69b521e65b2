"""Errors that a user can cause.

A :class:`UserError` carries one sentence that names the thing, says what was expected and, where it helps, the nearest
valid name or the command that mends it. The scripts print it and exit with status 2; anything else is a defect of
clipscope and raises with its traceback.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

LONGEST = 1800  # signs of a sentence: a damaged table may hold a cell of a megabyte, and sentences quote cells
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a terminal obeys some of them


class UserError(Exception):
    """A user's mistake, told in one sentence, on one line: what it quotes of a file may hold line ends and worse, which are escaped."""

    def __str__(self) -> str:
        text = _CONTROL.sub(lambda sign: repr(sign[0])[1:-1], super().__str__())
        return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


class CannotWrite(UserError):
    """A file cannot be written, for want of space or of leave, whatever it is to hold."""


class Interrupted(Exception):
    """A signal asked to stop; what was done is saved. The scripts print it and exit with status 75, "try again later"."""


def nearest(name: str, known: Iterable[str], alike: float = 0.5) -> str | None:
    """The known name most like ``name`` (case does not count), or None when none is ``alike``, from 0, anything, to 1, the same."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=alike)
    return by_lower[found[0]] if found else None


# What a file system says of a path that was asked for, wherever it is found out.
_OF_A_PATH = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ELOOP)


def of_file_system(error: OSError) -> UserError | None:
    """The user's mistake that the error is, such as a path that is too long; None when it may be a defect."""
    if error.errno not in _OF_A_PATH or not isinstance(error.filename, str | os.PathLike):
        return None
    return UserError(f"Cannot use '{os.fspath(error.filename)}': {error.strerror}.")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a table: says the nearest valid name, or lists all of them."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f"did you mean '{guess}'?" if guess else f"known: {', '.join(names)}."
    return UserError(f"Unknown {kind} '{name}'; {hint}")
