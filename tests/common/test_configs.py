"""Presets: the file gives flags, the command line comes before it, and every mistake in it is told with its key."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from common.arguments import non_negative, positive_int
from common.cli import Parser
from common.configs import parse_with_config
from common.errors import UserError
from inversion.released_flags import add_boolean


def make_parser() -> Parser:
    parser = Parser("Does it.")
    parser.add_argument("--model-name", default="clip")
    parser.add_argument("--dataset-name", required=True)
    parser.add_argument("--oti-steps", type=positive_int, default=150, help="how many")
    parser.add_argument("--learning-rate", type=non_negative, default=2e-2)
    parser.add_argument("--side", choices=("query", "gallery"), default="query")
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--template", action="append")
    parser.add_argument("--figures", nargs="+", type=int)
    parser.add_argument("--pair", nargs=2, type=float)
    parser.add_argument("--progress", action="store_true")
    add_boolean(parser, "--validate", help="afterwards")
    return parser


def parsed(tmp_path: Path, text: str, *words: str) -> argparse.Namespace:
    path = tmp_path / "preset.toml"
    path.write_text(text)
    return parse_with_config(make_parser(), ["--config", str(path), *words])


def test_without_a_file_nothing_changes() -> None:
    words = ["--dataset-name", "DTD", "--progress"]
    assert vars(parse_with_config(make_parser(), words)) == vars(make_parser().parse_args(words)) | {"config": None}
    with pytest.raises(UserError, match="the following arguments are required: --dataset-name"):
        parse_with_config(make_parser(), [])


EVERYTHING = """
model-name = "tiny"
dataset_name = "Digits"
oti_steps = 7
learning_rate = 1
side = "gallery"
folder = "elsewhere"
template = ["a {}", "b {}"]
figures = [1, 2]
pair = [1, 2.5]
progress = true
validate = true
"""
TYPED = (
    "--model-name tiny --dataset-name Digits --oti-steps 7 --learning-rate 1 --side gallery --folder elsewhere --template 'a {}' "
    "--template 'b {}' --figures 1 2 --pair 1 2.5 --progress --validate"
)


def test_a_file_is_as_if_it_had_been_typed(tmp_path: Path) -> None:
    args = vars(parsed(tmp_path, EVERYTHING))
    assert args.pop("config") == tmp_path / "preset.toml"
    typed = vars(make_parser().parse_args(shlex.split(TYPED)))
    assert args == typed
    assert {key: type(value) for key, value in args.items()} == {key: type(value) for key, value in typed.items()}


def test_the_command_line_comes_before_the_file(tmp_path: Path) -> None:
    words = "--model_name clip --oti_steps=9 --template c --figures 3 --validate False --pair 3 4 --dataset-name DTD"
    args = parsed(tmp_path, EVERYTHING, *words.split())
    assert (args.model_name, args.oti_steps, args.template, args.figures) == ("clip", 9, ["c"], [3])
    assert (args.validate, args.pair, args.dataset_name, args.learning_rate) == (False, [3.0, 4.0], "DTD", 1.0)


def test_a_file_that_says_false_leaves_flags_off(tmp_path: Path) -> None:
    text = 'dataset_name = "x"\nprogress = false\nvalidate = false'
    assert parsed(tmp_path, text).progress is False
    assert parsed(tmp_path, text, "--progress", "--validate").validate is True


def test_the_file_comes_before_set_defaults(tmp_path: Path) -> None:
    path = tmp_path / "preset.toml"
    for text, words, seed in (("", [], 42), ("seed = 7", [], 7), ("seed = 7", ["--seed", "0"], 0)):
        parser = Parser("")
        parser.add_argument("--seed", type=int, default=0)
        parser.set_defaults(seed=42)
        path.write_text(text)
        assert parse_with_config(parser, ["--config", str(path), *words]).seed == seed


def test_what_is_required_may_not_be_left_out_of_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the following arguments are required: --dataset-name"):
        parsed(tmp_path, "oti_steps = 7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oti_step = 7", r"Unknown key 'oti_step'; did you mean 'oti_steps'\?"),
        ("config = 'x.toml'", "Unknown key 'config'; "),
        ("help = true", "Unknown key 'help'; "),
        ("oti_steps = 0", r"'oti_steps': 0 is less than 1\."),
        ("oti_steps = 1.5", r"'oti_steps': '1\.5' is not a whole number\."),
        ("oti_steps = '7'", r"'oti_steps' must be a number, without quotes, not '7'\."),
        ("oti_steps = true", r"'oti_steps' must be a number or text, not true\."),
        ("oti_steps = [7]", r"'oti_steps' must be a number or text, not \[7\]\."),
        ("learning_rate = nan", r"'learning_rate': nan is not a finite number\."),
        ("model_name = 3", r"'model_name' must be text in quotes, not 3\."),
        ("folder = 3", r"'folder' must be text in quotes, not 3\."),
        ("[model_name]\na = 3", r"'model_name' must be text in quotes, not a table\."),
        ("side = 'left'", r"'side': invalid choice: 'left' \(choose from "),
        ("template = 'a'", r"'template' must be a list, not 'a'\."),
        ("figures = []", r"'figures' must have at least one value\."),
        ("figures = ['a']", r"'figures': invalid int value: 'a'\."),
        ("pair = [1]", r"'pair' must have 2 values, not 1\."),
        ("progress = 1", r"'progress' must be true or false, not 1\."),
        ("validate = 'True'", r"'validate' must be true or false, not 'True'\."),
        ("oti_steps = 7\noti-steps = 8", r"'oti-steps' is given twice\."),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parsed(tmp_path, text, "--dataset-name", "x")
    assert str(refused.value).startswith(f"{tmp_path / 'preset.toml'}: ")
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"'{tmp_path / 'preset.toml'}' is not valid TOML: ")):
        parsed(tmp_path, "oti_steps = ")
    for name, message in {"presett.toml": "did you mean '.*preset.toml'", ".": "Cannot read"}.items():
        with pytest.raises(UserError, match=message):
            parse_with_config(make_parser(), ["--config", str(tmp_path / name)])
    (tmp_path / "preset.toml").write_bytes(b"model_name = '\xff'")
    with pytest.raises(UserError, match="is not valid TOML"):
        parse_with_config(make_parser(), ["--config", str(tmp_path / "preset.toml")])


def test_help_needs_no_file_and_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_with_config(make_parser(), ["--config", "no/such.toml", "--help"])
    assert "how many (default: 150)" in capsys.readouterr().out
