"""A TOML file with the lines on which its keys and values stand, so that a mistake in it can be told with its place.

tomllib reads values but forgets where they were. :func:`locate` walks through the text a second time; as tomllib has accepted
the text by then, the walk only has to tell apart keys, strings, brackets and comments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str | int, ...]  # ("tunings", "lora", "lr", 2): the third element of lr in [tunings.lora]


@dataclass(frozen=True)
class TomlFile:
    """What a TOML file says and where it says it."""

    path: Path
    data: dict[str, Any]
    lines: dict[Place, int]

    def table(self, *place: str) -> dict[str, Any]:
        """The table at ``place``, empty where the file has none; a :class:`UserError` when there is something else."""
        value: Any = self.data
        for name in place:
            value = value.get(name, {})
        if not isinstance(value, dict):
            with self.at(*place):
                raise UserError(f"'{place[-1]}' must be a table, [{'.'.join(place)}].")
        return value

    @contextmanager
    def at(self, *place: str | int) -> Iterator[None]:
        """Says of a mistake in the block that it is at ``place``, or at what of it the file has."""
        try:
            yield
        except UserError as error:
            while place and place not in self.lines:
                place = place[:-1]
            raise UserError(f"{self.path}, line {self.lines.get(place, 1)}: {_continuing(str(error))}") from error


def _continuing(message: str) -> str:
    """A sentence after a colon: its first word in lower case, unless that is a name."""
    first, _, rest = message.partition(" ")
    return f"{first.lower()} {rest}" if first in ("Unknown", "The", "No", "Cannot") else message


def read_toml(path: Path) -> TomlFile:
    """Read a TOML file; a :class:`UserError` with the line when it is none."""
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise UserError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text ({error.reason}).") from error
    try:
        return TomlFile(path, tomllib.loads(text), locate(text))
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from error
    except (ValueError, RecursionError) as error:  # numbers or nesting without end
        raise UserError(f"'{path}' is not valid TOML: {error}.") from error


_AT = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")


def _syntax_error(path: Path, text: str, message: str) -> UserError:
    """The parser's message, with its place where this project's messages have it."""
    found, reason = _AT.search(message), _AT.sub("", message)
    if not (found and found["line"]):
        return UserError(f"{path}, line {_begin(text)}: not valid TOML: {reason}; what begins here never ends.")
    line = int(found["line"])
    begin = _begin("\n".join(text.split("\n")[:line]))
    within = f", in what begins in line {begin}" if begin < line else ""
    return UserError(f"{path}, line {line}: not valid TOML: {reason} at column {found['column']}{within}.")


def _begin(text: str) -> int:
    """The line after the longest beginning of the text that is valid: where what is not valid begins."""
    lines = text.split("\n")
    return 1 + max(count for count in range(len(lines)) if _is_valid("\n".join(lines[:count])))


def _is_valid(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def locate(text: str) -> dict[Place, int]:
    """The line, from 1, of every table, key and array element of a valid TOML text with plain line ends.

    A table stands where it is first named, a value where it begins.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_PART = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_PLAIN = re.compile(
    r'''"""(?:\\[\s\S]|[^\\])*?"{3,5}'''  # up to two quotes may stand before the closing three
    r"""|'''[\s\S]*?'{3,5}"""
    r'''|"(?:\\.|[^"\\\n])*"'''
    r"""|'[^'\n]*'"""
    r"""|[^,\]}#\n]+"""  # a number, a date or a truth value
)


class _Scanner:
    """One walk through a valid TOML text."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.lines = text, 0, dict[Place, int]()
        self.lengths: dict[Place, int] = {}  # of the arrays of tables so far

    def document(self) -> None:
        table: Place = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.sees("["):
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)

    def header(self) -> Place:
        """``[a.b]`` or ``[[a.b]]``; where in the data its keys go."""
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        begin = self.at
        self.at += brackets
        self.skip(_BLANK)
        *above, last = self.key()
        table = (*self.inside(above), last)
        self.mark(table, begin)
        if brackets == 2:
            self.lengths[table] = self.lengths.get(table, 0) + 1
            table = (*table, self.lengths[table] - 1)
            self.mark(table, begin)
        self.skip(_BLANK)
        self.at += brackets
        return table

    def inside(self, names: list[str]) -> Place:
        """Where a header's leading names lead: into the last table of every array of tables on the way."""
        place: Place = ()
        for name in names:
            place = (*place, name)
            if place in self.lengths:
                place = (*place, self.lengths[place] - 1)
        return place

    def pair(self, table: Place) -> None:
        """``key = value``"""
        begin = self.at
        place = (*table, *self.key())
        self.mark(place, begin)
        self.skip(_EQUALS)
        self.value(place)

    def key(self) -> list[str]:
        """The parts of a key, dotted or not, without their quotes."""
        text = self.skip(_KEY)
        inner, parts = tomllib.loads(f"{text} = 0"), list[str]()
        while isinstance(inner, dict):
            ((part, inner),) = inner.items()
            parts.append(part)
        return parts

    def value(self, place: Place) -> None:
        self.mark(place, self.at)
        if self.sees("["):
            self.elements("]", place)
        elif self.sees("{"):
            self.elements("}", place)
        else:
            self.skip(_PLAIN)

    def elements(self, closing: str, place: Place) -> None:
        """What stands between the brackets of an array or of an inline table."""
        self.at += 1
        self.skip(_BLANK)
        number = 0
        while not self.sees(closing):
            if closing == "]":
                self.value((*place, number))
            else:
                self.pair(place)
            self.skip(_BLANK)
            self.at += self.sees(",")
            self.skip(_BLANK)
            number += 1
        self.at += 1

    def mark(self, place: Place, at: int) -> None:
        """Note where ``place``, and all that it lies in, was first seen."""
        line = self.text.count("\n", 0, at) + 1
        for length in range(1, len(place) + 1):
            self.lines.setdefault(place[:length], line)

    def sees(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def skip(self, pattern: re.Pattern[str]) -> str:
        """Go over what the pattern matches here, and return it."""
        found = pattern.match(self.text, self.at)
        if found is None:
            raise AssertionError(f"line {self.text.count(chr(10), 0, self.at) + 1} is not the TOML that the parser took it for")
        self.at = found.end()
        return found[0]
