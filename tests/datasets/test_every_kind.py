"""What is promised of samples of every kind, by one test each: files, tables, shards, arrays, drawings, and what wraps them."""

import hashlib
import io
import pickle
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from datasets.corruptions import CorruptedSamples
from datasets.image_files import ImageFiles
from datasets.naming import Corruption
from datasets.registry import load_task
from datasets.retrieval.cropped import CroppedSamples
from datasets.samples import UnreadableImage
from datasets.task import Task
from engine.embed import LoadOptions, embed_images
from engine.loading import TaskDataset
from engine.pixel_cache import with_cached_pixels
from engine.runtime import start
from models.loading import load_encoder
from tests.datasets.array_files import write_cifar_binary, write_idx_pair, write_pcam, write_svhn
from tests.datasets.parquet_files import IMAGE, class_label, metadata, write_shard

SEEDS, LABELS = (0, 1, 2, 3, 4, 5), (0, 1, 1, 0, 1, 0)
OTHER_IMAGE, OTHER_LABEL = (0, 1, 9, 3, 4, 5), (0, 1, 0, 0, 1, 0)


@cache
def jpeg(seed):
    """Large enough to be decoded at a reduced scale for an image tower of 32 pixels."""
    stream, coarse = io.BytesIO(), np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((1120, 840), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def stack(seeds, *shape):
    return np.stack([np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in seeds])


def folder(root, seeds, labels):
    for number, (seed, label) in enumerate(zip(seeds, labels, strict=True)):
        path = root / f"images/test/{'ab'[label]}/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    return load_task(f"imagefolder:{root / 'images'}", "test")


def csv(root, seeds, labels):
    for number, seed in enumerate(seeds):
        (root / f"{number}.jpg").write_bytes(jpeg(seed))
    lines = [f"{number}.jpg,{'ab'[label]},test" for number, label in enumerate(labels)]
    (root / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return load_task(f"csv:{root / 'list.csv'}", "test")


def write_table(path, seeds, labels):
    images = pa.array([{"bytes": jpeg(seed), "path": None} for seed in seeds], IMAGE)
    table = pa.table({"image": images, "label": pa.array(labels), "split": ["test"] * len(labels)})
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": class_label("a", "b")}
    pq.write_table(table.replace_schema_metadata(metadata(**features)), path, row_group_size=2)


def parquet(root, seeds, labels):
    write_table(root / "list.parquet", seeds, labels)
    return load_task(f"parquet:{root / 'list.parquet'}", "test", data_dir=root / "data")


def hub(root, seeds, labels):
    write_table(root / "hub/me/birds/data/test-00000-of-00001.parquet", seeds, labels)
    return load_task("hub:me/birds", "test", data_dir=root)


def shards(root, seeds, labels):
    files = [(f"{n}.cls", str(label).encode()) for n, label in enumerate(labels)], [(f"{n}.jpg", jpeg(s)) for n, s in enumerate(seeds)]
    write_shard(root / "wds/test/0.tar", [file for pair in zip(*files, strict=True) for file in pair])
    return load_task(f"wds:{root / 'wds'}", "test", data_dir=root / "data")


def idx(root, seeds, labels):
    write_idx_pair(root / "MNIST/raw", "t10k", stack(seeds, 28, 28), np.array(labels))
    return load_task("MNIST", "test", data_dir=root)


def cifar(root, seeds, labels):
    write_cifar_binary(root / "cifar-10-batches-bin/test_batch.bin", stack(seeds, 32, 32, 3), np.array(labels))
    return load_task("CIFAR10", "test", data_dir=root)


def svhn(root, seeds, labels):
    write_svhn(root / "svhn/test_32x32.mat", stack(seeds, 32, 32, 3), np.array(labels))
    return load_task("SVHN", "test", data_dir=root)


def hdf5(root, seeds, labels):
    write_pcam(root / "pcam", "test", stack(seeds, 96, 96, 3), np.array(labels))
    return load_task("PCAM", "test", data_dir=root)


def corrupted(kind):
    def build(root, seeds, labels):
        task = kind(root, seeds, labels)
        return Task(task.name, task.split, CorruptedSamples(task.samples, Corruption("gaussian_noise", 3)), task.labels, ("a", "b"), ())

    return build


def cropped(root, seeds, labels):
    task = folder(root, seeds, labels)
    boxes = np.tile([40.0, 80.0, 840.0, 800.0], (len(task), 1))
    return Task(task.name, task.split, CroppedSamples(task.samples, boxes), task.labels, ("a", "b"), ())


KINDS = {
    kind.__name__: kind for kind in (folder, csv, parquet, hub, shards, idx, cifar, svhn, hdf5, cropped)
} | {"corrupted files": corrupted(folder), "corrupted arrays": corrupted(cifar)}  # fmt: skip


@pytest.fixture(params=KINDS)
def build(request, tmp_path):
    """A task with images drawn by ``seeds``, in a folder of its own."""

    def made(seeds=SEEDS, labels=LABELS):
        made.count += 1
        root = tmp_path / str(made.count)
        root.mkdir()
        return KINDS[request.param](root, seeds, labels)

    made.count = 0
    return made


@pytest.fixture
def encoder(small_model):
    return load_encoder(str(small_model))


def test_the_fingerprint_changes_when_and_only_when_a_sample_a_label_or_the_order_does(build):
    task = build()
    assert len(task) == len(SEEDS)
    same = [build(), pickle.loads(pickle.dumps(task)), task.subset(np.arange(len(task)))]
    assert {each.fingerprint for each in same} == {task.fingerprint}
    changed = [build(OTHER_IMAGE), build(labels=OTHER_LABEL), task.subset(np.array([1, 0, 2, 3, 4, 5])), task.subset(np.arange(5))]
    assert len({each.fingerprint for each in (task, *changed)}) == 5


@pytest.mark.usefixtures("fresh_accelerator")
def test_embeddings_are_the_same_whatever_the_workers_and_with_a_pixel_cache(build, encoder, tmp_path):
    task, runtime = build().subset(np.array([4, 0, 5, 1, 3])), start("cpu")
    plain = embed_images(runtime, encoder, task, LoadOptions(2, 0))
    pixels = tmp_path / "pixels"
    for options in (LoadOptions(2, 2), LoadOptions(3, 2, pixel_cache=pixels), LoadOptions(2, 0, pixel_cache=pixels)):
        other = embed_images(runtime, encoder, task, options)
        np.testing.assert_allclose(other.embeddings, plain.embeddings, atol=1e-6)  # a batch of another size sums otherwise
        assert other.indices.tolist() == plain.indices.tolist() == list(range(5))


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize("kind", ["corrupted files", "cropped"])
def test_what_changes_the_image_gets_it_whole(kind, encoder, tmp_path):
    """Noise drawn for a quarter of the pixels would be another one, and a box would be elsewhere."""
    task, geometry = KINDS[kind](tmp_path, SEEDS, LABELS), encoder.preprocess.geometry
    part = task.subset(np.array([3, 1]))
    expected = torch.stack([geometry(task.samples.image(index)) for index in (3, 1)])
    assert torch.equal(TaskDataset(part, geometry).__getitems__([(0, 0), (0, 1)]).pixels, expected)
    cached = with_cached_pixels(start("cpu"), geometry, part, LoadOptions(2, 0, pixel_cache=tmp_path / "pixels"))
    assert np.array_equal(cached.samples.pixels_at(np.arange(2)), expected.numpy())
    clean = KINDS["folder"](tmp_path / "clean", SEEDS, LABELS)
    assert clean.samples.image(0, geometry.side).width < 1120  # while files as they are come reduced


def test_a_name_that_no_file_can_have_is_an_unreadable_image(tmp_path):
    samples = ImageFiles.of(tmp_path, [b"a\0b.jpg"])
    assert samples.digest(0) == hashlib.sha256().digest()
    with pytest.raises(UnreadableImage, match="null"):
        samples.image(0)


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize("name", ["Digits", "Shapes-Kind"])
def test_embeddings_of_what_is_in_the_package_are_the_same_whatever_the_workers(name, encoder):
    task, runtime = load_task(name, "test").subset(np.array([4, 0, 5])), start("cpu")
    plain, other = (embed_images(runtime, encoder, task, LoadOptions(2, workers)) for workers in (0, 2))
    np.testing.assert_allclose(other.embeddings, plain.embeddings, atol=1e-6)
    assert pickle.loads(pickle.dumps(task)).fingerprint == task.fingerprint
