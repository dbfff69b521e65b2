"""Which images a method gets: the same ones whatever the batch size, the order in the files and the number of loader processes."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from merging.heads import zero_shot_head
from merging.weights import TensorWeights
from tests.helpers import write_images
from tests.merging.drawn_data import images_of, make_data, make_encoder, moved, task
from tests.models import small

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@functools.cache
def encoder():
    return make_encoder(small.clip())


def make(**options):
    return make_data(encoder(), **options)


def ids(data, name="one"):
    return data.drawn(name).sample_ids


def taken(batches, count):
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_are_the_drawn_images_as_the_tower_takes_them(batch_size):
    data = make(examples=5, batch_size=batch_size)
    found = list(data.batches("one"))
    assert [len(batch) for batch in found] == {1: [1] * 5, 4: [4, 1], 100: [5]}[batch_size]
    assert torch.equal(torch.cat(found), images_of(data, "one"))


def test_a_draw_is_shuffled_and_follows_the_seed():
    everything = make(examples=100)
    assert sorted(ids(everything)) == task("one").sample_ids
    assert ids(everything) != task("one").sample_ids
    assert ids(make(examples=100)) == ids(everything)
    assert ids(make(examples=100, seed=1)) != ids(everything)


def test_a_smaller_draw_begins_a_larger_one():
    assert ids(make(examples=3)) == ids(make(examples=7))[:3]


def test_sorting_by_class_does_not_matter():
    one = task("one", images=60)
    shuffled = one.subset(np.random.default_rng(0).permutation(60))
    drawn = [make_data(encoder(), [version], examples=20).drawn("one") for version in (one, shuffled)]
    assert drawn[0].sample_ids == drawn[1].sample_ids
    assert drawn[0].labels.tolist() == drawn[1].labels.tolist()
    assert set(drawn[0].labels.tolist()) == {0, 1, 2}


def test_endless_batches_are_epochs_of_all_images():
    data = make(examples=2)
    images = images_of(make(examples=100), "one").flatten(1).sort(dim=0).values
    found = taken(data.endless("one"), 6)  # nine images, by four
    assert [len(batch) for batch in found] == [4, 4, 1, 4, 4, 1]
    epochs = [torch.cat(found[:3]).flatten(1), torch.cat(found[3:]).flatten(1)]
    assert torch.equal(epochs[0].sort(dim=0).values, images)
    assert torch.equal(epochs[1].sort(dim=0).values, images)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("first", [1, 3, 5])
def test_endless_batches_can_be_taken_up_again(first):
    whole = taken(make().endless("one"), 7)
    for found, expected in zip(taken(make().endless("one", first=first), 7 - first), whole[first:], strict=True):
        assert torch.equal(found, expected)


def test_loader_processes_change_nothing():
    load = LoadOptions(num_workers=2)
    for found, expected in zip(taken(make(load=load).endless("one"), 4), taken(make().endless("one"), 4), strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(make(load=load).batches("one"), make().batches("one"), strict=True):
        assert torch.equal(found, expected)


def test_a_pixel_cache_changes_nothing(tmp_path):
    load = LoadOptions(num_workers=0, pixel_cache=tmp_path)
    for _ in range(2):
        assert torch.equal(torch.cat(list(make(load=load).batches("one"))), torch.cat(list(make().batches("one"))))
        assert torch.equal(next(make(load=load).endless("one")), next(make().endless("one")))


def test_heads_are_made_when_they_are_asked_for():
    data = make()
    assert not dict(data.heads)
    assert torch.equal(data.heads["two"], zero_shot_head(encoder(), data.tasks["two"]))
    assert list(data.heads) == ["two"]


def test_logits_are_those_of_the_encoder():
    data = make(examples=3)
    with torch.no_grad():
        pixels = next(data.batches("one"))
        expected = encoder().logits(encoder().encode_image(pixels), data.heads["one"])
        torch.testing.assert_close(data.logits(encoder().image_tower(pixels), "one"), expected)


def test_a_tower_takes_the_weights_of_a_model_and_the_encoders_where_it_has_none():
    data, own = make(), encoder().model.state_dict()
    one, two = moved(encoder(), "one", 1), TensorWeights("two", {"visual.class_embedding": torch.zeros_like(own["visual.class_embedding"])})
    tower = data.tower()
    for model in (one, two):
        data.fill(tower, model)
        for name, tensor in tower.state_dict().items():
            assert torch.equal(tensor, model.tensors.get(f"visual.{name}", own[f"visual.{name}"]))
    assert all(torch.equal(tensor, before) for tensor, before in zip(encoder().model.state_dict().values(), own.values(), strict=True))


@pytest.mark.parametrize("option", ["examples", "batch_size"])
def test_numbers_below_one_are_refused(option):
    with pytest.raises(UserError, match=rf"--{option.replace('_', '-')} is 0; it must be at least 1\."):
        make(**{option: 0})


def test_several_processes_are_refused(monkeypatch):
    data = make()
    monkeypatch.setattr(type(data.runtime), "world", 2)
    with pytest.raises(UserError, match="one process, and 2 were started"):
        replace(data)


def test_a_model_without_task_is_told():
    with pytest.raises(UserError, match="No task is known for the model 'three'"):
        make().drawn("three")


class TestUnreadable:
    @pytest.fixture
    def broken(self, tmp_path):
        write_images(tmp_path / "set" / "test", 2)
        (tmp_path / "set" / "test" / "red" / "00.jpg").write_bytes(b"no image")
        return replace(load_task(f"imagefolder:{tmp_path / 'set'}", "test"), name="one")

    def test_more_than_allowed_is_an_error(self, broken):
        data = make_data(encoder(), [broken], load=LoadOptions(num_workers=0))
        with pytest.raises(UserError, match="1 image is unreadable"):
            list(data.batches("one"))
        with pytest.raises(UserError, match="1 image is unreadable"):
            taken(data.endless("one"), 3)

    def test_those_allowed_are_left_out_and_kept_in_mind(self, broken):
        data = make_data(encoder(), [broken], load=LoadOptions(num_workers=0, max_skipped=1))
        assert sum(len(batch) for batch in data.batches("one")) == 5
        assert [sample_id for sample_id, _ in data.skipped["one"].entries] == ["test/red/00.jpg"]
        assert sum(len(batch) for batch in taken(data.endless("one"), 4)) == 10

    def test_none_that_can_be_read_is_an_error(self, tmp_path):
        write_images(tmp_path / "test", 1)
        for path in (tmp_path / "test").rglob("*.jpg"):
            path.write_bytes(b"no image")
        broken = replace(load_task(f"imagefolder:{tmp_path}", "test"), name="one")
        data = make_data(encoder(), [broken], load=LoadOptions(num_workers=0, max_skipped=9))
        with pytest.raises(UserError, match="No test image of one could be read"):
            list(data.batches("one"))
        with pytest.raises(UserError, match="No test image of one could be read"):
            next(data.endless("one"))
