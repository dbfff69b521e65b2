"""Names of data sets: their parts, and what is said of wrong ones."""

import pytest

from common.errors import UserError
from datasets.naming import CONVENTIONS, CORRUPTIONS, Corruption, TaskName, corrupted, parse_name
from datasets.registry import SOURCES, checked_name, conventions_of, task_slug


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("DTD", TaskName("DTD")),
        ("DTD@paper", TaskName("DTD", "paper")),
        ("Cars@hub-contrast", TaskName("Cars", "hub-contrast")),
        ("DTD+contrast-3", TaskName("DTD", None, Corruption("contrast", 3))),
        ("Cars@hub+gaussian_noise-3-cifar", TaskName("Cars", "hub", Corruption("gaussian_noise", 3, "cifar"))),
        ("Cars@hub-spatter+contrast-1", TaskName("Cars", "hub-spatter", Corruption("contrast", 1))),
        ("imagefolder:a@paper", TaskName("imagefolder:a@paper")),
        ("imagefolder:a+b-3", TaskName("imagefolder:a+b-3")),
        ("imagefolder:a+b-3+contrast-5", TaskName("imagefolder:a+b-3", None, Corruption("contrast", 5))),
        ("hub:org/name/config", TaskName("hub:org/name/config")),
        ("wds:s/{split}-{000..012}.tar", TaskName("wds:s/{split}-{000..012}.tar")),
        ("", TaskName("")),
    ],
)
def test_parts_and_back(text, parts):
    assert parse_name(text) == parts
    assert str(parts) == text


def test_scheme_and_where():
    assert (parse_name("csv:a:b.csv").scheme, parse_name("csv:a:b.csv").where) == ("csv", "a:b.csv")
    assert (parse_name("DTD@paper").scheme, parse_name("DTD@paper").where) == (None, "")


def test_relative_style_is_not_written():
    assert str(parse_name("DTD+contrast-3-relative")) == "DTD+contrast-3"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("DTD@papr", "Unknown split convention 'papr'; did you mean 'paper'"),
        ("Cars@hub-contrst", "did you mean 'hub-contrast'"),
        ("DTD+contras-3", "Unknown corruption 'contras'; did you mean 'contrast'"),
        ("DTD+contrast-6", "whole number from 1 to 5, not 6"),
        ("DTD+contrast-5-cifr", "Unknown corruption style 'cifr'; did you mean 'cifar'"),
    ],
)
def test_wrong_suffixes(text, sentence):
    with pytest.raises(UserError, match=sentence):
        parse_name(text)


def test_adding_a_corruption():
    added = Corruption("pixelate", 2)
    assert corrupted("Cars@hub", added) == "Cars@hub+pixelate-2"
    assert corrupted("Cars@hub", None) == "Cars@hub"
    with pytest.raises(UserError, match="names a corruption already"):
        corrupted("Cars+contrast-1", added)


def test_stored_corruptions_are_conventions_of_the_four_sets_that_have_them():
    stored = {f"hub-{kind}" for kind in CORRUPTIONS}
    assert stored <= set(CONVENTIONS)
    for name, conventions in SOURCES.items():
        assert stored & set(conventions) == (stored if name in ("Cars", "EuroSAT", "GTSRB", "RESISC45") else set())
    assert conventions_of("Cars")["hub-contrast"] == "the test images that the hub keeps corrupted (contrast), as they are stored"


def test_a_stored_corruption_is_not_one_on_the_fly():
    assert str(checked_name("Cars@hub-contrast")) == "Cars@hub-contrast"
    assert task_slug("Cars@hub-contrast") == "Cars-hub-contrast"
    assert task_slug("Cars@hub-contrast") != task_slug("Cars@hub+contrast-1")
    with pytest.raises(UserError, match="DTD has no 'hub-contrast' splits; known: standard, paper, coop, hub"):
        checked_name("DTD@hub-contrast")
