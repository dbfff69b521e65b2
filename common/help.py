"""How the help of a script looks: its docstring, filled to the terminal, then the flags with short names for their values."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

WIDEST = 100  # columns; longer lines are hard to read, however wide the terminal is
_VALUES = {"int": "N", "count": "N", "positive_int": "N", "float": "X", "non_negative": "X", "learning_rate": "X", "proportion": "X"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Fills paragraphs, leaves commands and tables as they are but for lines that are too long, and shows defaults that say something."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, max_help_position=28, **settings)
        self._width = min(self._width, WIDEST)

    def _format_usage(self, usage: Any, actions: Iterable[argparse.Action], groups: Any, prefix: str | None) -> str:
        """What must be given; all that may be given follows in groups, and would fill half a page here."""
        needed = [action for action in actions if action.required or not action.option_strings]
        return super()._format_usage(usage, needed, [], prefix).rstrip() + " [options]\n\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.indent(filled(text, self._width - len(indent)), indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _wrapped(" ".join(text.split()), width)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "":  # 0 says something
            return action.help
        if isinstance(action.default, list | tuple):  # as they would be typed
            values = " ".join(map(str, action.default))
            return f"{action.help} (default: {values})" if values else action.help
        return super()._get_help_string(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        """N for a whole number, X for a number, PATH, or NAME, instead of the flag's name once more."""
        usual = "X" if isinstance(action.default, float) else "NAME"
        return "PATH" if action.type is Path else _VALUES.get(getattr(action.type, "__name__", ""), usual)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """All spellings, then the value once."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


def filled(text: str, width: int) -> str:
    """``text`` in lines of at most ``width``: paragraphs are filled; indented lines stay, and are broken only where they are longer."""
    lines = re.sub(r" \\\n +", " ", text.strip("\n")).split("\n")
    blocks = groupby(lines, key=lambda line: "indented" if line.startswith(" ") else "text" if line else "empty")
    return "\n".join("\n".join(_broken(list(block), kind, width)) for kind, block in blocks)


def _broken(lines: list[str], kind: str, width: int) -> Iterable[str]:
    if kind == "indented":
        return [piece for line in lines for piece in ([line] if len(line) <= width else _command(line, width) or _row(line, width))]
    return _wrapped(" ".join(lines), width) or lines


def _command(line: str, width: int) -> list[str]:
    """A command over several lines, as a shell takes it, broken before flags, its comment first; none where ``line`` is no command."""
    if not re.match(r"    (python|torchrun) ", line):
        return []
    command, _, comment = line.partition("  # ")
    first, *flags = re.split(r" (?=--)", command.rstrip())
    pieces = [first]
    for flag in flags:
        if len(pieces[-1]) + len(flag) + 3 > width:
            pieces.append(" " * 8 + flag)
        else:
            pieces[-1] += f" {flag}"
    return ([f"    # {comment}"] if comment else []) + [f"{piece} \\" for piece in pieces[:-1]] + pieces[-1:]


def _row(line: str, width: int) -> list[str]:
    """A row of a table, whose last column goes on below itself."""
    columns = re.match(r" *\S.*?  +", line)
    return _wrapped(line, width, subsequent_indent=" " * (columns.end() if columns else 8))


def _wrapped(text: str, width: int, **how: Any) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False, **how)
