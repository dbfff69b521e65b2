"""What a user is told about a name that is not known."""

import pytest

from common.errors import nearest, unknown_name

NAMES = ["EuroSAT", "DTD", "Shapes-Color", "Shapes-Kind"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("eurosat", "EuroSAT"),
        ("EuroSTA", "EuroSAT"),
        ("shapes-colour", "Shapes-Color"),
        ("Shapes-Kindd", "Shapes-Kind"),
        ("ImageNet", None),
    ],
)
def test_the_nearest_name(typed, meant):
    assert nearest(typed, NAMES) == meant


def test_the_sentence_offers_the_nearest_name_or_all_of_them():
    assert str(unknown_name("data set", "Eurosatt", NAMES)) == "Unknown data set 'Eurosatt'; did you mean 'EuroSAT'?"
    assert str(unknown_name("data set", "q", NAMES)) == "Unknown data set 'q'; known: DTD, EuroSAT, Shapes-Color, Shapes-Kind."


def test_no_name_is_near_when_there_is_none():
    assert nearest("a", []) is None
