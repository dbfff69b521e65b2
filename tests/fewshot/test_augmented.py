"""Views: what they depend on, and what they look like."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional as F

from datasets.registry import load_task
from datasets.samples import EncodedSamples, RawSamples, UnreadableImage
from fewshot.augmented import ViewSamples, views_of
from models.loading import load_encoder

SIDE = 24


@pytest.fixture(scope="module")
def task():
    return load_task("Digits", "train").subset(np.arange(6))


def pixels(samples, index):
    return np.asarray(samples.image(index)).tolist()


def test_a_view_depends_on_seed_id_and_number_alone(task):
    """Not on the order of the images, on what else is there, nor on what was looked at before."""
    views, other = ViewSamples(task.samples, SIDE, 3, seed=1), ViewSamples(task.subset(np.array([4, 2])).samples, SIDE, 5, seed=1)
    assert [pixels(views, 3 * 4 + view) for view in range(3)] == [pixels(other, view) for view in range(3)]
    assert pixels(views, 3 * 2 + 1) == pixels(other, 5 + 1) == pixels(pickle.loads(pickle.dumps(views)), 3 * 2 + 1)


def test_views_and_seeds_differ(task):
    shown = [pixels(ViewSamples(task.samples, SIDE, 4, seed), index) for seed in (1, 2) for index in range(4)]
    assert len({str(each) for each in shown}) == 8


def test_half_of_the_area_or_more_and_half_of_them_mirrored():
    """An image whose pixels say where they are: a view's corners tell its crop."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    both = np.stack([ramp, ramp.transpose(1, 0, 2)])
    views = ViewSamples(RawSamples(both, "ramp"), 64, 60, seed=0)
    shown = [np.asarray(views.image(index), float)[..., 0] for index in range(120)]
    widths = [(view[32, -1] - view[32, 0]) / 255 for view in shown[:60]]
    heights = [(view[-1, 32] - view[0, 32]) / 255 for view in shown[60:]]
    least, most = 0.5**0.5 * 0.75**0.5, 1.0
    assert all(least - 0.03 < abs(width) <= most for width in widths)
    assert all(least - 0.03 < height <= most for height in heights)
    assert 15 < sum(width < 0 for width in widths) < 45


def test_the_encoders_own_preprocessing_leaves_a_view_as_it_is(task):
    encoder = load_encoder("tiny")
    view = ViewSamples(task.samples, encoder.image_size, 1, seed=3).image(2)
    assert (encoder.preprocess.geometry(view) == F.pil_to_tensor(view)).all()


def test_the_task_of_views(task):
    views = views_of(task, SIDE, 2, seed=1)
    assert (len(views), views.labels.tolist()) == (12, [label for label in task.labels.tolist() for _ in range(2)])
    assert views.sample_ids == [name for name in task.sample_ids for _ in range(2)]
    assert len({views.samples.digest(index) for index in range(12)}) == 12
    assert views.samples.digest(0) != views_of(task, SIDE, 2, seed=2).samples.digest(0)


class Counted(EncodedSamples):
    """Two images, of which the second is damaged; counts how often they are read."""

    def __init__(self):
        stream = io.BytesIO()
        Image.new("RGB", (40, 30), (200, 10, 10)).save(stream, "PNG")
        self.files, self.reads = [stream.getvalue(), b"damaged"], 0

    def __len__(self):
        return 2

    def read(self, index):
        self.reads += 1
        return self.files[index]

    def sample_id(self, index):
        return f"image-{index}"


def test_an_image_is_decoded_once_for_all_its_views():
    samples = Counted()
    views = ViewSamples(samples, SIDE, 8, seed=0)
    assert {views.image(index).size for index in range(8)} == {(SIDE, SIDE)}
    assert samples.reads == 1
    with pytest.raises(UnreadableImage, match="image-1"):
        views.image(8)
