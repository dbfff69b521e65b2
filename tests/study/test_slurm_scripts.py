"""slurm/*.sbatch: valid shell, flags that exist, and going on after an interruption, with srun, squeue and scontrol stood in for."""

import re
import shutil
import subprocess

import pytest

from common.cli import Parser
from tests.helpers import ROOT, load_script

SCRIPTS = sorted((ROOT / "slurm").glob("*.sbatch"))
NAMES = [path.name for path in SCRIPTS]
SAVED = [path for path in SCRIPTS if path.stem != "embed_array"]  # embeddings need no saving: a part that is done is a file
STANDINS = {
    "srun": 'while [[ $1 == --* ]]; do echo "srun $1" >> "$LOG"; shift; done; exec "$@"',
    "squeue": 'echo "squeue $*" >> "$LOG"; echo "$STATE"',
    "scontrol": 'echo "scontrol $*" >> "$LOG"',
    "train": 'echo "python $*" >> "$LOG"; exit "$STATUS"',
}


def test_the_scripts_are_there():
    assert NAMES == ["array.sbatch", "embed_array.sbatch", "one_gpu.sbatch", "one_node.sbatch"]


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_a_script_is_valid_shell(path):
    subprocess.run(["bash", "-n", path], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, path], check=True)


class Caught(Exception):
    """Carries a parser out of the function that has made it."""


def parser_of(monkeypatch, name):
    """The parser of a script, caught when it is about to parse."""

    def catch(parser, argv=None):
        raise Caught(parser)

    with monkeypatch.context() as patch, pytest.raises(Caught) as caught:
        patch.setattr(Parser, "parse_args", catch)
        load_script(name).parse_arguments()
    return caught.value.args[0]


def commands(text):
    """(script, the flags after it) wherever one of the project's scripts is run, in the comments too."""
    for line in text.splitlines():
        for command in re.split(r"`", line):
            if match := re.search(r"(?:slurm/(\w+)\.sbatch|(\w+)\.py) (.*)", command):
                script = match[2] or {"array": "reproduce", "embed_array": "get_embeddings"}.get(match[1], "train")
                yield script, re.findall(r"(?<=\s)--[\w-]+", " " + match[3])


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_every_flag_of_a_script_and_of_its_examples_exists(path, monkeypatch):
    found = list(commands(path.read_text()))
    assert len(found) >= 2
    for script, flags in found:
        assert set(flags) <= parser_of(monkeypatch, script)._option_string_actions.keys(), script


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that runs a script among stand-ins; (status, what they were called with)."""
    (tmp_path / "bin").mkdir()
    for name, body in STANDINS.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    log = tmp_path / "log"

    def call(path, status, state="RUNNING", *arguments, **more):
        environment = {
            **more,
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "PYTHON": str(tmp_path / "bin" / "train"),
            **{"LOG": str(log), "STATUS": str(status), "STATE": state},
            **{"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "3"},
            **{"SLURM_ARRAY_TASK_ID": "6", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_COUNT": "4"},
        }
        log.unlink(missing_ok=True)
        ended = subprocess.run(["bash", path, *arguments], env=environment, check=False)
        return ended.returncode, log.read_text().splitlines() if log.exists() else []

    return call


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
def test_a_run_that_was_saved_is_queued_again(path, stand_in):
    status, calls = stand_in(path, 75)
    assert status == 75
    job = "16_6" if path.stem == "array" else "17"  # the last task of an array has the array's own SLURM_JOB_ID
    assert calls[-2:] == [f"squeue --noheader --jobs {job} --format %T", f"scontrol requeue {job}"]


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
@pytest.mark.parametrize(("status", "state"), [(0, "RUNNING"), (1, "RUNNING"), (2, "RUNNING"), (75, "COMPLETING"), (75, "")])
def test_a_run_that_ended_and_a_job_that_was_cancelled_are_not_queued_again(path, status, state, stand_in):
    ended, calls = stand_in(path, status, state)
    assert ended == status
    assert not any(call.startswith("scontrol") for call in calls)


@pytest.mark.parametrize("name", ["one_gpu", "one_node"])
def test_arguments_reach_train_which_is_told_to_resume(name, stand_in):
    _, calls = stand_in(ROOT / "slurm" / f"{name}.sbatch", 0, "RUNNING", "--dataset", "imagefolder:my photos")
    assert calls[-1] == "python train.py --resume --num-workers 3 --dataset imagefolder:my photos"


def test_an_array_deals_out_the_plan(stand_in):
    _, calls = stand_in(ROOT / "slurm" / "array.sbatch", 0, "RUNNING", "plans/demo.toml")
    assert calls[-1] == "python reproduce.py --shard 2/4 --num-workers 3 plans/demo.toml"


@pytest.mark.parametrize(("parts", "mine"), [(None, "2"), ("11", "2 6 10"), ("1", None)])
def test_an_array_deals_out_the_parts(parts, mine, stand_in):
    """To task 2 of 4; more tasks than parts do nothing."""
    flags = ["--datasets", "imagefolder:my photos"]
    status, calls = stand_in(ROOT / "slurm" / "embed_array.sbatch", 0, "RUNNING", *flags, **{} if parts is None else {"PARTS": parts})
    assert status == 0
    expected = f"python get_embeddings.py --parts {parts or 4} --part {mine} --num-workers 3 --datasets imagefolder:my photos"
    assert calls[-1:] == ([] if mine is None else [expected])


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
def test_slurm_warns_a_requeueable_job(path):
    asked = re.findall(r"^#SBATCH (\S+)$", path.read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=USR1@120", "--open-mode=append"} <= set(asked)
