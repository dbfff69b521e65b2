"""The locator against texts whose lines are known, and against tomllib for which places there are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from study.toml_lines import locate, read_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def places(value: Any, place: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every table, key and element of what tomllib read."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {place} if place else set()
    return found.union(*(places(child, (*place, key)) for key, child in children))


def located(text: str) -> dict[tuple[str | int, ...], int]:
    lines = locate(text)
    assert set(lines) == places(tomllib.loads(text))
    return lines


def test_keys_tables_and_elements_of_arrays_over_several_lines() -> None:
    text = """# a comment with = and [brackets]
title = "x" # another
tasks = [ # here "too", ] even
    "a", "b",

    # "not one"
    "c", # , "d"
]
[ training ]
lr = [1e-2,
      1e-3]
[tunings."my lora"] # [tunings.other]
rank = 4
"""
    lines = located(text)
    assert lines["title",] == 2
    assert [lines["tasks", number] for number in range(3)] == [4, 4, 7]
    assert (lines["training",], lines["training", "lr"], lines["training", "lr", 1]) == (9, 10, 11)
    assert (lines["tunings",], lines["tunings", "my lora"], lines["tunings", "my lora", "rank"]) == (12, 12, 13)


def test_strings_that_look_like_something_else() -> None:
    text = '''a = "[b] # \\" ] = ,"
b = \'[c] = "\'
c = """
[d]
e = 1 \\""" "" still \\\\"""
d = """two quotes at the end"""""
e = \'\'\'
f = 2 """ # \'\' \'\'\'\'
f = ["""
x""", \'\'\'
]\'\'\', 3]
g = ""
h = \'\'
i = """"""
j = \'\'\'\'\'\'
k = 1
'''
    lines = located(text)
    assert {place[0]: line for place, line in lines.items() if len(place) == 1} == {
        **{"a": 1, "b": 2, "c": 3, "d": 6, "e": 7, "f": 9, "g": 12, "h": 13},
        **{"i": 14, "j": 15, "k": 16},
    }
    assert [lines["f", number] for number in range(3)] == [9, 10, 11]


def test_dotted_quoted_and_bare_keys() -> None:
    text = 'a.b . "c.d" = 1\n\'e = f\' = 2\n"\\u0041 [" = 3\n1 = 4\n2.5 = 5\n[x.y]\nz.w = [6]\n'
    lines = located(text)
    assert lines["a", "b", "c.d"] == 1
    assert (lines["e = f",], lines["A [",], lines["1",], lines["2", "5"]) == (2, 3, 4, 5)
    assert (lines["x",], lines["x", "y"], lines["x", "y", "z", "w", 0]) == (6, 6, 7)


def test_inline_tables_dates_numbers_and_arrays_in_arrays() -> None:
    text = """a = { b = 1, c.d = [2, { e = "}" }], f = {} }
g = 1979-05-27 07:32:00
h = [1979-05-27 07:32:00, 07:32:00, +inf, 0xff, 1_000.5e-3]
i = [[], [
  [1],
  true]]
j = []
"""
    lines = located(text)
    assert lines["a", "c", "d", 1, "e"] == 1
    assert (lines["i", 1], lines["i", 1, 0, 0], lines["i", 1, 1]) == (4, 5, 6)
    assert lines["j",] == 7


def test_arrays_of_tables() -> None:
    text = "[[a]]\nx = 1\n[[a.b]]\ny = 2\n[[a.b]]\n[a.b.c]\nz = 3\n[[a]]\n[a.d]\n[e]\n"
    lines = located(text)
    assert lines["a", 0, "b", 1, "c", "z"] == 7
    assert (lines["a",], lines["a", 1], lines["a", 1, "d"], lines["e",]) == (1, 8, 9, 10)


BLANKS = st.sampled_from(["", " ", "\t ", "  "])
SCALARS = st.sampled_from(["1", "-0.5e3", "true", "1979-05-27", "1979-05-27 07:32:00Z"])
STRINGS = st.sampled_from(['"# ] } , ="', "'\"'", '"\\\\"', '"\\""', '""', "''"])
LONG_STRINGS = st.sampled_from(['"""a""b"""', "'''\"'''", '"""\n[x]\n\n"""', "'''\n'\n'''", '"""\\\n  """""'])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar", "array", "inline"] if depth else ["scalar"]))
    if kind == "scalar":
        return draw(SCALARS | STRINGS | LONG_STRINGS)
    items = draw(st.lists(values(depth - 1), max_size=3))
    if kind == "inline":
        return "{" + ", ".join(f"k{number}{draw(BLANKS)}={draw(BLANKS)}{item}" for number, item in enumerate(items)) + "}"
    gaps = st.sampled_from(["", " ", "\n", ' # ] , "\n', "\n\n\t"])
    end = "," if items and draw(st.booleans()) else ""
    return "[" + ",".join(f"{draw(gaps)}{item}{draw(gaps)}" for item in items) + end + draw(gaps) + "]"


@given(st.lists(st.tuples(st.booleans(), BLANKS, values(), st.sampled_from(["", " # x = [", "\n", "\n# '''\n\n"])), max_size=8))
def test_any_document(entries: list[tuple[bool, str, str, str]]) -> None:
    """Keys and tables are numbered, so where each began is known from how the text was put together."""
    text, expected, table = "", {}, ()
    for number, (heads_table, blank, value, after) in enumerate(entries):
        if heads_table:
            table = ("t", f"t{number}")
            expected[table] = text.count("\n") + 1
            text += f"{blank}[{blank}t{blank}.{blank}t{number}{blank}]{blank}\n"
        expected[(*table, f"k{number}")] = text.count("\n") + 1
        text += f"{blank}k{number}{blank}={blank}{value}{blank}{after}\n"
    lines = located(text)
    assert {place: lines[place] for place in expected} == expected


def error_of(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_toml(path)
    return str(error.value).removeprefix(f"{path}, ")


@pytest.mark.parametrize(
    ("content", "begins"),
    [
        (b"a = 1\nb = [1,\n  oops]\n", "line 3: not valid TOML: Invalid value at column 3, in what begins in line 2."),
        (b"a = 1\r\na = 2\r\n", "line 2: not valid TOML: Cannot overwrite a value"),
        (b"a = 1\n\nb = [1,\n\n", "line 3: not valid TOML: Invalid value; what begins here never ends."),
        (b"# x\na = 'x\nb = 1\n", 'line 2: not valid TOML: Expected "\'"; what begins here never ends.'),
        (b"a = 1\nb = '\xff'\n", "line 2: not UTF-8 text (invalid start byte)."),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(tmp_path: Path, content: bytes, begins: str) -> None:
    assert error_of(tmp_path, content).startswith(begins)


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\nb = [\r\n1,\r\n2]\r\n")
    file = read_toml(path)
    assert (file.data, file.lines["b", 1]) == ({"a": 1, "b": [1, 2]}, 4)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UserError, match=f"Cannot read '{path}'"):
            read_toml(path)


def test_a_mistake_at_a_place_that_the_file_lacks_is_told_at_what_is_around_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("\n[a.b]\n")
    file = read_toml(path)
    with pytest.raises(UserError, match=r"plan.toml, line 2: the rank is wrong\."), file.at("a", "b", "c", 3):
        raise UserError("The rank is wrong.")
