"""Random changes to training images: the encoder's own preprocessing behind them, and draws that the seed decides."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from engine.loading import seeded
from models.augment import AUGMENTATIONS, augmentation
from models.loading import load_encoder


@pytest.fixture(scope="module")
def encoder(small_model):
    return load_encoder(str(small_model))


@pytest.fixture(scope="module")
def image():
    """Red from left to right, green from top to bottom: shows where a pixel came from."""
    pixels = np.zeros((64, 80, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 80)
    pixels[..., 1] = np.linspace(0, 255, 64)[:, None]
    return Image.fromarray(pixels)


def drawn(transform, image, number):
    with seeded(0, 0, number):
        return transform(image)


def test_none_is_what_testing_sees(encoder, image):
    assert augmentation("none", encoder) is encoder.preprocess.geometry


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_and_draws(encoder, image, name):
    transform = augmentation(name, encoder)
    first, again, other = (drawn(transform, image, number) for number in (1, 1, 2))
    assert (first.shape, first.dtype) == ((3, 32, 32), torch.uint8)
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")


def mirrored(pixels):
    """Whether red falls from left to right."""
    return bool(pixels[0, :, :8].float().mean() > pixels[0, :, -8:].float().mean())


def test_crops_are_large_parts_of_the_image_and_never_mirrored(encoder, image):
    """90 to 100 % of the area: the range of red and of green in a crop is most of that in the whole."""
    transform = augmentation("crop", encoder)
    for number in range(20):
        pixels = drawn(transform, image, number)
        assert not mirrored(pixels)
        ranges = [float(channel.max() - channel.min()) for channel in pixels / 255]
        assert ranges[0] * ranges[1] > 0.8
        assert pixels[1, :8].float().mean() < pixels[1, -8:].float().mean()


def test_crop_flip_mirrors_about_half(encoder, image):
    transform = augmentation("crop-flip", encoder)
    assert 10 <= sum(mirrored(drawn(transform, image, number)) for number in range(40)) <= 30


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_loader_processes_can_receive_it(encoder, image, name):
    transform = augmentation(name, encoder)
    assert torch.equal(drawn(pickle.loads(pickle.dumps(transform)), image, 3), drawn(transform, image, 3))
