"""The last linear map: applied to what goes into it, it gives the embedding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from models.encoder import Encoder
from models.loading import load_encoder
from models.projections import image_projection, text_projection, without_projections
from tests.models import small


def _classifier() -> nn.Module:
    """A timm ViT whose own classifier is the projection."""
    model = small.slip()
    model.visual.trunk.reset_classifier(small.WIDTH)
    model.visual.head = nn.Sequential()
    return model


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "clip": lambda: small.encoder(small.clip()),
    "eva02": lambda: small.encoder(small.eva02()),
    "slip": lambda: small.encoder(small.slip()),
    "coca": lambda: small.encoder(small.coca(), length=76),
    "resnet": lambda: small.encoder(small.resnet()),
    "convnext": lambda: small.encoder(small.convnext()),
    "classifier": lambda: small.encoder(_classifier()),
    "siglip": lambda: small.encoder(small.siglip_both(), 320, 16),
    "tiny": lambda: load_encoder("tiny"),
}


def _biases(encoder: Encoder) -> None:
    """Take the biases away that are no part of the matrices."""
    for name, parameter in encoder.model.named_parameters():
        if name.endswith(("c_proj.bias", "head.bias", "text_projection.bias")) and "resblocks" not in name:
            parameter.data.zero_()


def _projected(rows: Tensor, projection: Tensor | None) -> Tensor:
    return F.normalize(rows if projection is None else rows @ projection.T, dim=-1)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_projections_of_what_goes_into_them_are_the_embeddings(name: str) -> None:
    encoder = ENCODERS[name]()
    _biases(encoder)
    image, text = small.embeddings(encoder)
    with without_projections(encoder):
        image_before, text_before = small.embeddings(encoder)
    for rows in (image_before, text_before):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    torch.testing.assert_close(_projected(image_before, image_projection(encoder)), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(_projected(text_before, text_projection(encoder)), text, atol=1e-5, rtol=0)


def test_shapes_are_out_times_in() -> None:
    encoder = load_encoder("tiny")
    image, text = image_projection(encoder), text_projection(encoder)
    assert image is not None and text is not None
    assert (image.shape, text.shape) == ((128, 128), (128, 64))


def test_siglip_has_one_on_the_text_side_only() -> None:
    encoder = ENCODERS["siglip"]()
    assert image_projection(encoder) is None
    projection = text_projection(encoder)
    assert projection is not None and torch.equal(projection, encoder.model.text.text_projection.weight)


@torch.no_grad()
def test_a_huggingface_text_tower(tmp_path: Path) -> None:
    encoder = small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20)
    text = small.embeddings(encoder)[1]
    with without_projections(encoder):
        before = small.embeddings(encoder)[1]
    torch.testing.assert_close(_projected(before, text_projection(encoder)), text, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["clip", "resnet", "convnext", "siglip"])
def test_the_encoder_is_as_before_even_after_an_error(name: str) -> None:
    encoder = ENCODERS[name]()
    encoder.text_adapter = nn.Linear(small.WIDTH, small.WIDTH)
    parameters = dict(encoder.named_parameters())
    expected, width = small.embeddings(encoder), encoder.embed_dim
    with pytest.raises(RuntimeError, match="on purpose"), without_projections(encoder):
        small.embeddings(encoder)
        raise RuntimeError("on purpose")
    after = dict(encoder.named_parameters())
    assert list(after) == list(parameters) and all(after[key] is value for key, value in parameters.items())
    assert encoder.embed_dim == width
    assert all(map(torch.equal, small.embeddings(encoder), expected))


def test_the_width_inside_is_that_of_the_input() -> None:
    encoder = load_encoder("tiny")
    assert encoder.embed_dim == 128
    with without_projections(encoder):
        assert encoder.embed_dim == 64
    assert encoder.embed_dim == 128


def test_another_end_is_named() -> None:
    encoder = small.encoder(small.slip())
    encoder.model.visual.head = nn.Sequential(nn.Linear(small.WIDTH, small.WIDTH), nn.GELU())
    with pytest.raises(UserError, match="image tower of 'small' does not end in a linear projection but in a GELU"):
        image_projection(encoder)
