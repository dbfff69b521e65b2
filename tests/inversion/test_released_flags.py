"""The released code's way to name a model, and to write a boolean."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from common.cli import Parser
from common.errors import UserError
from inversion.released_flags import OPENAI, add_boolean, add_released_model_flags, chosen_model, released_model, yes_or_no
from models.zoo import SLIP, resolve
from tests.helpers import ROOT

DATACOMP = "datacomp_xl_s13b_b90k"
TABLE = [  # the seven backbones of the paper, as its configurations name them
    ("ViT-B/32", "", False, "clip"),
    ("ViT-L/14", "", False, "ViT-L-14-quickgelu/openai"),
    ("ViT-B/32", DATACOMP, True, f"ViT-B-32/{DATACOMP}"),
    ("ViT-L/14", DATACOMP, True, f"ViT-L-14/{DATACOMP}"),
    ("ViT-B-16-SigLIP", "webli", True, "siglip"),
    ("SLIP-ViT-B-16", "", False, "SLIP-ViT-B-16/slip_base_100ep.pt"),
    ("SLIP-ViT-L-16", "", False, "SLIP-ViT-L-16/slip_large_100ep.pt"),
]


@pytest.mark.parametrize(("name", "pretrained", "use_open_clip", "meant"), TABLE)
def test_the_backbones_of_the_paper(name: str, pretrained: str, use_open_clip: bool, meant: str) -> None:
    assert released_model(name, pretrained, use_open_clip) == meant
    if name not in SLIP:
        assert resolve(meant).kind == "open_clip"


@pytest.mark.parametrize("name", OPENAI)
def test_every_model_of_openai_is_one_that_open_clip_lists(name: str) -> None:
    source = resolve(released_model(name))
    assert source.pretrained == "openai"
    assert source.architecture.endswith("-quickgelu")


@pytest.mark.parametrize(
    ("name", "pretrained", "use_open_clip", "meant"),
    [
        (f"ViT-B-32-{DATACOMP}", DATACOMP, True, f"ViT-B-32/{DATACOMP}"),
        (f"ViT-B-32-{DATACOMP}", "", True, f"ViT-B-32/{DATACOMP}"),
        (f"ViT-B-32-{DATACOMP}", "", False, f"ViT-B-32/{DATACOMP}"),
        ("ViT-B-16-SigLIP-webli", "", False, "siglip"),
        ("ViT-B/32", "openai", True, "clip"),
        ("ViT-B-32-quickgelu", "openai", True, "clip"),
        ("ViT-L-14-openai", "", True, "ViT-L-14-quickgelu/openai"),
        ("SLIP-ViT-S-16/weights/slip_small_50ep.pt", "", False, "SLIP-ViT-S-16/weights/slip_small_50ep.pt"),
        ("tiny", "", False, "tiny"),
    ],
)
def test_other_spellings(name: str, pretrained: str, use_open_clip: bool, meant: str) -> None:
    assert released_model(name, pretrained, use_open_clip) == meant


@pytest.mark.parametrize(
    ("name", "pretrained", "use_open_clip", "message"),
    [
        ("ViT-B/32", "", True, "several weights of 'ViT-B-32'; name them with --open-clip-pretrained"),
        ("ViT-B/32", DATACOMP, False, f"--open-clip-pretrained {DATACOMP} is for OpenCLIP's models; add --use-open-clip"),
        (f"ViT-B-32-{DATACOMP}", "webli", True, "names other weights than --open-clip-pretrained webli; leave one"),
        ("ViT-B-32", "", False, r"Unknown model 'ViT-B-32' for --clip-model-name; did you mean 'ViT-B/32'\?"),
        ("qqq", "", False, "Unknown model 'qqq' for --clip-model-name; OpenCLIP's models need --use-open-clip"),
        ("SLIP-ViT-B-61", "", False, r"did you mean 'SLIP-ViT-B-16'\?"),
    ],
)
def test_what_the_released_code_does_not_know(name: str, pretrained: str, use_open_clip: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        released_model(name, pretrained, use_open_clip)


def parsed(*words: str) -> argparse.Namespace:
    parser = Parser("")
    parser.add_argument("--model-name")
    add_released_model_flags(parser)
    return parser.parse_args(words)


def test_flags() -> None:
    assert chosen_model(parsed()) is None
    assert chosen_model(parsed("--model-name", "tiny")) == "tiny"
    assert chosen_model(parsed("--clip-model-name", "ViT-B/32", "--use-open-clip", "False")) == "clip"
    words = ("--clip-model-name", "ViT-B/32", "--use-open-clip", "--open-clip-pretrained", DATACOMP)
    assert chosen_model(parsed(*words)) == f"ViT-B-32/{DATACOMP}"
    underscores = ("--clip_model_name", "ViT-B/32", "--use_open_clip", "True", f"--open_clip_pretrained={DATACOMP}")
    assert chosen_model(parsed(*underscores)) == f"ViT-B-32/{DATACOMP}"


def test_both_ways_to_name_the_same_model() -> None:
    assert chosen_model(parsed("--clip-model-name", "ViT-B/32", "--model-name", "ViT-B-32-quickgelu/openai")) == "clip"
    own = "SLIP-ViT-B-16/elsewhere/slip_base_25ep.pt"
    assert chosen_model(parsed("--clip-model-name", "SLIP-ViT-B-16", "--model-name", own)) == own


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--clip-model-name", "ViT-B/32", "--model-name", "tiny"),
            "--clip-model-name ViT-B/32 means 'clip', but --model-name, typed or in the preset, is 'tiny'",
        ),
        (("--clip-model-name", "SLIP-ViT-B-16", "--model-name", "SLIP-ViT-L-16/x.pt"), "leave one of them out"),
        (("--use-open-clip",), "--use-open-clip and --open-clip-pretrained belong to a name"),
        (("--open-clip-pretrained", "webli", "--model-name", "tiny"), "belong to a name; give it with --clip-model-name"),
    ],
)
def test_contradictions(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        chosen_model(parsed(*words))


def test_booleans_may_have_a_value() -> None:
    parser = Parser("")
    add_boolean(parser, "--validate", help="what it does")
    parser.add_argument("--other")
    answers = {(): False, ("--validate",): True, ("--validate", "True"): True, ("--validate", "False"): False, ("--validate=no",): False}
    for words, meant in answers.items():
        assert parser.parse_args(words).validate is meant
    assert parser.parse_args(["--validate", "--other", "x"]).validate is True
    with pytest.raises(UserError, match="argument --validate: 'maybe' is neither true nor false"):
        parser.parse_args(["--validate", "maybe"])
    assert yes_or_no("YES") is True


def test_nothing_large_is_imported() -> None:
    code = "import sys, inversion.released_flags; sys.exit(bool({'torch', 'open_clip', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
