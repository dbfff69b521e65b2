"""Units as jobs: what SLURM is asked for, what a job does with a signal, and the same tables whichever way they run.

SLURM's commands are stood in for: sbatch keeps the script that it is given, squeue prints what the test says.
"""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from common.errors import Interrupted, UserError
from engine.embed import LoadOptions
from study import executors
from study.cells import Cell, Unit
from study.executors import SlurmOptions, UnitJob, run_slurm
from study.expansion import expand
from study.plan_file import read_plan
from study.run import RunOptions
from tests.helpers import run_here
from tests.study.real_study import QUICK, tables, write_plan

STANDINS = {
    "srun": "true",
    "sbatch": 'cp "$1" "$LOG/script"; echo "Submitted batch job 41"',
    "squeue": 'echo "$*" >> "$LOG/squeue"; cat "$LOG/queue"',
}


def unit(task, model="tiny"):
    return Unit(f"tiny_{task}", (Cell("zero_shot", {"model": model, "task": task}),))


UNITS = [unit(task) for task in ("one", "two", "three")]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A SLURM that accepts everything and runs nothing; the folder with what it was asked, and ``queue``, what squeue prints."""
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    log.mkdir()
    (log / "queue").touch()
    for name, body in STANDINS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(log))
    return log


def submit(out, units=UNITS, **options):
    run_slurm(units, None, out, None, SlurmOptions(**options))


# --- what SLURM is asked for ---------------------------------------------------------------------------------------


def test_each_unit_is_one_task_of_an_array(cluster, tmp_path):
    submit(tmp_path / "study", partition="gpu", minutes=90, gpus=1, cpus=6, memory_gb=24, array_parallelism=2, sbatch={"account": "abc"})
    asked = (cluster / "script").read_text().splitlines()
    wanted = ["partition=gpu", "time=90", "gpus-per-node=1", "cpus-per-task=6", "mem=24GB", "array=0-2%2", "account=abc", "signal=USR2@120"]
    assert {f"#SBATCH --{option}" for option in (*wanted, "job-name=clipscope-study")} <= set(asked)
    assert "#SBATCH --requeue" in asked
    assert "#SBATCH --open-mode=append" in asked


def test_no_gpu_and_no_partition_are_not_asked_for(cluster, tmp_path):
    submit(tmp_path / "study", gpus=0)
    script = (cluster / "script").read_text()
    assert "gpus" not in script
    assert "--partition" not in script


def test_jobs_find_the_packages_wherever_they_are_submitted(cluster, tmp_path):
    submit(tmp_path / "study")
    assert f"env PYTHONPATH={executors.ROOT} {sys.executable} -u -m submitit" in (cluster / "script").read_text()


def test_many_units_become_several_arrays(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "MAX_ARRAY", 2)
    sbatch = 'grep -o "array=.*" "$1" >> "$LOG/arrays"; echo "Submitted batch job 4$(wc -l < "$LOG/arrays")"'
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
    submit(tmp_path / "study", [unit(str(number)) for number in range(4)])
    assert (cluster / "arrays").read_text().split() == ["array=0-1%2", "array=0-1%2"]
    submitted = json.loads((tmp_path / "study" / "jobs" / "submitted.json").read_text())
    assert list(submitted.values()) == ["41_0", "41_1", "42_0", "42_1"]


def test_what_was_submitted_is_told_with_how_to_watch_and_collect_it(cluster, tmp_path, capsys):
    submit(tmp_path / "study")
    told = capsys.readouterr().out
    assert "Submitted 3 jobs" in told
    assert "squeue --jobs 41" in told
    assert "scancel 41" in told
    assert "--report-only" in told


def test_a_unit_in_the_queue_is_not_submitted_again(cluster, tmp_path, capsys):
    submit(tmp_path / "study")
    (cluster / "queue").write_text("41_0\n41_2\n7\n")
    capsys.readouterr()
    submit(tmp_path / "study")
    told = capsys.readouterr().out
    assert "2 units not submitted" in told
    assert "Submitted 1 job," in told
    submitted = json.loads((tmp_path / "study" / "jobs" / "submitted.json").read_text())
    assert sorted(name[: name.rindex("-")] for name in submitted) == ["tiny_one", "tiny_three", "tiny_two"]


def test_models_whose_paths_end_alike_are_not_mistaken_for_one_another(cluster, tmp_path):
    submit(tmp_path / "study", [unit("one", "local-dir:a/model"), unit("one", "local-dir:b/model")])
    assert len(json.loads((tmp_path / "study" / "jobs" / "submitted.json").read_text())) == 2


def test_nothing_left_to_submit_is_not_an_error(cluster, tmp_path, capsys):
    submit(tmp_path / "study", [])
    assert capsys.readouterr().out == ""


def test_waiting_ends_when_the_jobs_have_left_the_queue(cluster, tmp_path, capsys, monkeypatch):
    """Also where SLURM does not answer for a while."""
    (cluster / "queue").write_text("41_0\n41_1\n41_2\n")
    squeue = tmp_path / "bin" / "squeue"
    looks = []

    def look(seconds):
        looks.append(seconds)
        squeue.write_text(["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho 41_2\n", "#!/bin/sh\n"][len(looks) - 1])

    monkeypatch.setattr(executors.time, "sleep", look)
    submit(tmp_path / "study", wait=True)
    assert len(looks) == 3
    assert "[3/3] tiny_three: ended with 1 of 1 cells to do, see " in capsys.readouterr().out


def test_where_there_is_no_slurm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"no SLURM here .*--executor local"):
        submit(tmp_path / "study")


def test_a_refusal_of_slurm_is_passed_on(cluster, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1\n")
    with pytest.raises(UserError, match="SLURM refused the jobs: sbatch: error: invalid partition specified: gpuu"):
        submit(tmp_path / "study", partition="gpuu")


# --- what a job does -----------------------------------------------------------------------------------------------


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A function: a job whose unit does what the test says."""

    def make(work):
        monkeypatch.setitem(sys.modules, "study.run", SimpleNamespace(run_unit=lambda *arguments: work()))
        return UnitJob(UNITS[0], None, tmp_path, None)

    return make


@pytest.fixture
def in_slurm(cluster, monkeypatch):
    """As within a SLURM job that submitit has started: its signal's handler notes that it was called, and ends the process."""
    called = []

    def requeue(number, frame):
        called.append(number)
        raise SystemExit

    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    (cluster / "queue").write_text("RUNNING\n")
    before = {number: signal.signal(number, requeue) for number in (signal.SIGUSR2,)}
    yield called
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_stops_the_unit_and_then_queues_the_job_again(job, in_slurm, number):
    steps = []

    def work():
        try:
            signal.raise_signal(number)
        finally:
            steps.append("tidied up")
        steps.append("went on")

    with pytest.raises(SystemExit):
        job(work)()
    assert steps == ["tidied up"]
    assert in_slurm == [signal.SIGUSR2]


def test_a_training_ends_its_step_before_the_job_is_queued_again(job, in_slurm):
    """As engine.fit does: the signal is noted, the state is saved after the step."""
    from engine.signals import stop_requests

    steps = []

    def work():
        with stop_requests() as stop:
            signal.raise_signal(signal.SIGUSR2)
            steps.append("step done")
            assert stop
            raise Interrupted("Stopped; the state is saved.")

    with pytest.raises(SystemExit):
        job(work)()
    assert (steps, in_slurm) == (["step done"], [signal.SIGUSR2])


@pytest.mark.parametrize("state", ["COMPLETING", ""])
def test_a_cancelled_job_waits_for_its_end_and_is_not_queued_again(job, in_slurm, cluster, monkeypatch, state):
    (cluster / "queue").write_text(state)
    waited = []
    monkeypatch.setattr(executors.time, "sleep", waited.append)
    with pytest.raises(Interrupted):
        job(lambda: signal.raise_signal(signal.SIGTERM))()
    assert waited == [executors.KILL_WAIT_S]
    assert in_slurm == []
    assert "--jobs 16_3" in (cluster / "squeue").read_text()


def test_the_handlers_of_submitit_are_back_after_a_unit(job, in_slurm):
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)]
    assert job(lambda: None)() == "tiny_one"
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)] == before


def test_what_is_queued_again_is_the_same_unit(job):
    one = job(lambda: None)
    assert one.checkpoint().function == one


def test_a_job_that_breaks_down_is_told_and_the_others_run(job, tmp_path, capsys):
    done = []

    def work():
        done.append(1)
        if len(done) == 2:
            raise MemoryError("too large")

    job(work)
    run_slurm(UNITS, None, tmp_path, None, SlurmOptions(), cluster="debug")
    told = capsys.readouterr().out
    assert told.count(": ended with 1 of 1 cells to do, see ") == 3  # for these stand-ins write no results
    assert len(done) == 3


# --- really run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_plan(tmp_path_factory, small_model):
    return write_plan(tmp_path_factory.mktemp("plan"), small_model, ("lora",))


@pytest.fixture(scope="module")
def in_order(small_plan, tmp_path_factory):
    """The tables of the plan run in order in one process."""
    out = tmp_path_factory.mktemp("in_order")
    run_here("reproduce", small_plan, "--out", out, *QUICK).succeeded()
    return tables(out)


def test_submitits_debug_executor_gives_the_same_tables(small_plan, in_order, tmp_path):
    ended = run_here("reproduce", small_plan, "--out", tmp_path, "--executor", "debug", *QUICK).succeeded()
    assert "[4/4] " in ended.stdout
    assert tables(tmp_path) == in_order


def test_jobs_of_their_own_that_are_stopped_go_on_to_the_same_tables(small_plan, in_order, tmp_path):
    """submitit's local executor: a process for each unit. One is told to stop, as before a time limit, and queued again."""
    plan = read_plan(small_plan)
    options = RunOptions(LoadOptions(num_workers=0), device="cpu")
    stopped, *others = reversed(expand(plan))
    executor = executors._executor(tmp_path / "jobs", "small", SlurmOptions(gpus=0), "local")
    (job,) = executors._submit(executor, [UnitJob(stopped, plan, tmp_path, options)])
    wait_for((tmp_path / "cells" / f".{stopped.name}.lock").exists)  # it has begun
    os.kill(int(job.job_id), signal.SIGTERM)  # which the process that stands for SLURM passes on
    run_slurm(others, plan, tmp_path, options, SlurmOptions(gpus=0), cluster="local")
    assert job.exception() is None
    assert "Requeued job" in job.stderr() + job.stdout()
    assert run_here("reproduce", small_plan, "--out", tmp_path, "--report-only").succeeded()
    assert tables(tmp_path) == in_order


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
