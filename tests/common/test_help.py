"""How the help of a script looks, at any width of the terminal."""

from pathlib import Path

import pytest

from common.arguments import add_run_arguments, proportion
from common.cli import Parser
from common.help import filled

DOCUMENTATION = """Does it, and says how often it did, in as many words as that takes, and it takes a few of them,
over two lines.

    python it.py --twice 3
    python it.py --name something-that-is-long --twice 3 --quiet --folder somewhere/else/altogether  # as it is done most often
"""


def parser():
    made = Parser(DOCUMENTATION)
    made.add_argument("--twice", "--two-times", type=int, default=2, help="how often")
    made.add_argument("--part", type=proportion, default=0.5, help="how much")
    made.add_argument("--name", help="of it")
    made.add_argument("--folder", type=Path, required=True, help="where")
    made.add_argument("--sizes", nargs="+", type=int, default=[1, 2], help="how large")
    made.add_argument("--word", default="", help="at the end")
    made.add_argument("--skipped", type=int, default=0, help="how few")
    made.add_argument("--quiet", action="store_true", help="no words")
    return made


@pytest.fixture(params=(60, 80, 100, 300))
def text(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    made = parser().format_help()
    assert max(map(len, made.splitlines())) <= min(request.param, 100)
    return made


def test_paragraphs_are_filled_and_commands_stay_commands(text):
    assert "\n    python it.py --twice 3\n" in text
    assert "that takes, and it takes a few of them, over two lines." in " ".join(text.split())
    shown = text.replace(" \\\n        ", " ")  # as a shell joins them
    assert (
        "    # as it is done most often\n    python it.py --name something-that-is-long --twice 3 --quiet --folder somewhere/else/" in shown
    )


def test_the_usage_has_what_must_be_given(text):
    assert text.splitlines()[0].split(" ", 2)[2] == "--folder PATH [options]"


def test_values_have_short_names_and_defaults_that_say_something(text):
    for line in ("--twice, --two-times N", "--part X", "--name NAME", "--sizes N [N ...]", "--quiet  "):
        assert f"  {line}" in text
    flat = " ".join(text.split())
    assert "how often (default: 2)" in flat
    assert "how large (default: 1 2)" in flat
    assert "at the end --skipped" in flat
    assert "how few (default: 0)" in flat
    assert text.count("default") == 4


def test_a_row_of_a_table_goes_on_below_its_last_column():
    row = "  iimm, IIMM   the mean of two terms, of which the first is the one and the second the other"
    assert filled(row, 50).splitlines() == [
        "  iimm, IIMM   the mean of two terms, of which the",
        "               first is the one and the second the",
        "               other",
    ]


def test_a_command_over_two_lines_is_one_line_where_there_is_room():
    text = "It:\n\n    python it.py --a 1 \\\n        --b 2\n    python it.py"
    assert filled(text, 80) == "It:\n\n    python it.py --a 1 --b 2\n    python it.py"
    assert filled(text, 24) == "It:\n\n    python it.py --a 1 \\\n        --b 2\n    python it.py"


@pytest.mark.parametrize("usual", ["--bs", "--batch-size"])
@pytest.mark.parametrize("typed", ["--bs", "--batch-size", "--batch_size"])
def test_the_batch_size_has_either_name(usual, typed):
    made = Parser("")
    add_run_arguments(made, batch_flag=usual)
    assert made.parse_args([typed, "7"]).batch_size == 7
