"""A collection inverted in batches, goes and processes: the same files' content as in one go; and what is asked to be inverted."""

import itertools
import json
import os
import signal
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common.errors import Interrupted, UserError
from datasets.retrieval.collection import Collection
from engine.runtime import start
from inversion import run
from inversion.arguments import step_list
from inversion.command import experiment_name
from inversion.items import asked_items, class_prompts, count_cut
from inversion.optimise import InversionOptions, invert
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from inversion.pseudo_tokens import HYPERPARAMETERS, indices_done, load_pseudo_tokens, shards_of
from inversion.published import pseudo_patches
from inversion.run import Job, batch_size_for, run_job
from tests.helpers import files_below
from tests.models import small

N = 13
ATOL = 1e-5


@pytest.fixture
def runtime(fresh_accelerator):
    return start("cpu", "fp32", 42)


@pytest.fixture(scope="module")
def tower():
    return PseudoText(small.encoder(small.clip(), noise=0))


@pytest.fixture
def job_in(tower):
    """A function: the job of inverting 13 texts into a folder."""
    texts = Collection.of_texts([f"text {number}" for number in range(N)], [f"id{number}" for number in range(N)])
    targets = F.normalize(torch.randn(N, small.WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1).numpy()

    def job(folder, steps=6, **more):
        hyperparameters = {"kind": "oti", "dataset": "D", "split": "s", "side": "query", "exp_name": "e", "n_items": N, "steps": steps}
        options = InversionOptions(steps=steps, snapshots=(2,))
        return Job(folder, texts, tower, lambda: targets, options, {**hyperparameters, "snapshots": (2,), **more})

    return job


def same(one, other):
    """Whether two folders hold the same inversion."""
    a, b = load_pseudo_tokens(one), load_pseudo_tokens(other)
    torch.testing.assert_close(a.pseudo_tokens, b.pseudo_tokens, rtol=0, atol=ATOL)
    np.testing.assert_allclose(a.features, b.features, rtol=0, atol=ATOL)
    np.testing.assert_allclose(a.curve, b.curve, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(a.digests, b.digests)
    return (a.names, a.steps) == (b.names, b.steps)


@pytest.mark.parametrize(
    ("batch_size", "save_frequency", "shards"), [(1, 5, 3), (7, 1, 2), (4, 2, 2), (100, 1, 1)], ids=["1", "7", "4, two a shard", "all"]
)
def test_batches_and_shards_change_nothing(runtime, job_in, tmp_path, batch_size, save_frequency, shards):
    run_job(runtime, job_in(tmp_path / "one"), 5)
    tally = run_job(runtime, job_in(tmp_path / "other"), batch_size, save_frequency)
    assert len(shards_of(tmp_path / "other")) == shards
    assert tally.items == N
    assert same(tmp_path / "one", tmp_path / "other")


class Killed(Exception):
    """Stands in for whatever ends a process."""


def killed_after(monkeypatch, shards):
    """From the next call on, the run is ended instead of writing a shard beyond so many."""
    save, number = run.save_shard, itertools.count()

    def killing(*args):
        if next(number) >= shards:
            raise Killed
        return save(*args)

    monkeypatch.setattr(run, "save_shard", killing)


def test_a_resumed_run_is_an_uninterrupted_one(runtime, job_in, tmp_path, monkeypatch, capsys):
    """The second go has other batches too, and leaves alone what the first one finished."""
    run_job(runtime, job_in(tmp_path / "one"), 4)
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            run_job(runtime, job_in(tmp_path / "two"), 3)
    assert indices_done(tmp_path / "two") == {0, 1, 2, 3, 4, 5}
    before = files_below(tmp_path / "two")
    capsys.readouterr()
    tally = run_job(runtime, job_in(tmp_path / "two"), 5)
    assert "6 of 13 items are there, going on" in capsys.readouterr().out
    assert tally.items == 7
    assert before.items() <= files_below(tmp_path / "two").items()
    assert same(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in sorted((tmp_path / "two").glob("run-*"))] == ["run-0000006.json"]


def test_a_finished_run_is_kept_and_needs_no_targets(runtime, job_in, tmp_path, capsys):
    run_job(runtime, job_in(tmp_path), 5)
    before = files_below(tmp_path)
    job = job_in(tmp_path)
    object.__setattr__(job, "targets", None)
    assert run_job(runtime, job, 5).items == 0
    assert f"kept {tmp_path}: 13 items (--overwrite makes them anew)\n" in capsys.readouterr().out
    assert files_below(tmp_path) == before


def test_other_hyper_parameters_are_refused_by_name_and_overwritten_when_asked(runtime, job_in, tmp_path):
    run_job(runtime, job_in(tmp_path), 5)
    before = files_below(tmp_path)
    with pytest.raises(UserError, match=r"was made with steps 6, not 5; give this one another --exp-name, or .* --overwrite"):
        run_job(runtime, job_in(tmp_path, steps=5), 5)
    with pytest.raises(UserError, match=r"was made of other items; "):
        run_job(runtime, job_in(tmp_path, fingerprint="f"), 5)
    assert files_below(tmp_path) == before
    (tmp_path / "notes.txt").write_text("mine")
    run_job(runtime, job_in(tmp_path, steps=5), 100, overwrite=True)
    assert load_pseudo_tokens(tmp_path).steps == (2, 5)
    assert sorted(files_below(tmp_path)) == sorted([HYPERPARAMETERS, "items-0000000.safetensors", "notes.txt", "run-0000000.json"])


def test_shards_whose_hyper_parameters_are_lost_are_not_taken_for_rubbish(runtime, job_in, tmp_path):
    run_job(runtime, job_in(tmp_path), 5)
    (tmp_path / HYPERPARAMETERS).unlink()
    with pytest.raises(UserError, match="holds pseudo-tokens without their hyperparameters"):
        run_job(runtime, job_in(tmp_path), 5)
    assert len(shards_of(tmp_path)) == 3


def test_batches_that_do_not_fit_the_memory_are_halved(runtime, job_in, tmp_path, monkeypatch, capsys):
    run_job(runtime, job_in(tmp_path / "one"), 5)
    monkeypatch.setattr(run, "invert", limited_to(3))
    capsys.readouterr()
    run_job(runtime, job_in(tmp_path / "other"), 8)
    assert "  8 items at a time do not fit the memory of the device; --batch-size 4 is tried\n" in capsys.readouterr().out
    assert same(tmp_path / "one", tmp_path / "other")
    monkeypatch.setattr(run, "invert", limited_to(0))
    with pytest.raises(UserError, match="Not even one item at a time fits the memory"):
        run_job(runtime, job_in(tmp_path / "none"), 8)


def limited_to(items):
    """Inversion on a device that holds so many items."""

    def inverting(tower, targets, *more):
        if len(targets) > items:
            raise torch.OutOfMemoryError
        return invert(tower, targets, *more)

    return inverting


def test_a_moved_model_is_still_the_same(runtime, job_in, tmp_path):
    run_job(runtime, job_in(tmp_path, model="local-dir:/a", checkpoint_sha256="1"), 5)
    assert run_job(runtime, job_in(tmp_path, model="local-dir:/b", checkpoint_sha256="1"), 5).items == 0
    with pytest.raises(UserError, match="was made with other weights"):
        run_job(runtime, job_in(tmp_path, model="local-dir:/a", checkpoint_sha256="2"), 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_it_with_the_finished_shards_kept(runtime, job_in, tmp_path, monkeypatch, number):
    save, shards = run.save_shard, itertools.count(1)

    def signalling(*args):
        save(*args)
        if next(shards) == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(run, "save_shard", signalling)
    with pytest.raises(Interrupted, match=rf"Stopped by {number.name}; 8 of 13 items are saved, the same command goes on"):
        run_job(runtime, job_in(tmp_path), 4)
    monkeypatch.undo()
    assert run_job(runtime, job_in(tmp_path), 4).items == 5


def test_processes_share_what_is_left(runtime, job_in, tmp_path, monkeypatch):
    """Each of three, one after the other here, takes every third item that is left."""
    run_job(runtime, job_in(tmp_path / "one"), 5)
    with monkeypatch.context() as patch:
        killed_after(patch, 1)
        with pytest.raises(Killed):
            run_job(runtime, job_in(tmp_path / "three"), 3)
    job, left = job_in(tmp_path / "three"), [index for index in range(N) if index > 2]
    settled = json.loads((tmp_path / "three" / HYPERPARAMETERS).read_text())
    for rank in (2, 0, 1):
        run._invert_share(runtime, job, torch.from_numpy(job.targets()), left[rank::3], 2, 1, settled)
    assert same(tmp_path / "one", tmp_path / "three")


def test_what_a_run_says_of_itself(runtime, job_in, tmp_path, capsys):
    tally = run_job(runtime, job_in(tmp_path), 5)
    found = load_pseudo_tokens(tmp_path)
    account = json.loads((tmp_path / "run-0000000.json").read_text())
    assert account["items"] == N
    assert account["batch_size"] == 5
    assert account["items_per_second"] == pytest.approx(N / tally.seconds, rel=0.01)
    assert account["mean_loss_first"] == pytest.approx(found.curve[0], abs=1e-6)
    assert account["mean_loss_last"] == pytest.approx(found.losses[:, -1].mean(), abs=1e-6)
    assert {"peak_memory_mib", "device", "processes", "versions", "created"} <= account.keys()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["  5 of 13 items", "  10 of 13 items", "  13 of 13 items"]
    assert lines[-1].endswith(" 0:00:00 left")
    settings = json.loads((tmp_path / HYPERPARAMETERS).read_text())
    assert settings.keys() >= {"format", "kind", "steps", "created", "versions"}


def test_batches_are_large_by_default_where_memory_is():
    sizes = [batch_size_for(kind, torch.device(device)) for kind in ("oti", "ovi") for device in ("cuda", "cpu", "mps")]
    assert sizes == [4096, 256, 256, 512, 64, 64]


def test_ovi_runs_the_same_way(runtime, job_in, tmp_path):
    job = job_in(tmp_path)
    object.__setattr__(job, "tower", PseudoImage(small.encoder(small.clip(), noise=0), 2))
    assert run_job(runtime, job, 5).last < run_job(runtime, job, 5, overwrite=True).first
    assert load_pseudo_tokens(tmp_path).pseudo_tokens.shape == (N, 2, 2, small.WIDTH)


@pytest.mark.parametrize(
    ("model", "number"),
    [
        ("ViT-B-32-quickgelu/openai", 1),
        ("ViT-L-14-quickgelu/openai", 4),
        ("ViT-B-32/datacomp_xl_s13b_b90k", 1),
        ("ViT-L-14/datacomp_xl_s13b_b90k", 2),
        ("ViT-B-16-SigLIP/webli", 4),
        ("SLIP-ViT-B-16/slip_base_100ep.pt", 1),
        ("SLIP-ViT-L-16/weights/slip_large_100ep.pt", 2),
        ("/models/tiny/None", 1),
    ],
)
def test_the_published_numbers_of_pseudo_patches(model, number):
    """Section 3 of the paper's released configurations."""
    assert pseudo_patches(model) == number


def test_class_names_are_read_as_words_and_kept_as_names():
    prompts = class_prompts(["annual_crop", "sea", "annual_crop"], "a photo of {}.")
    assert prompts.ids == ["annual_crop", "sea"]
    assert prompts.texts == ("a photo of annual crop.", "a photo of sea.")
    with pytest.raises(UserError, match="has no place for the class name"):
        class_prompts(["sea"], "a photo")


def test_texts_that_are_cut_are_counted():
    encoder = small.encoder(small.siglip_text(), vocabulary=320, length=16)  # one token a letter
    assert count_cut(encoder, ["a" * 15, "a" * 16, "a" * 40, "a"]) == 2


def asked(kind="ovi", **more):
    """What the command line of ``kind`` says, by default."""
    defaults = {"split": None, "side": None, "gallery_split": None, "crop": False, "distractors": False, "summaries": None}
    return Namespace(**{**defaults, "data_dir": Path("data"), "validate": False, "use_class_names": False, **more})


def write_captions(folder, captions):
    """A COCO of one image with these captions."""
    folder.mkdir(parents=True)
    sentences = [{"raw": text, "sentid": number} for number, text in enumerate(captions)]
    images = [{"split": "test", "imgid": 0, "sentences": sentences}]
    (folder / "dataset_coco_light.json").write_text(json.dumps({"images": images}))


def test_empty_texts_are_left_out_and_counted(tmp_path):
    write_captions(tmp_path / "COCO2014", ["first", "one", " ", "three", ""])
    items = asked_items("ovi", asked(dataset_name="coco_text", split="test_gallery", data_dir=tmp_path))
    assert (items.name, items.split, items.side) == ("COCO", "test", "gallery")
    assert items.collection.texts == ("one", "three")
    assert items.collection.ids == ["1", "3"]
    assert (items.rows.tolist(), items.n_empty, len(items.whole)) == ([0, 2], 2, 4)
    query = asked_items("ovi", asked(dataset_name="COCO", data_dir=tmp_path))
    assert (query.collection.texts, query.side, query.n_empty) == (("first",), "query", 0)


def test_texts_that_are_all_empty_are_refused(tmp_path):
    write_captions(tmp_path / "COCO2014", ["", "one"])
    with pytest.raises(UserError, match="All 1 texts of COCO, split test, are empty"):
        asked_items("ovi", asked(dataset_name="COCO", data_dir=tmp_path))


def test_images_have_only_class_names_for_texts():
    with pytest.raises(UserError, match=r"Digits has images, .* add --use-class-names"):
        asked_items("ovi", asked(dataset_name="Digits"))
    with pytest.raises(UserError, match="COCO has no class names"):
        asked_items("ovi", asked(dataset_name="COCO", use_class_names=True))


def test_only_the_side_that_is_inverted_need_be_there(image_folder, tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only/test").symlink_to(image_folder / "test")
    items = asked_items("oti", asked(dataset_name=f"imagefolder:{tmp_path / 'only'}"))
    assert (len(items.collection), items.split, items.side) == (12, "test", "query")


def test_the_gallery_of_a_classification_data_set_is_its_training_images():
    items = asked_items("oti", asked(dataset_name="Digits", side="gallery"))
    assert (items.split, items.side) == ("test", "gallery")
    assert len(items.collection) == 1200


def test_the_name_of_an_experiment():
    selection = Namespace(label="the-model")
    assert experiment_name(Namespace(exp_name="mine", config=Path("configs/oti/clip.toml")), selection) == "mine"
    assert experiment_name(Namespace(exp_name=None, config=Path("configs/oti/clip.toml")), selection) == "clip"
    assert experiment_name(Namespace(exp_name=None, config=None), selection) == "the-model"


def test_steps_are_written_with_commas():
    assert step_list("10,20,") == [10, 20]
