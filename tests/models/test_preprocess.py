"""Both halves of the preprocessing together are open_clip's transform, whatever its settings."""

import pickle

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from models.preprocess import Preprocess

CONFIGS = {
    "shortest": {"size": 32},
    "squash": {"size": 32, "resize_mode": "squash", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "longest": {"size": 32, "resize_mode": "longest"},
    "bilinear": {"size": 32, "interpolation": "bilinear"},
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return PreprocessCfg(**CONFIGS[request.param])


def picture(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 60), (60, 41), (32, 32), (9, 7)])
def test_equals_open_clip(config, size):
    assert torch.equal(Preprocess(config)(picture(*size)), image_transform_v2(config, is_train=False)(picture(*size)))


@pytest.mark.parametrize("size", [(40, 60), (60, 41), (32, 32), (9, 7)])
@pytest.mark.parametrize("name", ["shortest", "squash", "bilinear"])
def test_a_batch_is_the_same_as_one_by_one(name, size):
    preprocess = Preprocess(PreprocessCfg(**CONFIGS[name]))
    images = [picture(*size, seed=seed) for seed in range(5)]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    assert preprocess.geometry.batches
    assert torch.equal(preprocess.of_bytes(batch), torch.stack([preprocess(image) for image in images]))


def test_grey_images_become_three_channels_on_the_device():
    preprocess = Preprocess(PreprocessCfg(size=32))
    grey = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    expected = torch.stack([preprocess(Image.fromarray(image).convert("RGB")) for image in grey])
    assert torch.equal(preprocess.of_bytes(torch.from_numpy(grey)[:, None]), expected)


def test_bytes_of_the_right_size_are_only_normalised():
    preprocess = Preprocess(PreprocessCfg(size=32, resize_mode="longest"))
    assert not preprocess.geometry.batches
    ready = torch.stack([preprocess.geometry(picture(40, 60))])
    assert ready.dtype == torch.uint8
    assert torch.equal(preprocess.of_bytes(ready)[0], preprocess(picture(40, 60)))


@pytest.mark.parametrize(("name", "side"), [("shortest", 32), ("squash", 32), ("longest", None)])
def test_the_side_says_how_large_an_image_must_be_decoded(name, side):
    geometry = Preprocess(PreprocessCfg(**CONFIGS[name])).geometry
    assert (geometry.side, geometry.size) == (side, (32, 32))


def test_the_first_half_can_be_sent_to_loader_processes():
    geometry = Preprocess(PreprocessCfg(size=32)).geometry
    assert torch.equal(pickle.loads(pickle.dumps(geometry))(picture(40, 60)), geometry(picture(40, 60)))


def test_it_adds_nothing_to_a_checkpoint():
    assert not Preprocess(PreprocessCfg()).state_dict()
