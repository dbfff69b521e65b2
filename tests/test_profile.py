"""--profile as a user meets it: a table at the end, and the same results."""

import re
import signal
import time

import pytest

from engine.embeddings import load_embeddings
from tests.helpers import run_here, start_script, write_images, write_model

SCRIPTS = ("train", "get_embeddings", "test", "oti", "ovi", "merge", "few_shot", "train_adapter")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_long_command_has_the_flag(name):
    assert "--profile" in run_here(name, "--help").succeeded().stdout


@pytest.fixture
def flags(tmp_path):
    write_images(tmp_path / "photos" / "train", 4)
    write_images(tmp_path / "photos" / "test", 2, seed=1)
    model = write_model(tmp_path / "model")
    return ["--datasets", f"imagefolder:{tmp_path / 'photos'}", "--model-name", f"local-dir:{model}", "--batch-size", 4, "--split", "test"]


def rows_of(stdout):
    """{stage with its indentation: (seconds, share)} of the table at the end."""
    lines = stdout.split("\nstage ")[1].splitlines()[1:]
    found = (re.match(r"( *\S.*?)  +([\d.]+) +([\d.]+) %", line) for line in lines)
    return {match[1]: (float(match[2]), float(match[3])) for match in found if match}


@pytest.mark.parametrize("workers", [0, 1])
def test_the_table_accounts_for_the_run_and_changes_nothing_in_it(flags, tmp_path, workers):
    run_here("get_embeddings", *flags, "--num-workers", 0, "--outfolder", tmp_path / "plain").succeeded()
    ended = run_here("get_embeddings", *flags, "--num-workers", workers, "--outfolder", tmp_path / "profiled", "--profile").succeeded()
    rows = rows_of(ended.stdout)
    assert {"start", "data", "model", "waiting for images", "image tower", "text tower", "transfer back", "write", "other"} <= rows.keys()
    outermost = [share for name, (_, share) in rows.items() if not name.startswith(" ") and name != "total"]
    assert sum(outermost) == pytest.approx(100, abs=0.1 * len(outermost))
    assert ("  decode" in rows) == (workers == 0)
    assert bool(re.search(r"^meanwhile.* decode [\d.]+ s", ended.stdout, re.MULTILINE)) == (workers > 0)
    one, other = ({path.name: path for path in (tmp_path / name).rglob("*.safetensors")} for name in ("plain", "profiled"))
    assert one.keys() == other.keys()
    for name in one:
        assert (load_embeddings(one[name]).image_embeddings == load_embeddings(other[name]).image_embeddings).all()


def test_without_the_flag_there_is_no_table_even_after_a_run_with_it(flags, tmp_path):
    with_it = run_here("get_embeddings", *flags, "--num-workers", 0, "--outfolder", tmp_path / "one", "--profile").succeeded()
    without = run_here("get_embeddings", *flags, "--num-workers", 0, "--outfolder", tmp_path / "two").succeeded()
    assert "\nstage " in with_it.stdout
    assert "\nstage " not in without.stdout


def test_a_mistake_ends_in_its_sentence_alone(flags, tmp_path):
    ended = run_here("get_embeddings", *flags, "--outfolder", tmp_path, "--profile", "--split", "train", "--val-p", 0.999)
    assert ended.stdout == ""
    ended.refused("--val-p")


def test_a_preset_may_ask_for_it(flags, tmp_path):
    preset = tmp_path / "preset.toml"
    preset.write_text('profile = true\noti_steps = 1\ntemplate_sentence = "a {}"\n')
    data = ["--dataset-name", flags[1], "--split", "test", "--model-name", flags[3], "--outfolder", tmp_path, "--features", tmp_path / "f"]
    rows = rows_of(run_here("oti", "--config", preset, *data, "--num-workers", 0).succeeded().stdout)
    assert {"features", "forward", "backward", "optimizer", "encoding anew", "write"} <= rows.keys()


def test_a_run_that_is_stopped_tells_where_its_time_went(flags, tmp_path):
    words = ["--dataset", flags[1], "--model-name", flags[3], "--bs", 4, "--nepochs", 100000, "--val-p", 0.3, "--num-workers", 0]
    process = start_script("train", *words, "--model-dir", tmp_path / "ckpts", "--profile", "--save-minutes", 0)
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "ckpts").glob("*_state.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, err
    rows = rows_of(out)
    assert {"validation", "  image tower", "backward", "optimizer", "checkpoint", "other", "total"} <= rows.keys()
    assert "images trained on" in out
