"""How a script ends: its exit status and what stands on stderr. That its help is quick."""

import os
import subprocess
import sys

import pytest

from common.cli import Parser
from common.errors import UserError
from tests.helpers import ROOT

SCRIPT = """
import sys
from common.cli import run
from common.errors import Interrupted, UserError

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
        ("raise Interrupted('Stopped; the state is saved.')", 75, "script.py: Stopped; the state is saved.\n"),
        ("open('a' * 300)", 2, f"script.py: error: Cannot use '{'a' * 300}': File name too long.\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise BrokenPipeError", 141, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
    ],
)
def test_how_it_ends(tmp_path, body, status, stderr):
    result = end_of(tmp_path, body)
    assert (result.returncode, result.stderr) == (status, stderr)


def test_sigterm_tidies_files_in_the_making_away(tmp_path):
    body = """
    import os, signal
    from pathlib import Path
    from common.files import replacing
    with replacing(Path(sys.argv[0]).with_name("out.txt")) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
    """
    assert end_of(tmp_path, body.strip()).returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_defect_keeps_its_traceback(tmp_path):
    result = end_of(tmp_path, "raise ZeroDivisionError('a defect')")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize("name", ["benchmarks", "benchmarks.text"])
def test_a_module_is_named_as_it_is_run(name):
    result = subprocess.run([sys.executable, "-m", name, "--nonsense"], cwd=ROOT, capture_output=True, text=True, check=False)
    said = f"python -m {name}: error: unrecognized arguments: --nonsense; --help lists what there is.\n"
    assert (result.returncode, result.stderr) == (2, said)


def test_a_reader_that_leaves_is_no_error(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(body="[print('x' * 100) for _ in range(10_000)]"))
    command = f"{sys.executable} {tmp_path / 'script.py'} | head -n 1"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=False, env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    )
    assert result.stderr == ""
    assert result.stdout == "x" * 100 + "\n"


def test_abbreviations_are_refused():
    parser = Parser("")
    parser.add_argument("--metrics")
    with pytest.raises(UserError, match=r"unrecognized arguments: --metric a; did you mean '--metrics'\?"):
        parser.parse_args(["--metric", "a"])


def flags():
    parser = Parser("")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--in_its_own_way")
    parser.add_argument("--note")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("names", nargs="*")
    return parser


@pytest.mark.parametrize("words", [["--batch_size", "64"], ["--batch_size=64"], ["--batch-size", "64"], ["--batch-size=64"]])
def test_underscores_are_dashes_in_flags(words):
    assert flags().parse_args([*words, "--no_cache"]) == flags().parse_args(["--batch-size", "64", "--no-cache"])


def test_underscores_elsewhere_stay():
    parsed = flags().parse_args(["--in_its_own_way", "a_b", "--note=--batch_size", "--", "c_d", "--batch_size"])
    assert (parsed.in_its_own_way, parsed.note, parsed.batch_size) == ("a_b", "--batch_size", 128)
    assert parsed.names == ["c_d", "--batch_size"]


def test_the_words_of_the_process_are_read_too(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--batch_size", "64"])
    assert flags().parse_args().batch_size == 64


@pytest.mark.parametrize("word", ["--batch_siz", "--bach_size", "--batch_si=64"])
def test_underscores_bring_no_abbreviations_and_have_a_hint(word):
    with pytest.raises(UserError, match=rf"unrecognized arguments: {word}; did you mean '--batch-size'\?"):
        flags().parse_args([word])


SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_neither_torch_nor_any_other_large_package(name):
    code = f"""
import runpy, sys
sys.argv = ["{name}.py", "--help"]
try:
    runpy.run_path("{name}.py", run_name="__main__")
except SystemExit as end:
    loaded = [package for package in ("torch", "open_clip", "transformers", "accelerate", "sklearn", "pandas") if package in sys.modules]
    sys.exit(f"{{end.code}} {{loaded}}")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert result.stderr == "0 []\n"
    assert f"python {name}.py" in result.stdout  # a command that can be copied
    assert max(map(len, result.stdout.splitlines())) <= 100
