"""Resizing in batches is Pillow's resizing, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.resample import IMAGES, resize_batch

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def one_by_one(pixels, height, width, interpolation):
    images = [Image.fromarray(image).resize((width, height), FILTERS[interpolation]) for image in pixels]
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("interpolation", FILTERS)
@given(sizes=st.tuples(*[st.integers(1, 70)] * 4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_equals_pillow(interpolation, sizes, seed):
    """Larger, smaller, and in one direction only; noise of full range, so that clipping between the passes shows."""
    old_height, old_width, height, width = sizes
    pixels = np.random.default_rng(seed).choice([0, 255, 7, 130], (2, old_height, old_width)).astype(np.uint8)
    found = resize_batch(torch.from_numpy(pixels), height, width, interpolation)
    np.testing.assert_array_equal(found.numpy(), one_by_one(pixels, height, width, interpolation))


@pytest.mark.parametrize("count", [0, 1, IMAGES, IMAGES + 1])
def test_any_number_of_images(count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    found = resize_batch(torch.from_numpy(pixels), 56, 56, "bicubic")
    assert found.shape == (count, 56, 56)
    if count:
        np.testing.assert_array_equal(found.numpy(), one_by_one(pixels, 56, 56, "bicubic"))
