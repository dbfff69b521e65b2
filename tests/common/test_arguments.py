"""The flags that commands share: what they accept, what they refuse, and that they mean the same everywhere."""

import argparse

import pytest

from common.arguments import (
    add_data_arguments,
    add_model_arguments,
    add_run_arguments,
    add_tuning_arguments,
    count,
    non_negative,
    positive_int,
    proportion,
)
from common.cli import Parser, tuning_flags
from common.errors import UserError
from models.tuning_options import TuningOptions


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        *[(positive_int, "1", 1), (positive_int, "128", 128), (count, "0", 0), (count, "7", 7)],
        *[(non_negative, "0", 0.0), (non_negative, "1e-6", 1e-6), (proportion, "0.01", 0.01), (proportion, "0.999", 0.999)],
    ],
)
def test_accepted(kind, text, value):
    assert kind(text) == value
    assert type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (positive_int, "0", "0 is less than 1"),
        (positive_int, "-3", "-3 is less than 1"),
        (positive_int, "2.5", "'2.5' is not a whole number"),
        (positive_int, "many", "'many' is not a whole number"),
        (count, "-1", "-1 is less than 0"),
        (non_negative, "-1e-9", "-1e-9 is less than 0"),
        (non_negative, "nan", "nan is not a finite number"),
        (non_negative, "inf", "inf is not a finite number"),
        (non_negative, "1,5", "'1,5' is not a number"),
        (proportion, "0", "0 does not lie between 0 and 1"),
        (proportion, "1", "1 does not lie between 0 and 1"),
        (proportion, "1.5", "1.5 does not lie between 0 and 1"),
        (proportion, "nan", "nan is not a finite number"),
        (proportion, "10%", "'10%' is not a number"),
    ],
)
def test_refused(kind, text, reason):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(text)
    assert str(error.value) == reason


def parsed(*arguments, defaults=None):
    parser = Parser("")
    add_data_arguments(parser, val_p=0.1)
    add_run_arguments(parser)
    if defaults is None:
        add_model_arguments(parser)
    else:
        add_tuning_arguments(parser, defaults=defaults)
    return parser.parse_args(arguments)


def test_a_refused_value_is_one_sentence_that_names_the_flag():
    with pytest.raises(UserError, match=r"^argument --bs/--batch-size: 0 is less than 1; "):
        parsed("--bs", "0")


def test_an_unknown_flag_is_named_and_the_nearest_one_offered():
    with pytest.raises(UserError, match=r"^unrecognized arguments: --num-worker 2; did you mean '--num-workers'\?$"):
        parsed("--num-worker", "2")
    with pytest.raises(UserError, match=r"^unrecognized arguments: --qqq; --help lists"):
        parsed("--qqq")


def test_zero_is_a_seed_and_the_default():
    assert parsed().seed == 0
    assert parsed("--seed", "0").seed == 0


def test_the_prompts_of_several_templates_are_collected():
    assert parsed("--template", "a {c}", "--template", "the {c}").template == ["a {c}", "the {c}"]


def test_the_tunings_defaults_are_those_of_the_package():
    typed = vars(parsed(defaults=True))
    published = TuningOptions()
    for name in ("reduction", "rank", "lora_mlp", "train_blocks"):
        assert typed[name] == getattr(published, name)


def test_only_hyper_parameters_that_were_typed_are_held_against_a_checkpoint():
    assert tuning_flags(parsed()) == {}
    assert tuning_flags(parsed("--rank", "16", "--lora-mlp")) == {"rank": 16, "lora_mlp": True}
