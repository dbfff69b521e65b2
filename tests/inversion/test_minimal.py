"""Ten lines of Python: the example runs, and is what the scripts do."""

import doctest

import torch

from inversion import minimal
from inversion.optimise import InversionOptions, invert
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from tests.models import small


def test_the_example_runs():
    result = doctest.testmod(minimal)
    assert result.attempted >= 8
    assert result.failed == 0


def test_it_is_what_the_scripts_do():
    encoder = small.encoder(small.clip(), noise=0)
    images, texts = small.embeddings(encoder)
    found = minimal.oti(encoder, images, ["a", "b", "c"], template="{} seen", n_tokens=2, steps=5, seed=7)
    expected = invert(PseudoText(encoder, "{} seen", 2), images, ["a", "b", "c"], InversionOptions(steps=5, seed=7))
    assert torch.equal(found.pseudo_tokens, expected.pseudo_tokens)
    found = minimal.ovi(encoder, texts, n_tokens=3, steps=5)
    expected = invert(PseudoImage(encoder, 3), texts, ["0", "1", "2"], InversionOptions(steps=5))
    assert torch.equal(found.pseudo_tokens, expected.pseudo_tokens)


def test_ovi_takes_the_published_number_of_steps(monkeypatch):
    taken = []
    monkeypatch.setattr(minimal, "invert", lambda tower, targets, names, options: taken.append(options))
    encoder = small.encoder(small.clip(), noise=0)
    images, texts = small.embeddings(encoder)
    minimal.oti(encoder, images)
    minimal.ovi(encoder, texts)
    assert [options.steps for options in taken] == [150, 1000]
