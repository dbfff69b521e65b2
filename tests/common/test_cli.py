"""How a script ends: its exit status and what stands on stderr."""

import subprocess
import sys

import pytest

from common.cli import Parser

SCRIPT = """
import sys
from common.cli import run
from common.errors import UserError

def main():
    {body}

run(main)
"""


def end_of(tmp_path, body):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=body))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env={"PYTHONPATH": "."})


@pytest.mark.parametrize(
    ("body", "status", "stderr"),
    [
        ("pass", 0, ""),
        ("return 3", 3, ""),
        ("raise UserError('No such file: a.csv.')", 2, "script.py: error: No such file: a.csv.\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise BrokenPipeError", 141, ""),
    ],
)
def test_how_it_ends(tmp_path, body, status, stderr):
    result = end_of(tmp_path, body)
    assert (result.returncode, result.stderr) == (status, stderr)


def test_a_defect_keeps_its_traceback(tmp_path):
    result = end_of(tmp_path, "raise ZeroDivisionError('a defect')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(body="[print('x' * 100) for _ in range(10_000)]"))
    command = f"{sys.executable} {tmp_path / 'script.py'} | head -n 1"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    )
    assert result.stderr == ""
    assert result.stdout == "x" * 100 + "\n"


def test_help_shows_the_docstring_as_it_stands_and_the_defaults_that_say_something():
    parser = Parser("Does it.\n\n    python it.py --twice 3")
    parser.add_argument("--twice", default=2, help="how often")
    parser.add_argument("--name", help="of it")
    parser.add_argument("--quiet", action="store_true", help="no words")
    text = parser.format_help()
    assert "\n    python it.py --twice 3\n" in text
    assert "how often (default: 2)" in text
    assert text.count("default") == 1


def test_abbreviations_are_refused():
    parser = Parser("")
    parser.add_argument("--metrics")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--metric", "a"])
    assert end.value.code == 2
