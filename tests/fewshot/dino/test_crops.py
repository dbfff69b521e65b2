"""Multi-crop: sizes, draws that the seed alone decides, the order of views, and how often what happens."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from engine.loading import seeded
from fewshot.dino.crops import CropSizes, MultiCrop, View, crop_sizes, split_views
from fewshot.dino.options import DinoOptions


@pytest.fixture(scope="module")
def image() -> Image.Image:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((120, 90), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("size", "patch", "small"), [(224, 16, 96), (224, 32, 96), (224, 14, 98), (336, 14, 140), (48, 8, 24), (32, 16, 16)]
)
def test_small_views_are_96_of_224_in_whole_patches(size: int, patch: int, small: int) -> None:
    assert crop_sizes(size, patch, DinoOptions()) == CropSizes(size, small, 10)


@pytest.mark.parametrize("size", [100, 240])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"--local-crops-size {size} is not a multiple of the encoder's patches of 16 pixels up to its 224"):
        crop_sizes(224, 16, DinoOptions(local_crops_size=size))


def test_views_come_in_order(image) -> None:
    """The batch in the order of views, and of images within each view."""
    sizes = CropSizes(24, 12, 3)
    transform = MultiCrop(sizes, DinoOptions(local_crops_number=3))
    flat = []
    for number in range(2):
        with seeded(0, 0, number):
            flat.append(transform(image))
    assert flat[0].shape == (2 * 3 * 24**2 + 3 * 3 * 12**2,) and flat[0].dtype == torch.uint8
    large, small = split_views(torch.stack(flat), sizes)
    assert (large.shape, small.shape) == ((4, 3, 24, 24), (6, 3, 12, 12))
    for number in range(2):
        with seeded(0, 0, number):
            views = [make(image) for make in transform.makers]
        for view in range(2):
            assert torch.equal(large[2 * view + number], views[view])
        for view in range(3):
            assert torch.equal(small[2 * view + number], views[2 + view])


def test_no_small_views(image) -> None:
    sizes = CropSizes(24, 12, 0)
    large, small = split_views(MultiCrop(sizes, DinoOptions(local_crops_number=0))(image)[None], sizes)
    assert (len(large), len(small), sizes.views) == (2, 0, 2)


def test_draws_are_those_of_the_seed(image) -> None:
    transform = MultiCrop(CropSizes(24, 12, 2), DinoOptions(local_crops_number=2))
    drawn = []
    for number in (1, 1, 2):
        with seeded(0, 0, number):
            drawn.append(pickle.loads(pickle.dumps(transform))(image))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_parts_that_views_show() -> None:
    """Of a ramp over the whole width, a view of little area shows little of the range."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (200, 1, 3)))
    shown = {}
    for name, scale in (("large", (0.25, 1.0)), ("small", (0.05, 0.25))):
        view = View(64, scale, 1.0, blur=0.0)
        view.steps = view.steps[:2]  # crop and flip
        ranges = []
        for number in range(60):
            with seeded(number):
                pixels = view(ramp).float()
            ranges.append(float(pixels.max() - pixels.min()) / 255)
        shown[name] = ranges
    assert 0.4 < min(shown["large"]) < 0.6 and max(shown["large"]) > 0.85  # sqrt(.25 * 3 / 4) is .43
    assert 0.15 < min(shown["small"]) < 0.25 and 0.4 < max(shown["small"]) < 0.6  # sqrt(.05 * 3 / 4) is .19, sqrt(.25 * 4 / 3) is .58


def test_how_often_views_are_blurred_solarised_and_grey(image) -> None:
    first, second, local = MultiCrop(CropSizes(24, 12, 1), DinoOptions(local_crops_number=1)).makers
    assert [(view.blur, view.solarise) for view in (first, second, local)] == [(1.0, 0.0), (0.1, 0.2), (0.5, 0.0)]
    assert first.radii == pytest.approx((0.1 * 24 / 224, 2.0 * 24 / 224))
    grey = 0
    for number in range(100):
        with seeded(number):
            pixels = first(image)
        grey += bool((pixels[0] == pixels[1]).all() and (pixels[1] == pixels[2]).all())
    assert 10 <= grey <= 30  # .2 of 100


def test_solarising_turns_bright_into_dark() -> None:
    view = View(16, (1.0, 1.0), 1.0, blur=0.0, solarise=1.0)
    view.steps = []
    assert view(Image.new("RGB", (16, 16), (200, 100, 255))).unique().tolist() == [0, 55, 100]
