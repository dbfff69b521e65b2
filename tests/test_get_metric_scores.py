"""get_metric_scores.py as a user runs it."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.embeddings import Embeddings, describe, load_embeddings, save_embeddings
from metrics.sample import Sample
from metrics.table import METRICS
from metrics.uncertainty import uncertainty

SCRIPT = Path(__file__).parents[1] / "get_metric_scores.py"
COLUMNS = ["data", "model", "finetuning", "split", "proportion", "measure", "score"]


def run(folder, *arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def table(folder, name="metric_scores.csv"):
    with (folder / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def random_embeddings(seed, images=60, dataset="EuroSAT"):
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((images + 4, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    facts = {"classnames": list("abcd"), "templates": ["a photo of {c}"], "fingerprint": f"print{seed}", "checkpoint_sha256": "c0ffee"}
    metadata = describe(model="clip", tuning="lora", dataset=dataset, split="train", **facts)
    return Embeddings(rows[:images], rows[images:], generator.integers(0, 4, images), [], metadata)


@pytest.fixture
def file(tmp_path):
    return save_embeddings(tmp_path / "clip" / "EuroSAT_train", random_embeddings(0)).relative_to(tmp_path)


@pytest.fixture
def other(tmp_path):
    return save_embeddings(tmp_path / "clip" / "DTD_train", random_embeddings(1, images=50, dataset="DTD")).relative_to(tmp_path)


def refused(folder, message, *arguments):
    """Exit status 2, one sentence, nothing written."""
    result = run(folder, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("get_metric_scores.py: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "metric_scores.csv").exists()


def test_all_measures_of_two_files(tmp_path, file, other):
    result = run(tmp_path, "--embeddings", file, other, "--metrics", "all")
    assert (result.returncode, result.stderr) == (0, "")
    rows = table(tmp_path)
    assert list(rows[0])[:7] == COLUMNS
    assert [(row["data"], row["measure"]) for row in rows] == [(data, name) for data in ("EuroSAT", "DTD") for name in METRICS]
    for path, part in ((file, rows[: len(METRICS)]), (other, rows[len(METRICS) :])):
        of = load_embeddings(tmp_path / path)
        for row in part:
            expected = METRICS[row["measure"]](of.image_embeddings, of.text_embeddings, of.labels)
            assert float(row["score"]) == pytest.approx(expected, abs=1e-15)
    assert {row["file"] for row in rows} == {str(file), str(other)}


def test_by_default_those_that_take_seconds_whatever_the_number_of_images(tmp_path, file):
    run(tmp_path, "--embeddings", file)
    assert [row["measure"] for row in table(tmp_path)] == [
        *("iimm", "image_image", "wrong_label", "alignment", "text_text", "gap", "uniformity_text")
    ]


def test_as_released(tmp_path, file):
    """What differs from the definition says so; what does not is the same row as without the flag."""
    for flags in ([], ["--as-released"]):
        shown = run(tmp_path, "--embeddings", file, "--metrics", "gbc_spherical", "gap", *flags).stdout
    rows = table(tmp_path)
    assert [(row["measure"], row["variant"]) for row in rows] == [
        *(("gbc_spherical", "definition"), ("gap", "definition"), ("gbc_spherical", "as released"))
    ]
    of = load_embeddings(tmp_path / file)
    expected = METRICS["gbc_spherical"].as_released(Sample(of.image_embeddings, labels=of.labels))
    assert float(rows[2]["score"]) == pytest.approx(expected, rel=1e-12)
    assert shown.splitlines()[1].endswith("as released")


def test_standard_errors_and_intervals(tmp_path, file):
    run(tmp_path, "--embeddings", file, "--metrics", "iimm", "hscore", "text_text")
    closed, open_form, fixed = table(tmp_path)
    of = load_embeddings(tmp_path / file)
    expected = uncertainty(METRICS["iimm"], Sample(of.image_embeddings, of.text_embeddings, of.labels))
    assert [float(closed[name]) for name in ("stderr", "low", "high")] == pytest.approx(expected[:3], rel=1e-12)
    assert [row["interval"] for row in (closed, open_form, fixed)] == ["jackknife", "none", "none"]
    assert [row["stderr"] for row in (open_form, fixed)] == ["", ""]


def test_a_bootstrap_adds_what_had_no_interval_and_is_not_repeated(tmp_path, file):
    flags = ["--embeddings", file, "--metrics", "iimm", "hscore"]
    run(tmp_path, *flags)
    assert "added to metric_scores.csv: 1; already there: 1." in run(tmp_path, *flags, "--bootstrap", 20).stdout
    row = table(tmp_path)[2]
    assert (row["measure"], row["interval"], row["bootstrap"]) == ("hscore", "bootstrap", "20")
    assert float(row["low"]) < float(row["high"])
    for again, added in ((["--bootstrap", 20], 0), ([], 0), (["--bootstrap", 30], 1), (["--bootstrap", 20, "--seed", 1], 2)):
        assert f"added to metric_scores.csv: {added};" in run(tmp_path, *flags, *again).stdout


def test_one_resample_has_no_spread(tmp_path, file):
    refused(tmp_path, "--bootstrap must be 0 or at least 2, not 1", "--embeddings", file, "--bootstrap", 1)


def test_rows_from_before_variants_are_of_the_definition(tmp_path, file):
    run(tmp_path, "--embeddings", file, "--metrics", "gap")
    (row,) = table(tmp_path)
    del row["variant"]
    with (tmp_path / "metric_scores.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerow(row)
    assert run(tmp_path, "--embeddings", file, "--metrics", "gap").stdout.endswith("already there: 1.\n")


def test_a_measure_that_is_undefined_for_a_file(tmp_path):
    embeddings = random_embeddings(4)
    path = save_embeddings(tmp_path / "one", replace(embeddings, labels=np.zeros(60, np.int64)))
    refused(
        tmp_path, "'one.safetensors' cannot be measured: hscore is undefined for 1 class", "--embeddings", path.name, "--metrics", "hscore"
    )


def test_provenance(tmp_path, file):
    run(tmp_path, "--embeddings", file, "--metrics", "gap", "--seed", 5)
    (row,) = table(tmp_path)
    expected = {
        **{"data": "EuroSAT", "model": "clip", "finetuning": "lora", "split": "train", "proportion": "1.0", "measure": "gap"},
        **{"n_images": "60", "n_classes": "4", "seed": "5", "fingerprint": "print0", "checkpoint_sha256": "c0ffee"},
        **{"templates": '["a photo of {c}"]', "precision": "fp32", "numpy": np.__version__},
    }
    assert {key: row[key] for key in expected} == expected
    assert float(row["seconds"]) >= 0


def test_the_measure_is_called_as_the_user_called_it(tmp_path, file):
    run(tmp_path, "--embeddings", file, "--metrics", "IIMM", "uniformity_image", "inter_images", "iimm", "wrong_label", "image_image")
    scores = {row["measure"]: row["score"] for row in table(tmp_path)}
    assert list(scores) == ["IIMM", "uniformity_image", "inter_images", "iimm", "wrong_label", "image_image"]
    assert scores["uniformity_image"] == scores["wrong_label"] != scores["image_image"] == scores["inter_images"]
    assert scores["IIMM"] == scores["iimm"]


def test_the_table_on_the_screen(tmp_path, file):
    lines = run(tmp_path, "--embeddings", file, "--metrics", "gap", "text_text", "--outpath", "out/table.csv").stdout.splitlines()
    gap, text_text = table(tmp_path, "out/table.csv")
    score, stderr, low, high = (float(gap[name]) for name in ("score", "stderr", "low", "high"))
    assert lines[0].split() == ["file", "measure", "score", "stderr", "95", "%", "interval"]
    assert lines[1].split() == [str(file), "gap", f"{score:.6f}", f"{stderr:.2g}", f"[{low:.6f},", f"{high:.6f}]"]
    assert lines[2].split() == [str(file), "text_text", f"{float(text_text['score']):.6f}", "-"]
    assert lines[-1] == "Rows added to out/table.csv: 2; already there: 0."


def test_earlier_rows_stay_and_a_repeated_measurement_is_not_added(tmp_path, file, other):
    (tmp_path / "metric_scores.csv").write_text("data,measure,score,mine\nCars,IIMM,0.5,a note\n")
    run(tmp_path, "--embeddings", file, "--metrics", "iimm", "gap")
    before = table(tmp_path)
    assert (before[0]["data"], before[0]["score"], before[0]["mine"]) == ("Cars", "0.5", "a note")
    again = run(tmp_path, "--embeddings", other, file, "--metrics", "gap", "alignment")
    assert again.stdout.endswith("Rows added to metric_scores.csv: 3; already there: 1.\n")
    assert table(tmp_path)[:3] == before
    assert len(table(tmp_path)) == 6


def test_a_file_given_twice_is_measured_once(tmp_path, file):
    run(tmp_path, "--embeddings", file, file, "--metrics", "gap", "gap")
    assert len(table(tmp_path)) == 1


def test_prop_is_seeded_and_independent_of_the_order_of_files(tmp_path, file, other):
    def scores(name, *arguments):
        run(tmp_path, "--metrics", "iimm", "--prop", "0.5", "--outpath", name, *arguments)
        return {row["data"]: (row["score"], row["n_images"], row["proportion"], row["seed"]) for row in table(tmp_path, name)}

    first = scores("a.csv", "--embeddings", file, other, "--seed", "0")
    assert scores("b.csv", "--embeddings", other, file) == first  # 0 is a seed, and the default
    other_seed = scores("c.csv", "--embeddings", file, other, "--seed", "1")
    assert first["EuroSAT"][1:] == ("30", "0.5", "0")
    assert first["DTD"][1:] == ("25", "0.5", "0")
    assert other_seed["EuroSAT"][0] != first["EuroSAT"][0]


def test_a_share_is_drawn_without_replacement_and_lies_in_a_larger_one():
    from get_metric_scores import draw

    small, large, all_images = (draw(1000, proportion, seed=4).tolist() for proportion in (0.1, 0.5, 1.0))
    assert (len(set(small)), len(set(large)), all_images) == (100, 500, list(range(1000)))
    assert set(small) < set(large)


def test_the_pair_of_csv_files_gives_the_same_scores(tmp_path, file):
    save_embeddings(tmp_path / "pair", load_embeddings(tmp_path / file), "csv")
    run(tmp_path, "--embeddings", file)
    assert run(tmp_path, "--embeddings", "pair_text_embeddings.csv").stdout.endswith("added to metric_scores.csv: 0; already there: 7.\n")


def test_released_files_of_two_folders_are_told_apart(tmp_path):
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip_DTD_image_embeddings_zs.csv").write_text("0,1,label\n1,0,a\n0.6,0.8,b\n")
        (tmp_path / folder / "clip_DTD_text_embeddings_zs.csv").write_text("0,1,label\n1,0,a\n0,1,b\n")
    files = [f"{folder}/clip_DTD_image_embeddings_zs.csv" for folder in ("train", "test")]
    assert run(tmp_path, "--embeddings", *files, "--metrics", "inter_text").returncode == 0
    assert [(row["data"], row["model"], row["file"], float(row["score"])) for row in table(tmp_path)] == [
        ("DTD", "clip", file, 0.0) for file in files
    ]


def test_help_says_which_names_are_swapped(tmp_path):
    result = run(tmp_path, "--help")
    assert result.returncode == 0
    words = " ".join(result.stdout.split())  # lines end where the terminal does
    assert "uniformity_image is wrong_label (the paper's inter-modal term)" in words
    assert all(name in words for name in METRICS)
    assert "the log-determinant counts one feature instead of D" in words


def test_unknown_metric(tmp_path, file):
    refused(tmp_path, "Unknown metric 'aligment'; did you mean 'alignment'?", "--embeddings", file, "--metrics", "aligment")


def test_missing_file(tmp_path, file):
    refused(tmp_path, "No such file: 'absent.safetensors'", "--embeddings", file, "absent.safetensors")


def test_one_damaged_file_among_good_ones(tmp_path, file, other):
    (tmp_path / other).write_bytes((tmp_path / other).read_bytes()[:-1])
    refused(tmp_path, f"'{other}' is not a whole safetensors file", "--embeddings", file, other)


def test_a_file_whose_numbers_are_no_unit_vectors(tmp_path, file):
    embeddings = random_embeddings(2)
    embeddings.image_embeddings[7] *= 10
    path = save_embeddings(tmp_path / "long", embeddings)
    refused(tmp_path, f"'{path}' cannot be measured: Row 7 of image_embeddings has length 10", "--embeddings", file, path)


def test_one_class(tmp_path):
    embeddings = random_embeddings(3)
    one = replace(
        embeddings,
        text_embeddings=embeddings.text_embeddings[:1],
        labels=np.zeros(60, np.int64),
        metadata=embeddings.metadata | {"classnames": '["a"]'},
    )
    path = save_embeddings(tmp_path / "one", one)
    refused(tmp_path, "'one.safetensors' cannot be measured: iimm is undefined for 1 class text", "--embeddings", path.name)


def test_a_share_of_too_few_images(tmp_path, file):
    refused(tmp_path, "iimm is undefined for 1 image; it needs at least 2", "--embeddings", file, "--prop", "0.01")


@pytest.mark.parametrize("proportion", ["0", "-0.5", "1.5", "nan"])
def test_prop_out_of_range(tmp_path, file, proportion):
    refused(tmp_path, "--prop must lie above 0 and at most at 1", "--embeddings", file, f"--prop={proportion}")


def test_negative_seed(tmp_path, file):
    refused(tmp_path, "--seed must be 0 or more, not -1", "--embeddings", file, "--seed=-1")


def test_a_table_that_is_none_is_left_alone(tmp_path, file):
    (tmp_path / "metric_scores.csv").write_text('a,b\n1\n"')
    result = run(tmp_path, "--embeddings", file)
    assert result.returncode == 2
    assert "metric_scores.csv' " in result.stderr
    assert (tmp_path / "metric_scores.csv").read_text() == 'a,b\n1\n"'


def test_wrong_usage(tmp_path):
    result = run(tmp_path, "--metrics", "gap")
    assert result.returncode == 2
    assert "the following arguments are required: --embeddings" in result.stderr


def test_the_same_measurement_is_added_again_when_its_score_has_changed():
    from engine.scores import IDENTITY, without_known

    row = dict.fromkeys(IDENTITY, "x") | {"score": 0.25}
    for known, added in (("0.25", 0), ("0.25000000000000006", 0), ("0.2500001", 1), ("edited", 1)):
        assert len(without_known([row], [{**row, "score": known}])) == added
