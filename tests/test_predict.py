"""predict.py as a user runs it: real outcomes, SYNTHETIC scores and embeddings."""

import contextlib
import csv
import io
import json
import sys

import pytest
from PIL import Image

from common.cli import run
from tests.helpers import Ended, files_below, load_script, run_script
from tests.study.examples import REAL, write_embeddings, write_scores


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path / "scores.csv")


@pytest.fixture
def fmow(tmp_path):
    return write_embeddings(tmp_path / "FMoW_train", 0.44, 0.17)


def predict(*arguments):
    """The script's main in this process, as its last lines run it."""
    out, err, earlier = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["predict.py", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            run(load_script("predict").main)
    finally:
        sys.argv = earlier
    return Ended(end.value.code, out.getvalue(), err.getvalue())


def test_from_the_shell_to_the_plot(tmp_path, scores, fmow):
    files = tmp_path / "new" / "fmow.png", tmp_path / "new" / "fmow.json"
    ended = run_script("predict", "--outcomes", REAL, "--scores", scores, "--embeddings", fmow, "--plot", files[0], "--outfile", files[1])
    out = ended.succeeded().stdout
    assert ended.stderr == ""
    assert "iimm -> gain over zero-shot error (clip, full; n = 8 tasks)" in out
    assert "iimm -> mean change on other tasks (clip, full; n = 8 tasks)" in out
    assert "  leave-one-out  mean absolute error 0.1" in out
    with Image.open(files[0]) as image:
        assert (image.format, image.size) == ("PNG", (1980, 900))
    (found,) = json.loads(files[1].read_text())["predictions"]
    assert found["task"]["name"] == "FMoW"
    gain, after, change = found["gain"], found["accuracy_after"], found["mean_change_elsewhere"]
    assert after["value"] == pytest.approx(0.17 + 0.83 * gain["value"])
    for words, value in (("gain over zero-shot error", gain), ("accuracy after", after), ("mean change on other tasks", change)):
        assert f"  {words:28}{value['value']:.3f}  95 % interval [{value['low']:.3f}, {value['high']:.3f}]\n" in out
        assert value["low"] < value["value"] < value["high"]


def test_help_is_all_about_the_table_and_imports_nothing_heavy():
    assert "zero_shot_accuracy, accuracy_after" in predict("--help").stdout
    code = "import sys; sys.argv = ['predict.py', '--help']; import predict\ntry: predict.main()\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'matplotlib', 'scipy', 'pandas', 'sklearn') if name in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


def test_a_prediction_needs_neither_torch_nor_matplotlib(scores, fmow):
    code = f"import sys; sys.argv = {['predict.py', '--outcomes', str(REAL), '--scores', str(scores), '--embeddings', str(fmow)]}\n"
    code += "import predict; predict.main()\nprint([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


def python(code):
    import subprocess

    from tests.helpers import ROOT

    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_json_holds_everything(tmp_path, scores, fmow):
    outfile = tmp_path / "all.json"
    predict("--outcomes", REAL, "--scores", scores, "--embeddings", fmow, "--compare", "--bootstrap", 50, "--outfile", outfile).succeeded()
    result = json.loads(outfile.read_text())
    assert (result["model"], result["tuning"], result["measure"]) == ("clip", "full", "iimm")
    fit = result["fits"]["gain"]
    assert {"n", "slope", "slope_stderr", "intercept", "intercept_stderr", "r2", "p", "leave_one_out", "score_range"} <= set(fit)
    assert [point["task"] for point in fit["points"]] == ["SUN397", "Cars", "RESISC45", "EuroSAT", "SVHN", "GTSRB", "MNIST", "DTD"]
    assert len(result["comparison"]) == 4  # two measures, two outcomes, one model
    assert result["comparison"][0]["agreement"]["tau_interval"]["resamples"] == 50
    assert result["arguments"]["confidence"] == 0.95
    assert {"numpy", "scipy", "clipscope"} <= set(result["versions"])


def test_the_zero_shot_accuracy_that_the_user_knows(scores, fmow):
    out = predict("--outcomes", REAL, "--scores", scores, "--embeddings", fmow, "--zero-shot-accuracy", "0.25").succeeded().stdout
    assert "  zero-shot accuracy          0.250\n" in out


def test_confidence_narrows_the_interval(scores, fmow):
    out = predict("--outcomes", REAL, "--scores", scores, "--embeddings", fmow, "--confidence", "0.5").succeeded().stdout
    assert "50 % interval" in out


def test_warnings_are_printed(tmp_path, scores):
    far = write_embeddings(tmp_path / "far", 0.6, 0.5, model="siglip")
    out = predict("--outcomes", REAL, "--scores", scores, "--embeddings", far).succeeded().stdout
    assert "  ! The embeddings are of the model 'siglip', the outcomes of 'clip'.\n" in out
    assert "lies outside the fitted range: 0.083 above the highest" in out
    assert "too wide to mean anything" in out
    assert "(cut to [0, 1])" in out


def test_scores_in_the_table_itself_and_the_released_name(tmp_path):
    with REAL.open(newline="") as stream:
        rows = [{**row, "IIMM": index} for index, row in enumerate(csv.DictReader(stream))]
    path = tmp_path / "outcomes.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert predict("--outcomes", path, "--measure", "IIMM").succeeded().stdout == predict("--outcomes", path).succeeded().stdout


def test_real_numbers_only():
    """Zero-shot accuracy as the score: R2 = 0.843 for forgetting on the real outcomes, computed apart with scipy.stats.linregress."""
    out = predict("--outcomes", REAL, "--measure", "zero_shot").succeeded().stdout
    assert "  R2             0.444, p = 0.071\n" in out
    assert "  R2             0.843, p = 0.0013\n" in out


def test_comparing_alone_chooses_no_model(tmp_path, scores):
    two = tmp_path / "two.csv"
    two.write_text(REAL.read_text() + REAL.read_text().split("\n", 1)[1].replace(",full,", ",lora,"))
    out = predict("--outcomes", two, "--scores", scores, "--compare", "--bootstrap", 20).succeeded().stdout
    assert "across tasks, clip, full: gain" in out
    assert "across tasks, clip, lora: gain" in out
    assert "iimm ->" not in out
    only = predict("--outcomes", two, "--scores", scores, "--compare", "iimm", "--bootstrap", 20, "--tuning", "lora").succeeded().stdout
    assert "clip, full" not in only
    assert "zero_shot" not in only
    predict("--outcomes", two, "--scores", scores).refused("--model 'clip' --tuning 'full'; --model 'clip' --tuning 'lora'")


def test_the_seed_decides_the_intervals(scores):
    def compared(seed):
        return predict("--outcomes", REAL, "--scores", scores, "--compare", "--bootstrap", 100, "--seed", seed).succeeded().stdout

    assert compared(0) == compared(0) != compared(1)


def test_nothing_is_overwritten_unasked(tmp_path, scores):
    plot, outfile = tmp_path / "plot.pdf", tmp_path / "out.json"
    outfile.write_text("mine")
    before = files_below(tmp_path)
    arguments = ("--outcomes", REAL, "--scores", scores, "--plot", plot, "--outfile", outfile)
    predict(*arguments).refused("out.json' exists", "--overwrite")
    assert files_below(tmp_path) == before
    predict(*arguments, "--overwrite").succeeded()
    assert json.loads(outfile.read_text())["predictions"] == []
    predict("--outcomes", REAL, "--plot", plot).refused("plot.pdf' exists")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "iimm"),
        (("--measure", "zero_shto"), "did you mean 'zero_shot'?"),
        (("--compare", "gbc"), "no score 'gbc'"),
        (("--model", "clap"), "did you mean 'clip'?"),
        (("--tuning", "lora"), "Unknown tuning of the outcomes 'lora'"),
        (("--plot", "plot.svg"), "neither .png nor .pdf"),
        (("--outfile", "."), "is a folder"),
        (("--split", "train"), "--scores"),
        (("--zero-shot-accuracy", "0.5"), "--embeddings has 0 files"),
        (("--zero-shot-accuracy", "46", "--embeddings", "a"), "divide by 100"),
        (("--zero-shot-accuracy", "1", "--embeddings", "a"), "[0, 1)"),
        (("--zero-shot-accuracy", "nan", "--embeddings", "a"), "[0, 1)"),
        (("--measure", "zero_shot", "--embeddings", "absent.safetensors"), "absent.safetensors"),
        (("--confidence", "1"), "between 0 and 1"),
        (("--bootstrap", "0"), "less than 1"),
        (("--measur", "iimm"), "did you mean '--measure'?"),
    ],
)
def test_mistakes(arguments, words):
    predict("--outcomes", REAL, *arguments).refused(words)


def test_a_measure_of_the_users_own_cannot_be_taken_of_embeddings(tmp_path, fmow):
    own = write_scores(tmp_path / "own.csv", measure="my_measure")
    arguments = ("--outcomes", REAL, "--scores", own, "--measure", "my_measure")
    assert "my_measure -> gain" in predict(*arguments).succeeded().stdout
    predict(*arguments, "--embeddings", fmow).refused("my_measure")


def test_too_few_rows(tmp_path, scores):
    few = tmp_path / "few.csv"
    few.write_text("\n".join(REAL.read_text().splitlines()[:3]) + "\n")
    predict("--outcomes", few, "--scores", scores).refused("only 2 tasks", "at least 3")


def test_embeddings_that_cannot_be_measured(tmp_path, scores):
    (tmp_path / "clip_A_image_embeddings_zs.csv").write_text("0,1,label\n1,0,a\n")
    (tmp_path / "clip_A_text_embeddings_zs.csv").write_text("0,1,label\n1,0,a\n0,1,b\n")
    predict("--outcomes", REAL, "--scores", scores, "--embeddings", tmp_path / "clip_A_image_embeddings_zs.csv").refused(
        "cannot be measured", "iimm"
    )
