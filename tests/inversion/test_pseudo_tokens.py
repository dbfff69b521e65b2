"""The files of an inversion: what is read is what was written, and nothing else is taken for it."""

import shlex

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.cli import Parser
from common.errors import UserError
from common.files import write_json
from datasets.retrieval.collection import Collection
from datasets.samples import RawSamples, Subset
from inversion.arguments import add_inversion_arguments
from inversion.optimise import Inverted
from inversion.pseudo_tokens import (
    FORMAT,
    HYPERPARAMETERS,
    command,
    count_done,
    indices_done,
    inversion_folder,
    load_pseudo_tokens,
    save_shard,
    shards_of,
)
from models.tensors import read_safetensors, write_safetensors

N, STEPS = 11, (2, 5)
SETTINGS = {"format": FORMAT, "kind": "oti", "dataset": "Digits", "split": "test", "side": "query", "exp_name": "e", "n_items": N}


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (N, 4, 4), dtype=np.uint8)
    return Collection(RawSamples(pixels, "digits"))


def inverted(n, seed=0):
    """Random results of ``n`` items."""
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, 2, 6, generator=generator), dim=-1)
    tokens, losses = torch.randn(n, 2, 3, 4, generator=generator), torch.rand(n, 2, generator=generator)
    return Inverted(tokens, features, losses, torch.rand(5, generator=generator), STEPS, torch.arange(n))


def write(folder, collection, *parts, settings=SETTINGS):
    """A shard of each of ``parts``, random but by its number; returns what they hold, by item."""
    folder.mkdir(exist_ok=True)
    write_json(folder / HYPERPARAMETERS, settings)
    held = {}
    for number, indices in enumerate(parts):
        content = inverted(len(indices), number)
        save_shard(folder, collection, indices, content, settings)
        held |= {index: (content, row) for row, index in enumerate(indices)}
    return held


PARTS = ([3, 1, 8], [0, 10, 9, 7], [2, 6, 5, 4])  # as several processes, and a resumed run, would leave them


def test_what_is_read_is_what_was_written_in_the_order_of_the_collection(images, tmp_path):
    held = write(tmp_path, images, *PARTS)
    found = load_pseudo_tokens(tmp_path)
    assert found.names == images.ids
    assert found.steps == STEPS
    assert found.hyperparameters == SETTINGS
    assert found.features.dtype == found.losses.dtype == found.curve.dtype == np.float32
    for index in range(N):
        content, row = held[index]
        assert torch.equal(found.pseudo_tokens[index], content.pseudo_tokens[row])
        np.testing.assert_array_equal(found.features[index], content.features[row].numpy())
        np.testing.assert_array_equal(found.losses[index], content.losses[row].numpy())
        assert found.digests[index].tobytes() == images.items.digest(index)
    assert [path.name for path in shards_of(tmp_path)] == [f"items-{index:07d}.safetensors" for index in (0, 1, 2)]


def test_the_curve_is_the_mean_over_items_not_over_shards(images, tmp_path):
    held = write(tmp_path, images, *PARTS)
    expected = torch.stack([held[index][0].curve for index in range(N)]).mean(dim=0)
    np.testing.assert_allclose(load_pseudo_tokens(tmp_path).curve, expected.numpy(), rtol=1e-6)


def test_a_shard_is_the_contract_in_words(images, tmp_path):
    """Other programs read these."""
    save_shard(tmp_path, images, [3, 1], inverted(2), SETTINGS)
    tensors, header = read_safetensors(tmp_path / "items-0000001.safetensors")
    shapes = {
        **{"pseudo_tokens": (2, 2, 3, 4), "features": (2, 2, 6), "losses": (2, 2), "curve": (5,)},
        **{"stopped": (2,), "indices": (2,), "digests": (2, 32)},
    }
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    assert tensors["indices"].tolist() == [3, 1]
    assert tensors["digests"].dtype == torch.uint8
    assert header["format"] == "clipscope-pseudo-tokens/1"
    assert header["names"] == '["digits-000003", "digits-000001"]'
    assert header["steps"] == "[2, 5]"
    assert '"dataset": "Digits"' in header["hyperparameters"]


def test_items_are_found_by_name_wherever_they_stand(images, tmp_path):
    write(tmp_path, images, *PARTS)
    found = load_pseudo_tokens(tmp_path)
    assert found.rows_for(images).tolist() == list(range(N))
    some = Collection(Subset(images.items, np.array([7, 0, 7, 10])))
    assert found.rows_for(some).tolist() == [7, 0, 7, 10]


def test_texts_are_items_too(tmp_path):
    texts = Collection.of_texts(["one", "two", "drei, üæ"], ["1", "ü", "3"])
    write(tmp_path, texts, [2, 0], [1], settings={**SETTINGS, "n_items": 3})
    found = load_pseudo_tokens(tmp_path)
    assert found.names == ["1", "ü", "3"]
    assert found.rows_for(texts).tolist() == [0, 1, 2]


def test_missing_and_changed_items_are_counted_and_named(images, tmp_path):
    write(tmp_path, images, *PARTS)
    found = load_pseudo_tokens(tmp_path)
    pixels = np.concatenate([images.items.pixels, np.zeros((2, 4, 4), dtype=np.uint8)])
    pixels[4] = 7
    with pytest.raises(UserError) as caught:
        found.rows_for(Collection(RawSamples(pixels, "digits")))
    message = str(caught.value)
    assert message.startswith("OTI of Digits, test, query: 2 of 13 items were not inverted (e.g. 'digits-000011') and ")
    assert "1 of 13 items have other content than what was inverted (e.g. 'digits-000004'); " in message
    assert "'python oti.py --dataset-name Digits --split test --side query --exp-name e --overwrite'" in message


def test_empty_texts_cannot_be_found(tmp_path):
    """To invert them again would help nobody."""
    texts = Collection.of_texts(["one", "two"], ["1", "2"])
    write(tmp_path, texts, [0, 1], settings={**SETTINGS, "kind": "ovi", "n_items": 2})
    found = load_pseudo_tokens(tmp_path)
    with pytest.raises(
        UserError, match=r"OVI of Digits, test, query: 1 of 2 texts \(e.g. '3'\) are empty and cannot be inverted; take them out"
    ):
        found.rows_for(Collection.of_texts(["two", " "], ["2", "3"]))


def test_the_command_that_makes_them_can_be_typed():
    assert command(SETTINGS) == "python oti.py --dataset-name Digits --split test --side query --exp-name e"
    more = {
        **{"model": "tiny", "checkpoint": "", "num_pseudo_tokens": 1, "steps": 20, "template": "one {}", "learning_rate": 0.02},
        **{"seed": 0, "snapshots": [5, 10], "early_stop": {"stop_at_cosine": 0.9, "stop_below": None, "check_every": 5}},
    }
    words = shlex.split(command({**SETTINGS, **more, "dataset": "imagefolder:my photos"}))
    args = parsed("oti", words[2:])
    assert (args.dataset_name, args.model_name, args.steps, args.template_sentence) == ("imagefolder:my photos", "tiny", 20, "one {}")
    assert (args.seed, args.snapshots, args.stop_at_cosine, args.stop_below, args.check_every) == (0, [[5], [10]], 0.9, None, 5)
    assert not {"--learning-rate", "--num-pseudo-tokens", "--model-path"} & set(words)


def test_the_command_of_class_names_and_of_a_checkpoint():
    settings = {**SETTINGS, "kind": "ovi", "side": "classes", "steps": 1000, "num_pseudo_tokens": 4, "template": "a photo of {}"}
    words = shlex.split(command({**settings, "model": "clip", "checkpoint": "a/b.safetensors"}))
    args = parsed("ovi", words[2:])
    assert args.use_class_names
    assert (str(args.model_path), args.model_name, args.num_pseudo_tokens) == ("a/b.safetensors", None, 4)
    assert not {"--ovi-steps", "--template-sentence", "--side"} & set(words)


def parsed(kind, words):
    parser = Parser("")
    add_inversion_arguments(parser, kind)
    return parser.parse_args(words)


def test_as_many_items_as_imagenet_has(tmp_path):
    """Quadratic look-ups would take minutes."""
    n = 50_000
    texts = Collection.of_texts([f"text {number}" for number in range(n)], [f"id {number}" for number in range(n)])
    tokens, features = torch.zeros(n, 1, 1, 1), torch.zeros(n, 1, 2)
    content = Inverted(tokens, features, torch.zeros(n, 1), torch.zeros(1), (1,), torch.ones(n))
    write_json(tmp_path / HYPERPARAMETERS, {**SETTINGS, "n_items": n})
    save_shard(tmp_path, texts, list(range(n)), content, {**SETTINGS, "n_items": n})
    order = np.random.default_rng(0).permutation(n)
    shuffled = Collection.of_texts([texts.texts[row] for row in order], [texts.ids[row] for row in order])
    assert (load_pseudo_tokens(tmp_path).rows_for(shuffled) == order).all()


def test_an_unfinished_inversion_says_how_far_it_is(images, tmp_path):
    write(tmp_path, images, *PARTS[:2])
    assert indices_done(tmp_path) == {0, 1, 3, 7, 8, 9, 10}
    assert count_done(tmp_path) == 7
    with pytest.raises(
        UserError, match=r"holds 7 of 11 items; finish it with 'python oti.py --dataset-name Digits .* --exp-name e --outfolder"
    ):
        load_pseudo_tokens(tmp_path)


def test_one_without_any_shard_is_unfinished_too(images, tmp_path):
    write(tmp_path, images)
    with pytest.raises(UserError, match="holds 0 of 11 items"):
        load_pseudo_tokens(tmp_path)


def test_an_item_in_two_shards_is_refused(images, tmp_path):
    write(tmp_path, images, *PARTS, [6, 8])
    write_json(tmp_path / HYPERPARAMETERS, {**SETTINGS})
    with pytest.raises(UserError, match=r"holds 2 items in two shards \(e.g. item 6\).*--overwrite"):
        load_pseudo_tokens(tmp_path)


def test_shards_of_other_hyper_parameters_are_refused(images, tmp_path):
    write(tmp_path, images, *PARTS)
    write_json(tmp_path / HYPERPARAMETERS, {**SETTINGS, "seed": 1})
    for read in (load_pseudo_tokens, indices_done):
        with pytest.raises(UserError, match=r"items-0000000.safetensors' was made with other hyper-parameters"):
            read(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
def test_a_damaged_shard_is_named_with_what_to_do(images, tmp_path, damage):
    write(tmp_path, images, *PARTS)
    path = tmp_path / "items-0000001.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-3] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-5])
    if damage == "foreign":
        write_safetensors(path, {"weight": torch.zeros(3)})
    for read in (load_pseudo_tokens, indices_done):
        with pytest.raises(
            UserError, match=r"items-0000001.safetensors' is .*; delete it and run the inversion again, which makes its items anew"
        ):
            read(tmp_path)


def test_a_folder_without_pseudo_tokens_is_told(tmp_path):
    with pytest.raises(UserError, match=r"No pseudo-tokens in .*oti\.py"):
        load_pseudo_tokens(tmp_path / "none")
    write_json(tmp_path / HYPERPARAMETERS, {"other": 1})
    with pytest.raises(UserError, match="is not of clipscope-pseudo-tokens/1"):
        load_pseudo_tokens(tmp_path)


def test_where_it_lies(tmp_path):
    folder = inversion_folder(tmp_path, "oti", "clip_vitb32", "Cars@coop", "test", "query")
    assert folder == tmp_path / "oti/clip_vitb32/Cars-coop_test_query"
    assert inversion_folder(tmp_path, "ovi", "../up", "COCO", "val", "gallery") == tmp_path / "ovi/up/COCO_val_gallery"
