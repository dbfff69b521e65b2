"""Batches: the same whatever the workers and processes, unreadable images dropped and told, workers that outlive signals."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg
from PIL import Image

from common.errors import UserError
from datasets.registry import load_task
from datasets.samples import RawSamples
from datasets.task import Task
from engine.loading import Batch, SkippedImages, TaskDataset, contiguous_batches, make_loader, seeded
from models.preprocess import Preprocess


def to_tensor(image):
    return torch.from_numpy(np.asarray(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1)


def jitter(image):
    """A random transform that draws from all three generators."""
    return to_tensor(image) + random.random() + torch.rand(3, 8, 8) + float(np.random.rand())  # noqa: NPY002


def slow(image):
    time.sleep(0.05)
    return to_tensor(image)


def killed(image):
    if torch.utils.data.get_worker_info():
        os.kill(os.getpid(), signal.SIGKILL)
    return to_tensor(image)


def faulty(image):
    if torch.utils.data.get_worker_info():
        raise RuntimeError("a defect")
    return to_tensor(image)


def threads(image):
    return torch.full((3, 1, 1), float(torch.get_num_threads()))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)).save(tmp_path / "test" / name / f"{i}.png")
    return tmp_path


def load(folder):
    return load_task(f"imagefolder:{folder}", "test")


def joined(batches):
    """All of some batches as one: (pixels, labels, indices, skipped)."""
    parts = list(batches)
    tensors = [torch.cat([getattr(part, name) for part in parts]) for name in ("pixels", "labels", "indices")]
    return *tensors, [entry for part in parts for entry in part.skipped]


def worker_ids(loader):
    return [worker.pid for worker in loader._loader._iterator._workers]


# --- what is in a batch ------------------------------------------------------------------------------------------


def test_batches_hold_the_images_in_order(folder):
    task = load(folder)
    batches = list(make_loader(task, to_tensor, contiguous_batches(12, 5)))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    pixels, labels, indices, skipped = joined(batches)
    assert torch.equal(pixels, torch.stack([to_tensor(task.samples.image(i)) for i in range(12)]))
    assert (labels.tolist(), indices.tolist(), skipped) == ([0] * 6 + [1] * 6, list(range(12)), [])
    assert (pixels.dtype, labels.dtype, indices.dtype) == (torch.float32, torch.int64, torch.int64)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_nothing_depends_on_batch_size_and_workers(folder, batch_size, num_workers):
    (folder / "test/a/3.png").write_bytes(b"")
    loader = make_loader(load(folder), jitter, contiguous_batches(12, batch_size), num_workers=num_workers, seed=0)
    expected = joined(make_loader(load(folder), jitter, [range(12)], seed=0))
    found = joined(loader)
    assert all(torch.equal(one, other) for one, other in zip(found[:3], expected[:3], strict=True))
    assert found[3] == expected[3] == [(3, "the file is empty")]


def test_given_order_and_repetition(folder):
    _, labels, indices, _ = joined(make_loader(load(folder), to_tensor, [[7, 0], [7]]))
    assert (indices.tolist(), labels.tolist()) == ([7, 0, 7], [1, 0, 1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_dropped_and_told(folder, num_workers):
    (folder / "test/a/1.png").write_text("no image")
    (folder / "test/a/2.png").unlink()
    task = load(folder)
    (folder / "test/b/0.png").unlink()
    batches = list(make_loader(task, to_tensor, contiguous_batches(11, 4), num_workers=num_workers))
    assert [batch.indices.tolist() for batch in batches] == [[0, 2, 3], [4, 6, 7], [8, 9, 10]]
    assert [batch.labels.tolist() for batch in batches] == [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
    assert joined(batches)[3] == [(1, "not an image of a known format"), (5, "No such file or directory")]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_of_unreadable_images_has_the_right_shape(folder, num_workers):
    for path in (folder / "test/a").iterdir():
        path.write_bytes(b"")
    first, _ = make_loader(load(folder), to_tensor, contiguous_batches(12, 6), num_workers=num_workers)
    assert (len(first), first.pixels.shape, first.pixels.dtype) == (0, (0, 3, 8, 8), torch.float32)
    assert (first.labels.dtype, first.indices.dtype, len(first.skipped)) == (torch.int64, torch.int64, 6)
    assert torch.nn.Conv2d(3, 2, 8)(first.pixels).shape == (0, 2, 1, 1)


def test_a_process_without_batches(folder):
    loader = make_loader(load(folder), to_tensor, [], num_workers=2)
    assert (len(loader), list(loader)) == (0, [])


def test_collected_labels_do_not_hold_shared_memory(folder):
    """A run over a million images collects thousands of them; each would be an open file."""
    for batch in make_loader(load(folder), to_tensor, contiguous_batches(12, 5), num_workers=1):
        assert not batch.labels.is_shared()
        assert not batch.indices.is_shared()


def test_moving_a_batch_leaves_the_indices(folder):
    (batch,) = make_loader(load(folder), to_tensor, [range(3)])
    moved = batch.to("meta")
    assert (moved.pixels.device.type, moved.labels.device.type, moved.indices.tolist()) == ("meta", "meta", [0, 1, 2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_pinned_batches(folder, num_workers):
    for batch in make_loader(load(folder), to_tensor, contiguous_batches(12, 5), num_workers=num_workers, pin_memory=True):
        assert isinstance(batch, Batch)
        assert batch.pixels.is_pinned()
        assert batch.to("cuda").pixels.cpu().equal(batch.pixels)


# --- randomness --------------------------------------------------------------------------------------------------


def test_random_transforms_depend_on_seed_epoch_and_index(folder):
    dataset = TaskDataset(load(folder), jitter, seed=1)
    pixels = dataset[2, 3][0]
    assert torch.equal(pixels, dataset[2, 3][0])
    assert torch.equal(pixels, TaskDataset(load(folder), jitter, seed=1)[2, 3][0])
    assert not torch.equal(pixels, dataset[1, 3][0])
    assert not torch.equal(pixels, TaskDataset(load(folder), jitter, seed=2)[2, 3][0])
    base = TaskDataset(load(folder), to_tensor)
    assert not torch.equal(pixels - base[2, 3][0], dataset[2, 4][0] - base[2, 4][0])


def test_generators_go_on_as_before(folder):
    def draw():
        return random.random(), float(np.random.rand()), torch.rand(1).item()  # noqa: NPY002

    with seeded(5):
        expected = [draw(), draw()]
    with seeded(5):
        first = draw()
        list(make_loader(load(folder), jitter, contiguous_batches(12, 5), seed=0))
        assert [first, draw()] == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_reach_persistent_workers(folder, num_workers):
    loader = make_loader(load(folder), jitter, contiguous_batches(12, 5), num_workers=num_workers, seed=3)
    dataset, ids = TaskDataset(load(folder), jitter, seed=3), []
    for epoch in (0, 1, 5):
        loader.set_epoch(epoch)
        assert torch.equal(joined(loader)[0], torch.stack([dataset[epoch, i][0] for i in range(12)]))
        ids.append(worker_ids(loader) if num_workers else [])
    assert ids[0] == ids[1] == ids[2]
    assert len(ids[0]) == num_workers


def test_a_batch_sampler_learns_of_the_epoch(folder):
    class Rotating:
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return 2

        def __iter__(self):
            yield [self.epoch, self.epoch + 1]
            yield [self.epoch + 2]

    loader = make_loader(load(folder), to_tensor, Rotating())
    loader.set_epoch(4)
    assert (len(loader), [batch.indices.tolist() for batch in loader]) == (2, [[4, 5], [6]])


# --- worker processes --------------------------------------------------------------------------------------------


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_workers_outlive_the_signals_of_a_job_and_end_with_the_loader(folder):
    loader = make_loader(load(folder), slow, contiguous_batches(12, 2), num_workers=2, prefetch=1)
    batches = iter(loader)
    parts = [next(batches)]
    ids = worker_ids(loader)
    for name in ("INT", "TERM", "USR1", "USR2"):
        subprocess.run(["kill", f"-{name}", *map(str, ids)], check=True)  # another process than their parent
    parts += list(batches)
    assert joined(parts)[2].tolist() == list(range(12))
    del loader, batches
    assert all(gone(pid) for pid in ids)


def test_a_program_ends_while_its_workers_wait(folder):
    """Python ends the processes that are left at its exit by SIGTERM and waits for them."""
    code = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]}
from test_loading import contiguous_batches, load, make_loader, slow
loader = make_loader(load({str(folder)!r}), slow, contiguous_batches(12, 2), num_workers=2)
batches = iter(loader)
print(len(next(batches)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.strip(), done.stderr) == ("2", "")


def test_an_unfinished_epoch_does_not_disturb_the_next(folder):
    loader = make_loader(load(folder), slow, contiguous_batches(12, 2), num_workers=2)
    for batch in loader:
        assert batch.indices.tolist() == [0, 1]
        break
    assert joined(loader)[2].tolist() == list(range(12))


def test_workers_keep_to_one_thread(folder):
    (batch,) = make_loader(load(folder), threads, [range(3)], num_workers=1)
    assert batch.pixels.flatten().tolist() == [1.0] * 9


def test_a_killed_worker_is_told_in_one_sentence(folder):
    with pytest.raises(UserError, match=r"A data-loading process was killed, .*; use fewer --num-workers or a smaller --batch-size"):
        list(make_loader(load(folder), killed, contiguous_batches(12, 2), num_workers=1))


def test_a_defect_in_a_transform_keeps_its_traceback(folder):
    loader = make_loader(load(folder), faulty, contiguous_batches(12, 2), num_workers=1)
    with pytest.raises(RuntimeError, match=r"(?s)in faulty.*a defect"):
        list(loader)
    end(loader)


def end(loader):
    """What the DataLoader itself does after an error, but only once five seconds have passed: SIGTERM from the parent."""
    for worker in loader._loader._iterator._workers:
        worker.terminate()
        worker.join(timeout=10)
        assert worker.exitcode == 0


def test_dataset_survives_a_pickle_and_leaves_cached_names_behind(folder):
    task = load(folder)
    assert len(task.sample_ids) == 12  # now cached in the task
    data = pickle.dumps(TaskDataset(task, jitter, seed=1))
    assert torch.equal(pickle.loads(data)[0, 3][0], TaskDataset(task, jitter, seed=1)[0, 3][0])
    assert len(data) == len(pickle.dumps(TaskDataset(load(folder), jitter, seed=1)))


# --- sharing the work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 7, 64, 100])
@pytest.mark.parametrize("batch_size", [1, 8, 200])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_the_batches_of_one(n, batch_size, world):
    ranks = [contiguous_batches(n, batch_size, rank, world) for rank in range(world)]
    assert [batch for rank in ranks for batch in rank] == contiguous_batches(n, batch_size)
    assert [index for rank in ranks for batch in rank for index in batch] == list(range(n))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_batches_are_full_but_the_last():
    assert [len(batch) for batch in contiguous_batches(10, 4)] == [4, 4, 2]


def test_batch_size_below_one():
    with pytest.raises(UserError, match="--batch-size must be at least 1, not 0"):
        contiguous_batches(10, 0)


# --- skipped images ----------------------------------------------------------------------------------------------


def test_skipped_images_within_the_limit(tmp_path):
    skipped = SkippedImages(2)
    skipped.extend([("b.jpg", "truncated"), ("a.jpg", "empty")])
    skipped.check()
    assert skipped.write(tmp_path / "out.safetensors") == tmp_path / "out.safetensors.skipped.txt"
    assert (tmp_path / "out.safetensors.skipped.txt").read_text() == "a.jpg\tempty\nb.jpg\ttruncated\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors.skipped.txt"]


def test_skipped_images_beyond_the_limit():
    skipped = SkippedImages()
    skipped.check()
    skipped.add("x/1.jpg", "truncated.")
    with pytest.raises(
        UserError, match=r"^1 image is unreadable, more than --max-skipped 0 allows; the first is 'x/1.jpg' \(truncated\)\.$"
    ):
        skipped.check()
    skipped.add("x/2.jpg", "empty")
    with pytest.raises(UserError, match=r"^2 images are unreadable, .*'x/1.jpg'"):
        skipped.check()


def test_skipped_images_of_a_batch_are_named(folder):
    (folder / "test/b/0.png").write_bytes(b"")
    task, skipped = load(folder), SkippedImages(1)
    for batch in make_loader(task, to_tensor, contiguous_batches(12, 5)):
        skipped.add_batch(task, batch)
    assert skipped.entries == [("test/b/0.png", "the file is empty")]


def test_without_skipped_images_no_list_is_left(tmp_path):
    (tmp_path / "out.csv.skipped.txt").write_text("of an earlier run\n")
    assert SkippedImages().write(tmp_path / "out.csv") is None
    assert list(tmp_path.iterdir()) == []


# --- bytes, arrays and reduced scales ------------------------------------------------------------------------------


def raw_task(shape=(7, 9), count=11):
    pixels = np.random.default_rng(1).integers(0, 256, (count, *shape), dtype=np.uint8)
    return Task("Raw", "test", RawSamples(pixels, "raw"), np.arange(count) % 2, ("a", "b"), ("{c}",))


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_are_batched_whole_and_become_the_same_pixels(shape, workers):
    task, preprocess = raw_task(shape), Preprocess(PreprocessCfg(size=16))
    task = task.subset(np.array([9, 3, 4, 0, 10]))
    batches = list(make_loader(task, preprocess.geometry, contiguous_batches(5, 2), num_workers=workers))
    assert batches[0].pixels.shape == (2, 3 if len(shape) == 3 else 1, 7, 9)
    found = torch.cat([preprocess.of_bytes(batch.pixels) for batch in batches])
    assert torch.equal(found, torch.stack([preprocess(task.samples.image(index)) for index in range(5)]))
    assert torch.cat([batch.labels for batch in batches]).tolist() == task.labels.tolist()
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(5))


def test_a_transform_that_knows_no_batches_sees_every_image_of_an_array():
    (batch,) = make_loader(raw_task(), to_tensor, [range(11)])
    assert torch.equal(batch.pixels[4], to_tensor(raw_task().samples.image(4)))


@pytest.fixture
def photo(tmp_path):
    """A smooth JPEG file of 2000 x 1500, and one of 90 x 80, in a task."""
    for name, size in (("large", (2000, 1500)), ("small", (90, 80))):
        (tmp_path / "test" / name).mkdir(parents=True)
        coarse = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(tmp_path / "test" / name / "0.jpg", quality=95)
    return load_task(f"imagefolder:{tmp_path}", "test")


def test_jpeg_files_are_decoded_at_the_scale_that_is_needed(photo):
    assert photo.samples.image(0, 25).size == (1000, 750)  # a quarter would leave 375 pixels, less than 400
    assert photo.samples.image(0, 250).size == (1000, 750)
    assert photo.samples.image(0, 251).size == (2000, 1500)
    assert photo.samples.image(1, 32).size == (90, 80)
    assert photo.samples.image(0).size == (2000, 1500)


def test_a_reduced_scale_changes_little_and_can_be_forbidden(photo):
    geometry = Preprocess(PreprocessCfg(size=32)).geometry
    exact = torch.stack([geometry(photo.samples.image(index)) for index in range(2)])
    (full,) = make_loader(photo, geometry, [range(2)], full_decode=True)
    (reduced,) = make_loader(photo, geometry, [range(2)])
    assert torch.equal(full.pixels, exact)
    assert not torch.equal(reduced.pixels, exact)
    assert (reduced.pixels.int() - exact.int()).abs().max() <= 3
    assert torch.equal(reduced.pixels[1], exact[1])
