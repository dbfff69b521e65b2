"""A plan of 540 cells through submitit's debug executor on a cluster with a clock of its own: time limits, preemptions, kills, failures.

What runs is the real scheduling: jobs, signals, submitit's own handler of them and what it stores to queue a job again, claims, records,
states, the collection and the report. Only the work of a cell is made up, and takes time on the fake clock alone.
"""

import signal
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from submitit.core import job_environment
from submitit.core.utils import DelayedSubmission
from submitit.local.debug import DebugJob, DebugJobEnvironment

from common.errors import UserError
from study import cells, run
from study.analysis import analyse
from study.cells import FAILED, PRODUCTS
from study.collect import collect
from study.done import Done
from study.executors import MAX_TIMEOUTS, WARNING_S, SlurmOptions, run_slurm
from study.expansion import expand
from study.run import RunOptions, counts
from study.study_report import write_report
from tests.study import small_study

LIMIT = 240  # minutes of a job
MINUTES = {"zero_shot": 4, "embed": 30, "measure": 2, "train": 150, "test": 12}  # a unit of trainings needs 408, so two jobs
FAILS, KILLS = "gbc_diagonal", "siglip_lora_SVHN_seed0"  # a measure and a unit


class Killed(BaseException):
    """The job is gone at once, as with SIGKILL."""


@dataclass
class Cluster:
    """The clock, and what happened to jobs and cells."""

    now: float = 1.7e9
    ends: float = 0.0  # when the job that runs reaches its limit
    next_preemption: float = 0.0
    starts: Counter = field(default_factory=Counter)  # of each job
    stops: Counter = field(default_factory=Counter)  # by reason
    worked: Counter = field(default_factory=Counter)  # times that a cell was finished
    saved: Counter = field(default_factory=Counter)  # minutes of a training that its state keeps
    broken: bool = True  # whether a measure fails, and a unit is killed

    def time(self):
        return self.now

    perf_counter = time

    def minute(self):
        """One goes by; the scheduler may have something to say."""
        self.now += 60
        if self.now >= self.ends - WARNING_S:
            self.stops["time limit"] += 1
            self.ends = float("inf")  # it is said once
            signal.raise_signal(signal.SIGUSR2)
        elif self.now >= self.next_preemption:
            self.stops["preemption"] += 1
            self.next_preemption = self.now + 1111 * 60
            signal.raise_signal(signal.SIGTERM)

    def do(self, cell, unit, materials, inputs):
        """In place of a cell's work: a training goes on where it was stopped, all others begin anew."""
        done = self.saved[cell.name] if cell.kind == "train" else 0
        for minute in range(done, MINUTES[cell.kind]):
            self.minute()
            if cell.kind == "train":
                self.saved[cell.name] = minute + 1
        if self.broken and cell.key.get("measure") == FAILS:
            raise UserError("A variance is zero.")
        if self.broken and cell.kind == "test" and unit.name == KILLS:
            raise Killed
        self.worked[cell.kind, cell.name] += 1
        results = small_study._RESULTS[cell.kind](cell.key, unit)
        if cell.kind in PRODUCTS:
            product = materials.out / results[PRODUCTS[cell.kind]]
            product.parent.mkdir(parents=True, exist_ok=True)
            product.touch()
        return Done(results, "made up")

    def run(self, job):
        """In place of ``DebugJob.exception``, which knows no scheduler: runs a job until it ends, as often as it is queued again."""
        submission = job._submission
        submission.set_timeout(LIMIT, MAX_TIMEOUTS)
        while True:
            self.starts[job.job_id] += 1
            self.ends = self.now + LIMIT * 60
            handler = job_environment.SignalHandler(DebugJobEnvironment(), job.paths, submission)
            signal.signal(signal.SIGUSR2, handler.checkpoint_and_try_requeue)
            try:
                submission.result()
                return None
            except SystemExit:  # queued again: what starts next is what submitit has stored
                self.now += 600
                submission = DelayedSubmission.load(job.paths.submitted_pickle)
            except (Killed, Exception) as error:
                return error


@pytest.fixture
def cluster(monkeypatch):
    fake = Cluster(next_preemption=1.7e9 + 777 * 60)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)}
    runtime = SimpleNamespace(precision="fp32", device="cpu", world=1)
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "1")  # within a job
    monkeypatch.setattr(job_environment, "time", fake)
    monkeypatch.setattr(run, "time", fake)
    monkeypatch.setattr(DebugJob, "exception", lambda job: fake.run(job))  # noqa: PLW0108 (a function becomes a method)
    monkeypatch.setattr(run, "start_materials", lambda plan, out, options: SimpleNamespace(out=out, runtime=runtime))
    monkeypatch.setattr("study.inputs.inputs_of", lambda cell, unit, materials: {})
    monkeypatch.setattr("study.work.do", fake.do)
    monkeypatch.setattr("common.files._sync", lambda path: None)  # a thousand of which wait for the disk
    yield fake
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def submit(cluster, tmp_path, capsys):
    """A function: submits all units of the plan, and waits; what it said."""
    plan = small_study.small_plan(seeds=(0,))
    (tmp_path / "cells").mkdir()

    def submitted(**options):
        run_slurm(expand(plan), plan, tmp_path, RunOptions(None, **options), SlurmOptions(minutes=LIMIT, gpus=0), cluster="debug")
        return capsys.readouterr().out

    submitted.plan = plan
    return submitted


def test_every_cell_is_worked_on_once_whatever_happens_to_the_jobs(cluster, submit, tmp_path, monkeypatch):
    plan, units = submit.plan, expand(submit.plan)
    failing, n = len(plan.models) * len(plan.tasks), sum(len(unit.cells) for unit in units)
    assert n == 540

    told = submit()
    assert cluster.stops["time limit"] > 30  # of the 36 units of trainings, none of which fits into one job
    assert cluster.stops["preemption"] > 5
    assert len(cluster.starts) == len(units)
    assert cluster.starts.total() == len(units) + cluster.stops.total()
    assert f"{KILLS}: ended with 9 of 11 cells to do, see " in told
    assert told.count(": ended with ") == 1
    assert dict(counts(units, tmp_path)) == {"done": n - failing - 9, FAILED: failing, "to do": 9}

    cluster.broken = False
    worked = Counter(cluster.worked)
    submit()  # does what the killed job left; what failed is not tried again
    assert (cluster.worked - worked).total() == 9
    assert dict(counts(units, tmp_path)) == {"done": n - failing, FAILED: failing}
    submit(retry_failed=True)
    assert dict(counts(units, tmp_path)) == {"done": n}
    reads = count_reads(monkeypatch)
    submit()  # nothing is left
    assert len(reads) == n
    assert max(reads.values()) <= 3  # so the cost of a cell does not grow with their number
    assert set(cluster.worked.values()) == {1}
    assert len(cluster.worked) == n


def count_reads(monkeypatch):
    """How often each record is read from here on."""
    reads, read_json = Counter(), cells.read_json
    monkeypatch.setattr(cells, "read_json", lambda path: reads.update([path]) or read_json(path))
    return reads


def test_the_report_is_that_of_a_study_to_which_nothing_happened(cluster, submit, tmp_path):
    cluster.broken = False
    submit()
    plan, whole = submit.plan, tmp_path / "whole"
    small_study.write_small_study(whole, plan)
    assert collect(plan, tmp_path) == collect(plan, whole)
    assert collect(plan, tmp_path).complete
    texts = []
    for out in (tmp_path, whole):
        collected = collect(plan, out)
        markdown, _ = write_report(plan, collected, analyse(collected, plan), [], out)
        texts.append(markdown.read_text().split("## Provenance")[0])
    assert texts[0] == texts[1]
