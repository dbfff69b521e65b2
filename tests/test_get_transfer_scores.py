"""get_transfer_scores.py as users run it: which encoder for my data, and what that answer costs."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from common.files import read_csv
from datasets.registry import load_task, task_slug
from engine.embeddings import load_embeddings, save_embeddings
from metrics.ncti import compare_ncti, ncti_parts
from metrics.sample import Sample
from metrics.table import METRICS
from models.checkpoint import base_sha256, make_header, save_checkpoint
from models.encoder import Encoder
from models.loading import load_encoder
from models.selection import model_slug
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import files_below, run_here, run_script, write_images, write_model

CONTRACT = [
    "train_data",
    "model",
    "metric",
    "score",
    "stderr",
    "embedding_seconds",
    "calculation_seconds",
    "n_images",
    "n_classes",
    "split",
]
QUICK = ["--num-workers", 0, "--device", "cpu", "--bs", 8]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two of 8 dimensions and other weights, so that regressions on them are not exact. Do not write to them."""
    folder = tmp_path_factory.mktemp("models")
    return [str(write_model(folder / name, seed=seed, embed_dim=8)) for name, seed in (("one", 3), ("two", 4))]


@pytest.fixture
def flags(models, image_folder, tmp_path):
    """A function: flags for the coloured images; those that are given besides count, where they are the same."""

    def make(*more, evaluated=models[:1], metrics=("iimm",), data=image_folder):
        what = ["--dataset", f"imagefolder:{data}", "--eval-models", *evaluated, "--metrics", *metrics]
        return [*what, "--embeddings-dir", tmp_path / "embeddings", "--results-dir", tmp_path / "results", *QUICK, *more]

    return make


@pytest.fixture
def score(flags):
    """A function: run the script in this process."""
    return lambda *more, **how: run_here("get_transfer_scores", *flags(*more, **how))


@pytest.fixture
def table(image_folder, tmp_path):
    """Where the rows of the coloured images are to be."""
    return tmp_path / "results" / f"{task_slug(f'imagefolder:{image_folder}')}_transfer_scores.csv"


@pytest.fixture
def saved(image_folder, tmp_path):
    """A function: the embeddings by a model of the coloured images, and where they are."""

    def load(model):
        path = tmp_path / "embeddings" / model_slug(model) / f"{task_slug(f'imagefolder:{image_folder}')}_train.safetensors"
        return load_embeddings(path), path

    return load


def scores(rows):
    """Score, standard error and interval by model and measure."""
    return {(row["model"], row["metric"]): [row[name] for name in ("score", "stderr", "low", "high")] for row in rows}


def test_the_table(score, table, saved, models, image_folder):
    """Models by measures; the columns of the contract; scores of the measures on the files that were written."""
    names = ["hscore", "iimm", "knn", "transrate"]
    ended = score(evaluated=models, metrics=names).succeeded()
    rows = read_csv(table)
    assert set(CONTRACT) <= rows[0].keys()
    assert [(row["model"], row["metric"]) for row in rows] == [(model, name) for model in models for name in names]
    for row in rows:
        of, _ = saved(row["model"])
        direct = METRICS[row["metric"]](of.image_embeddings, of.text_embeddings, of.labels)
        assert float(row["score"]) == pytest.approx(direct, rel=1e-12)
        seconds = float(of.metadata["embedding_seconds"]) + float(of.metadata["text_seconds"])
        assert float(row["embedding_seconds"]) == pytest.approx(seconds, abs=1e-9)
        assert seconds > 0
    common = {"train_data": f"imagefolder:{image_folder}", "split": "train", "n_images": "22", "n_classes": "3", "error": ""}
    assert [{key: row[key] for key in common} for row in rows] == [common] * 8
    assert ended.stderr == ""
    assert ended.stdout.endswith(f"\nThe rows are in {table}.\n")


def test_the_training_split_less_its_validation_part(score, table, image_folder):
    score("--val-p", 0.5).succeeded()
    (row,) = read_csv(table)
    expected = load_task(f"imagefolder:{image_folder}", "train", val_p=0.5)
    assert (row["n_images"], row["fingerprint"]) == ("12", expected.fingerprint)


def test_found_embeddings_are_not_made_again_and_cost_what_they_cost(score, table, saved, models, monkeypatch):
    """The tower cannot be called in the second run, which reports the seconds of the file."""
    score().succeeded()
    of, path = saved(models[0])
    save_embeddings(path, replace(of, metadata={**of.metadata, "embedding_seconds": "4321.0", "text_seconds": "0.5"}))
    monkeypatch.setattr(Encoder, "encode_image", lambda self, pixels: pytest.fail("the image tower was called"))
    ended = score().succeeded()
    first, second = read_csv(table)
    assert float(second["embedding_seconds"]) == 4321.5 != float(first["embedding_seconds"])
    assert scores([first]) == scores([second])
    assert f"{models[0]} (embeddings found: {path})" in ended.stdout
    shown = next(line for line in ended.stdout.splitlines() if line.split()[:1] == ["iimm"])
    assert float(shown.split()[-1]) == pytest.approx(4321.5 + float(second["calculation_seconds"]), abs=1e-3)


def test_a_file_of_get_embeddings_serves(score, image_folder, models, tmp_path, monkeypatch):
    """One command's output is the other's input, when the prompts and the validation part are the same."""
    flags = ["--model-name", models[0], "--datasets", f"imagefolder:{image_folder}", "--outfolder", tmp_path / "embeddings"]
    run_here("get_embeddings", *flags, "--val-p", 0.1, "--num-workers", 0, "--device", "cpu").succeeded()
    monkeypatch.setattr(Encoder, "encode_image", lambda self, pixels: pytest.fail("the image tower was called"))
    assert "embeddings found" in score().succeeded().stdout


def test_a_checkpoint(score, table, models, tmp_path):
    """A path is a fine-tuned encoder; its embeddings are those of its weights, not of the base's."""
    encoder = load_encoder(models[0])
    base = base_sha256(encoder)
    apply_tuning(encoder, "full", TuningOptions())
    encoder.model.visual.proj.data *= -1
    path = tmp_path / "mine_best.safetensors"
    save_checkpoint(path, encoder, make_header(encoder, "full", TuningOptions(), base))
    score(evaluated=[models[0], path], metrics=["alignment"]).succeeded()
    plain, tuned = read_csv(table)
    assert tuned["model"] == str(path)
    assert float(tuned["score"]) == pytest.approx(-float(plain["score"]), abs=1e-6)


def test_as_released(score, table, saved, models):
    score("--as-released", metrics=["ncti", "gap"]).succeeded()
    ncti, gap = read_csv(table)
    of, _ = saved(models[0])
    sample = Sample(of.image_embeddings, labels=of.labels)
    assert (ncti["variant"], gap["variant"]) == ("as released", "definition")
    assert float(ncti["score"]) == pytest.approx(METRICS["ncti"].as_released(sample), rel=1e-12)


def test_bootstrap(score, table):
    """Seeded; only where there is no closed form."""
    for more in ([], ["--bootstrap", 8], ["--bootstrap", 8], ["--bootstrap", 8, "--seed", 1]):
        score(*more, metrics=["hscore", "iimm"]).succeeded()
    hscore, iimm = (rows[::2] for rows in (read_csv(table), read_csv(table)[1:]))
    assert [row["interval"] for row in hscore] == ["none", "bootstrap", "bootstrap", "bootstrap"]
    assert [row["bootstrap"] for row in hscore] == ["0", "8", "8", "8"]
    assert hscore[1]["stderr"] == hscore[2]["stderr"] != hscore[3]["stderr"]
    assert {row["interval"] for row in iimm} == {"jackknife"}
    assert len({row["stderr"] for row in iimm}) == 1


def test_other_models_and_the_order_of_measures_do_not_change_a_score(score, table, models):
    """Nor its interval, that of resamples too."""
    names = ["ncti", "linear_probe", "hscore", "emms", "iimm"]
    score("--bootstrap", 3, evaluated=models, metrics=names).succeeded()
    together = scores(read_csv(table))
    for model in reversed(models):
        table.unlink()
        score("--bootstrap", 3, evaluated=[model], metrics=names[::-1]).succeeded()
        alone = scores(read_csv(table))
        assert alone == {key: values for key, values in together.items() if key[0] == model}
        assert len(alone) == 5


def test_a_model_or_measure_that_is_given_twice_has_one_row(score, table, models):
    score(evaluated=[models[0], models[0]], metrics=["iimm", "iimm"]).succeeded()
    assert len(read_csv(table)) == 1


# --- NCTI over models ----------------------------------------------------------------------------------------------


def test_ncti_of_several_models_is_compared_on_the_screen_only(score, table, saved, models):
    ended = score(evaluated=models, metrics=["ncti"]).succeeded()
    parts = [ncti_parts(of.image_embeddings, of.labels) for of, _ in map(saved, models)]
    compared = compare_ncti(parts).tolist()
    after = ended.stdout.split("NCTI as its paper compares models")[1].splitlines()[2:4]
    expected = sorted(zip(compared, models, strict=True), reverse=True)
    assert [line.split() for line in after] == [[f"{value:.6g}", model] for value, model in expected]
    assert "depend on which models" in ended.stdout
    assert [float(row["score"]) for row in read_csv(table)] == pytest.approx([of.score for of in parts], rel=1e-12)


def test_no_comparison_without_two_models_that_have_ncti(score, models):
    assert "compares models" not in score(evaluated=models[:1], metrics=["ncti"]).succeeded().stdout
    assert "compares models" not in score(evaluated=models, metrics=["iimm"]).succeeded().stdout
    assert "compares models" not in score(evaluated=[models[0], "tinny"], metrics=["ncti"]).stdout


# --- what fails ----------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_be_loaded_is_reported_and_the_rest_go_on(score, table, models):
    """Before, between and behind; the exit status is 1, and one sentence says how many scores are missing."""
    listed = ["tinny", models[0], "absent_best.safetensors", models[1]]
    ended = score(evaluated=listed, metrics=["iimm", "gap"])
    rows = read_csv(table)
    assert [row["model"] for row in rows] == [model for model in listed for _ in range(2)]
    assert [bool(row["error"]) for row in rows] == [True, True, False, False] * 2
    assert [bool(row["score"]) for row in rows] == [False, False, True, True] * 2
    assert ended.status == 1
    assert ended.stderr == "get_transfer_scores.py: 4 of 8 scores are missing; their rows say why.\n"
    assert "did you mean 'tiny'?" in rows[0]["error"]
    assert "No such file: 'absent_best.safetensors'" in rows[4]["error"]
    for row in rows[::4]:
        assert ended.stdout.count(row["error"]) == 1
    score(evaluated=models, metrics=["iimm", "gap"]).succeeded()
    assert scores(row for row in rows if not row["error"]) == scores(read_csv(table)[8:])


def test_an_undefined_measure_is_reported_and_the_rest_go_on(score, models, tmp_path):
    """One image per class: no two of one class."""
    write_images(tmp_path / "single" / "train", 1)
    write_images(tmp_path / "single" / "val", 1, seed=1)
    ended = score(data=tmp_path / "single", metrics=["parc", "gap", "nleep", "alignment"])
    rows = read_csv(tmp_path / "results" / f"{task_slug(f'imagefolder:{tmp_path}/single')}_transfer_scores.csv")
    assert [bool(row["error"]) for row in rows] == [True, False, True, False]
    assert rows[0]["error"] == "parc is undefined: no two images are of the same class."
    assert "for 3 images" in rows[2]["error"]
    assert [(row["score"] != "", row["stderr"] != "") for row in rows] == [(False, False), (True, True)] * 2
    assert [row["n_images"] for row in rows] == ["3"] * 4
    assert (ended.status, ended.stderr) == (1, "get_transfer_scores.py: 2 of 4 scores are missing; their rows say why.\n")
    assert rows[0]["error"] in ended.stdout


def test_earlier_rows_stay(score, table):
    """Those of other programs too, with their columns."""
    table.parent.mkdir()
    table.write_text("train_data,model,metric,score,mine\nCars,clip,IIMM,0.5,a note\n")
    score().succeeded()
    score(metrics=["gap"]).succeeded()
    rows = read_csv(table)
    assert {key: value for key, value in rows[0].items() if value} == {
        **{"train_data": "Cars", "model": "clip", "metric": "IIMM", "score": "0.5", "mine": "a note"}
    }
    assert [row["metric"] for row in rows] == ["IIMM", "iimm", "gap"]


def test_rows_are_there_before_the_next_model_is_loaded(flags, models, table, monkeypatch):
    """What was scored is kept when the run ends at the second model."""
    from engine import transfer

    real = transfer.select_model
    monkeypatch.setattr(
        transfer, "select_model", lambda name: real(name) if name == models[0] else (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert run_here("get_transfer_scores", *flags(evaluated=models)).status == 130
    assert [row["model"] for row in read_csv(table)] == models[:1]


# --- label features ------------------------------------------------------------------------------------------------


def test_emms_of_the_encoders_own_texts_or_of_others(score, table, saved, models, small_model, tmp_path):
    """By default its own; from an array, another encoder and an embeddings file, one by one and together."""
    array = np.random.default_rng(0).standard_normal((3, 5))
    np.save(tmp_path / "labels.npy", array)
    score(evaluated=[*models, small_model], metrics=["emms"]).succeeded()
    of, file = saved(models[0])[0], saved(models[1])[1]
    texts, others = saved(models[1])[0].text_embeddings, saved(str(small_model))[0].text_embeddings
    cases = [
        (["--label-features", tmp_path / "labels.npy"], [array]),
        (["--label-features", file], [texts]),
        (["--label-encoders", small_model], [others]),
        (["--label-encoders", small_model, models[1], "--label-features", tmp_path / "labels.npy", file], [others, texts, array, texts]),
    ]
    for more, _ in cases:
        score(*more, metrics=["emms"]).succeeded()
    found = [float(row["score"]) for row in read_csv(table)]
    own = Sample(of.image_embeddings, of.text_embeddings, of.labels)
    expected = [METRICS["emms"].score(replace(own, text_features=tuple(features))) for features in ([], *(given for _, given in cases))]
    assert [found[0], *found[3:]] == pytest.approx(expected, rel=1e-7)
    assert len({round(value, 6) for value in expected}) == 5


# --- a user's mistake ----------------------------------------------------------------------------------------------


@pytest.fixture
def refused(flags, tmp_path, monkeypatch):
    """A function: run with mistaken flags, which must be told in one sentence before any image is looked at; no file is written."""
    monkeypatch.setattr(Encoder, "encode_image", lambda self, pixels: pytest.fail("the image tower was called"))
    monkeypatch.setattr("models.selection.load_encoder", lambda name: pytest.fail("a model was loaded"))

    def run(*more, named, **how):
        before = files_below(tmp_path)
        sentence = run_here("get_transfer_scores", *flags(*more, **how)).refused(*named)
        assert files_below(tmp_path) == before
        return sentence

    return run


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    """No device is set up and no data set is listed."""
    monkeypatch.setattr("engine.runtime.start", lambda *_: pytest.fail("a device was set up"))
    monkeypatch.setattr("datasets.registry.load_task", lambda *_, **__: pytest.fail("a data set was listed"))


@pytest.mark.usefixtures("nothing_is_loaded")
def test_an_unknown_metric(refused):
    refused(metrics=["iimm", "hscor"], named=["Unknown metric 'hscor'", "'hscore'"])


@pytest.mark.usefixtures("nothing_is_loaded")
def test_one_resample_has_no_spread(refused):
    refused("--bootstrap", 1, named=["--bootstrap must be 0 or at least 2, not 1"])


@pytest.mark.usefixtures("nothing_is_loaded")
def test_label_features_of_no_measure(refused, tmp_path):
    for more in (["--label-encoders", "tiny"], ["--label-features", tmp_path / "labels.npy"]):
        refused(*more, metrics=["iimm"], named=["emms"])


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("flag", ["--results-dir", "--embeddings-dir"])
def test_an_output_folder_below_a_file_or_locked(refused, tmp_path, monkeypatch, flag):
    """os.access is asked; who runs the tests may be root, whom no mode of a folder stops."""
    (tmp_path / "file").write_text("here already")
    refused(flag, tmp_path / "file" / "deeper", named=["Cannot create the output folder", tmp_path / "file"])
    (tmp_path / "locked").mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: "locked" not in str(path) and real(path, mode, **more))
    refused(flag, tmp_path / "locked", named=["is not writable", tmp_path / "locked"])


@pytest.mark.usefixtures("nothing_is_loaded")
def test_a_table_that_cannot_be_added_to(refused, table):
    table.parent.mkdir()
    table.write_text("a,b\n1\n")
    refused(named=[table])


def test_an_unknown_data_set(refused):
    refused("--dataset", "Digit", named=["'Digit'", "'Digits'"])


def test_label_features_that_do_not_fit(refused, tmp_path):
    """Too few classes, not finite, a pickle (which is not opened), absent: told before a model is loaded."""
    path = tmp_path / "labels.npy"
    emms_of = {"metrics": ["emms"]}
    np.save(path, np.ones((2, 4)))
    refused("--label-features", path, named=[path, "[2, 4]", "3 classes"], **emms_of)
    np.save(path, np.full((3, 4), np.nan))
    refused("--label-features", path, named=[path, "finite"], **emms_of)
    np.save(path, np.array([[Harmful(tmp_path / "harm")]] * 3, dtype=object), allow_pickle=True)
    refused("--label-encoders", "tiny", "--label-features", path, named=[path, "not a readable .npy array"], **emms_of)
    assert not (tmp_path / "harm").exists()
    path.unlink()
    refused("--label-features", path, named=[path, "No such file"], **emms_of)


class Harmful:
    """Creates a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_label_encoder_that_is_not_known(score, table):
    """Without it no score of EMMS is what was asked for, so it is not a row's matter."""
    score("--label-encoders", "tinny", metrics=["emms"]).refused("'tinny'", "'tiny'")
    assert not table.exists()


# --- several processes ---------------------------------------------------------------------------------------------


def test_two_processes_give_the_rows_of_one_once(flags, score, table, models):
    """Three batches of images for two processes; a model that fails does not part them."""
    listed = [models[0], "tinny", models[1]]
    how = {"evaluated": listed, "metrics": ["iimm", "hscore", "ncti"]}
    ended = run_script("get_transfer_scores", *flags(**how), processes=2)
    rows = read_csv(table)
    assert ended.status == 1  # of the model that fails
    assert "get_transfer_scores.py: 3 of 9 scores are missing" in ended.stderr
    assert ended.stdout.count("The rows are in") == 1
    assert ended.stdout.count("NCTI as its paper compares models") == 1
    assert [(row["model"], row["metric"]) for row in rows] == [(model, name) for model in listed for name in how["metrics"]]
    shutil.rmtree(table.parent.parent / "embeddings")
    score(**how)
    for one, two in zip(read_csv(table)[9:], rows, strict=True):
        assert (one["n_images"], one["fingerprint"], one["error"]) == (two["n_images"], two["fingerprint"], two["error"])
        if not one["error"]:
            assert float(two["score"]) == pytest.approx(float(one["score"]), rel=1e-5)
