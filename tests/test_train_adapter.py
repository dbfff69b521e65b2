"""train_adapter.py as users and schedulers run it: every objective, killed, signalled, under torchrun, and what others make of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from common.files import read_csv
from datasets.registry import load_task
from engine.embed import LoadOptions, embed_images
from engine.runtime import start
from fewshot.adapter_inputs import measured
from models.checkpoint import load_checkpoint, read_header
from models.tensors import read_safetensors
from tests.helpers import ROOT, load_script, run_here, run_script, start_script, write_images
from tests.test_train import wait_for_step

SHORT = ["--batch-size", 6, "--epochs", 2, "--val-p", 0.4, "--num-workers", 0, "--device", "cpu"]
OVERLAP = ["--objective", "overlap", "--images-per-class", 2, "--adapter-scale", 1]


@pytest.fixture
def flags(small_model, image_folder):
    """A function: the flags of a short run on the coloured images."""

    def make(model_dir, *more):
        data = ["--dataset", f"imagefolder:{image_folder}", "--model-name", small_model, "--model-dir", model_dir]
        return [*SHORT, *data, *more]

    return make


def checkpoint(folder):
    (path,) = [*folder.glob("*_last.safetensors"), *folder.glob("*_best.safetensors")]
    return path


def record(folder):
    (path,) = folder.glob("*_run.json")
    return json.loads(path.read_text())


def assert_same(one, other, tolerance=0.0):
    one, other = (read_safetensors(checkpoint(folder))[0] for folder in (one, other))
    assert one.keys() == other.keys() and one
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_history(one, other, tolerance):
    assert len(one["history"]) == len(other["history"])
    for entry, twin in zip(one["history"], other["history"], strict=True):
        assert entry == pytest.approx(twin, abs=tolerance)


# --- killed and signalled ------------------------------------------------------------------------------------------

LONG = ["--epochs", 10, "--save-minutes", 0]


def test_a_run_killed_in_mid_epoch_goes_on_to_the_weights_of_one_that_was_not(flags, tmp_path):
    """SIGKILL to the real script, which saves after every step; then --resume: weights and measures are equal bit for bit."""
    how = [*OVERLAP, "--keep", "overlap", "--schedule", "cosine", "--validate-every", 1]
    arguments = flags(tmp_path / "killed", *LONG, *how)
    process = start_script("train_adapter", *arguments)
    wait_for_step(process, tmp_path / "killed", epoch=1, step=1)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    resumed = run_here("train_adapter", *arguments, "--resume").succeeded()
    assert "resuming at epoch" in resumed.stdout and "before training" not in resumed.stdout
    run_here("train_adapter", *flags(tmp_path / "whole", *LONG, *how)).succeeded()
    assert_same(tmp_path / "killed", tmp_path / "whole")
    one, other = record(tmp_path / "killed"), record(tmp_path / "whole")
    assert one["history"] == other["history"] and one["best_step"] == other["best_step"] and one["before"] == other["before"]
    assert not list((tmp_path / "killed").glob("*_state.safetensors"))


def test_a_signal_ends_the_run_with_its_state_saved_and_status_75(flags, tmp_path):
    """And --resume ends as if nothing had been, the linear layer beside the adapters included."""
    folder = tmp_path / "stopped"
    arguments = flags(folder, *LONG, "--num-workers", 1)
    process = start_script("train_adapter", *arguments)
    wait_for_step(process, folder, epoch=1, step=1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (75, "train_adapter.py: Stopped by SIGTERM; the state is saved, --resume goes on from it.\n")
    assert list(folder.glob("*_state.safetensors")) and not list(folder.glob("*_run.json"))
    run_here("train_adapter", *arguments, "--resume").succeeded()
    run_here("train_adapter", *flags(tmp_path / "whole", *LONG)).succeeded()
    assert_same(folder, tmp_path / "whole")
    assert record(folder)["history"] == record(tmp_path / "whole")["history"]


def test_a_finished_run_says_so_and_is_not_overwritten_unasked(flags, tmp_path):
    run_here("train_adapter", *flags(tmp_path)).succeeded()
    path = checkpoint(tmp_path)
    again = run_here("train_adapter", *flags(tmp_path, "--resume")).succeeded()
    assert again.stdout == f"finished already: {path}\ncheckpoint: {path}\n"
    before = path.read_bytes()
    run_here("train_adapter", *flags(tmp_path)).refused("exists", "--resume", "--overwrite")
    assert path.read_bytes() == before
    run_here("train_adapter", *flags(tmp_path, "--overwrite")).succeeded()


# --- the same whatever the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [["--adapter-dropout", 0.5], [*OVERLAP, "--keep", "overlap"]], ids=["supervised", "overlap"])
def test_two_processes_train_to_the_weights_of_one(flags, tmp_path, how):
    how = [*how, "--batch-size", 7, "--validate-every", 1]
    ended = run_script("train_adapter", *flags(tmp_path / "two", *how), processes=2).succeeded()
    alone = run_here("train_adapter", *flags(tmp_path / "one", *how)).succeeded()
    assert_same(tmp_path / "one", tmp_path / "two", 1e-5)
    two, one = record(tmp_path / "two"), record(tmp_path / "one")
    assert (two["processes"], one["processes"]) == (2, 1)
    assert_same_history(one, two, 1e-4)
    assert ended.stdout.count("before training") == alone.stdout.count("before training") == 1
    assert "Traceback" not in ended.stderr and len(list((tmp_path / "two").iterdir())) == 2


def test_loader_processes_do_not_change_the_weights(flags, tmp_path):
    for number in (0, 2):
        run_here("train_adapter", *flags(tmp_path / str(number), "--num-workers", number)).succeeded()
    assert_same(tmp_path / "0", tmp_path / "2")


@pytest.mark.parametrize("how", [[], OVERLAP], ids=["supervised", "overlap"])
def test_bf16_on_the_cpu(flags, tmp_path, how):
    run_here("train_adapter", *flags(tmp_path, "--precision", "bf16", *how)).succeeded()
    assert {tensor.dtype for tensor in read_safetensors(checkpoint(tmp_path))[0].values()} == {torch.float32}
    assert "_bf16_" in checkpoint(tmp_path).name


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_the_adapters_with_the_least_overlap_are_kept_on_request(flags, tmp_path):
    """The last measurement is not the best one; the checkpoint has the measures that it says."""
    for number in range(3):  # three classes of all colours, of which nothing can be learnt
        write_images(tmp_path / "drawn", 4, seed=number)
        (tmp_path / "mixed" / str(number)).mkdir(parents=True)
        for path in sorted((tmp_path / "drawn").rglob("*.*")):
            path.rename(tmp_path / "mixed" / str(number) / f"{path.parent.name}-{path.name}")
        shutil.rmtree(tmp_path / "drawn")
    images = f"imagefolder:{tmp_path / 'mixed'}"
    how = ["--keep", "overlap", "--validate-every", 1, "--epochs", 4, "--lr", 0.5, "--adapter-scale", 1, "--dataset", images]
    run_here("train_adapter", *flags(tmp_path, *how)).succeeded()
    done, header = record(tmp_path), read_header(checkpoint(tmp_path))
    overlaps = {entry["step"]: entry["overlap"] for entry in done["history"]}
    assert len(overlaps) == 12 and len(set(overlaps.values())) > 2
    assert done["best_overlap"] == min(overlaps.values()) == overlaps[done["best_step"]] == header.settings["validation"]["overlap"]
    assert done["best_step"] == header.settings["step"] < 12
    runtime = start("cpu", "fp32")
    val, load = load_task(images, "val", val_p=0.4), LoadOptions(batch_size=6, num_workers=0)
    again = measured(embed_images(runtime, load_checkpoint(checkpoint(tmp_path))[0], val, load), val)
    assert again == pytest.approx(header.settings["validation"], abs=1e-9)


def test_the_overlap_of_another_data_set_can_be_watched(flags, tmp_path):
    write_images(tmp_path / "others", 8, colors=["blue", "red"])
    ended = run_here("train_adapter", *flags(tmp_path, "--val-dataset", f"imagefolder:{tmp_path / 'others'}")).succeeded()
    assert f" of imagefolder:{tmp_path / 'others'}; fp32 on cpu" in ended.stdout
    assert record(tmp_path)["settings"]["val_dataset"] == f"imagefolder:{tmp_path / 'others'}"


def test_every_command_reads_the_checkpoint(flags, tmp_path, image_folder):
    run_here("train_adapter", *flags(tmp_path, "--lr", 0.1)).succeeded()
    path = checkpoint(tmp_path)
    assert all(".parallel_adapter." in name for name in read_safetensors(path)[0])
    data = ["--num-workers", 0, "--device", "cpu", "--model-path", path]
    run_here("test", *data, "--eval-datasets", f"imagefolder:{image_folder}", "--outfile", tmp_path / "r.csv").succeeded()
    (row,) = read_csv(tmp_path / "r.csv")
    assert row["tuning"] == "parallel-adapter"
    own = ["--datasets", f"imagefolder:{image_folder}", "--val-p", 0.1]
    run_here("get_embeddings", *data, *own, "--outfolder", tmp_path / "e").succeeded()
    (embeddings,) = (tmp_path / "e").rglob("*.safetensors")
    run_here("get_metric_scores", "--embeddings", embeddings, "--metrics", "overlap", "--outpath", tmp_path / "m.csv").succeeded()
    header = read_header(path)
    assert dict(header.options) == {"bottleneck": 64, "adapter_scale": 0.03, "adapter_dropout": 0.1}
    expected = {"objective": "supervised", "lr": 0.1, "wd": 0.01, "batch_size": 6, "epochs": 2, "keep": "last", "seed": 0, "step": 4}
    assert {key: header.settings[key] for key in expected} == expected


def test_train_trains_such_adapters_too(flags, tmp_path, small_model, image_folder):
    """Cross-entropy over prompts, as of any tuning."""
    how = ["--model-name", "parallel-adapter", "--base-model", small_model, "--adapter-scale", 1, "--lr", 0.1, "--bs", 8, "--nepochs", 2]
    data = ["--dataset", f"imagefolder:{image_folder}", "--val-p", 0.2, "--num-workers", 0, "--device", "cpu", "--model-dir", tmp_path]
    run_here("train", *how, *data).succeeded()
    (path,) = tmp_path.glob("*_best.safetensors")
    assert "parallel-adapter-b64-s1-d0.1" in path.name and read_header(path).options["adapter_scale"] == 1


# --- the released command lines ----------------------------------------------------------------------------------------


@pytest.fixture
def open_images(tmp_path):
    """24 images in the layout of the released code: a table of ids and names, a folder of ID.jpg."""
    folder = tmp_path / "images_classes"
    write_images(tmp_path / "colors", 8)
    folder.mkdir()
    rows = ["ImageID,DisplayName,type"]
    for number, path in enumerate(sorted((tmp_path / "colors").rglob("*.*"))):
        path.rename(folder / f"{number:016x}.jpg")
        rows.append(f"{number:016x},{path.parent.name},train")
    (tmp_path / "oi_data.csv").write_text("\n".join(rows) + "\n")
    return ["--images_path", tmp_path / "oi_data.csv"], folder


@pytest.mark.parametrize("root", ["--root", "--oi_root"])
def test_the_released_spelling(open_images, tmp_path, small_model, root):
    table, folder = open_images
    released = ["--attempt", 3, "--epochs", 1, "--seed", 1, "--lr", "8e-3", "--batch_size", 6, "--ffn_adapter_scalar", ".05"]
    own = ["--preprocess", "as-released", "--model-name", small_model, "--model-dir", tmp_path, "--val-p", 0.4, "--num-workers", 0]
    run_here("train_adapter", root, f"{folder}/", *table, *released, *own, "--device", "cpu").succeeded()
    path, header = checkpoint(tmp_path), read_header(checkpoint(tmp_path))
    assert "_pixels-as-released_" in path.name and path.name.endswith("_3_last.safetensors")
    assert header.options["adapter_scale"] == 0.05 and header.classnames == ("blue", "green", "red") and header.seed == 1
    assert header.settings["preprocess"] == "as-released" and header.settings["dataset"].endswith("oi_data.csv")


@pytest.mark.parametrize("preset", sorted((ROOT / "configs/adapter").glob("*.toml")), ids=lambda path: path.stem)
def test_presets_are_complete_requests(preset, monkeypatch):
    script = load_script("train_adapter")
    monkeypatch.setattr(sys, "argv", ["train_adapter.py", "--config", str(preset)])
    request = script.make_request(script.parse_arguments())
    objective, _, size = preset.stem.partition("_")
    assert request.objective == objective and request.model == ("tiny" if size == "tiny" else "ViT-B-16-quickgelu/openai")
    assert request.load.batch_size == request.fit.batch_size


def test_an_objective_brings_its_published_values(monkeypatch):
    script = load_script("train_adapter")
    monkeypatch.setattr(sys, "argv", ["train_adapter.py", "--objective", "dino", "--lr", "1e-3", "--bottleneck", "32"])
    request = script.make_request(script.parse_arguments())
    assert (request.fit.epochs, request.fit.lr, request.fit.wd) == (100, 1e-3, 0.04)
    assert (request.tuning.adapter_scale, request.tuning.adapter_dropout, request.tuning.bottleneck) == (0.1, 0.0, 32)


def test_help_tells_the_published_values():
    told = run_here("train_adapter", "--help").succeeded().stdout
    assert "--ffn-adapter-scalar" in told and "default: 0.008" in told


def test_help_imports_no_torch():
    run = "try: runpy.run_path('train_adapter.py', run_name='__main__')\nexcept SystemExit: print('torch' in sys.modules)"
    code = f"import runpy, sys\nsys.argv = ['train_adapter.py', '--help']\n{run}"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("\nFalse\n")


# --- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--objective", "supervized"], ["--objective", "invalid choice", "supervised"]),
        (["--oi-root", "x"], ["--oi-root", "--images-path"]),
        (["--images-path", "no.csv"], ["--images-path", "--oi-root"]),
        (["--images-path", "no.csv", "--oi-root", "x"], ["There is no table", "no.csv"]),
        (["--dataset", "Shapes-Knd"], ["Unknown data set 'Shapes-Knd'", "Shapes-Kind"]),
        (["--val-p", 0.05], ["The overlap of the 1 validation images", "cannot be measured"]),
        (["--lr", 1e30], ["The loss became", "--lr"]),
        (["--adapter-dropout", 1], ["--adapter-dropout", "less than 1"]),
        (["--softness", 0.1], ["--softness belongs to --objective overlap", "'supervised'"]),
        ([*OVERLAP, "--images-per-class", 4], ["--images-per-class 4", "half of --batch-size 6"]),
    ],
    ids=lambda value: None,
)
def test_mistakes_end_in_one_sentence(flags, tmp_path, more, words):
    run_here("train_adapter", *flags(tmp_path / "ckpts", *more)).refused(*words)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_unreadable_images_are_left_out_and_listed_on_request(flags, tmp_path, small_model):
    for split in ("train", "test"):
        write_images(tmp_path / "photos" / split, 8)
    (tmp_path / "photos" / "train" / "red" / "03.png").write_bytes(b"no image")
    data = ["--dataset", f"imagefolder:{tmp_path / 'photos'}", "--model-name", small_model, "--batch-size", 7]
    run_here("train_adapter", *flags(tmp_path / "none"), *data).refused("1 image is unreadable", "--max-skipped 0")
    run_here("train_adapter", *flags(tmp_path / "one"), *data, "--max-skipped", 1).succeeded()
    assert record(tmp_path / "one")["n_skipped"] == 1
    (listed,) = (tmp_path / "one").glob("*.skipped.txt")
    assert "red/03.png" in listed.read_text()
