"""Where the units of a study run: in order in this process, or each as a job of a SLURM array, submitted through submitit.

A job that nears its time limit or is preempted stops, saves, is queued again and goes on; the cells it has finished are not
redone. Logs, and what submitit needs to start the jobs, lie in OUT/jobs.
"""

from __future__ import annotations

import getpass
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import Interrupted, UserError
from common.files import ensure_folder, read_json, slug, write_json
from study.cells import hash_of, read_record

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

    from study.cells import Unit
    from study.plan import Plan
    from study.run import RunOptions

ROOT = Path(__file__).parents[1]
MAX_ARRAY = 1000  # jobs in one array: SLURM's own limit where a site has set no other
MAX_TIMEOUTS = 100  # a unit may need many time limits, since each brings it forward
WARNING_S = 120  # between the signal and the end of the job
POLL_S = 15  # between two looks at the queue
KILL_WAIT_S = 600  # how long a job that is being ended waits for its end; SLURM's own KillWait is 30 s


@dataclass(frozen=True)
class SlurmOptions:
    """What every job, that is every unit, asks the cluster for. ``partition`` None: the cluster's default."""

    partition: str | None = None
    minutes: int = 240  # time limit; a unit that takes longer goes on in a further job
    gpus: int = 1  # or 0: a unit runs in one process
    cpus: int = 8
    memory_gb: int = 32
    array_parallelism: int = 64  # jobs of an array that run at the same time
    sbatch: Mapping[str, str] = field(default_factory=dict)  # further options of sbatch, e.g. account, qos, constraint
    wait: bool = False  # return when the jobs have ended


@dataclass(frozen=True)
class UnitJob:
    """One unit as submitit runs it: a callable that can be interrupted at any time and called again."""

    unit: Unit
    plan: Plan
    out: Path
    options: RunOptions

    def __call__(self) -> str:
        """Run what is left of the unit; its name. A signal that asks to stop ends in :func:`_go_on_later`."""
        from study.run import run_unit

        try:
            with _stopped_by_submitit():
                run_unit(self.unit, self.plan, self.out, self.options)
        except Interrupted:
            print("Stopped by a signal; what is finished is kept, and the rest goes on when the job starts again.", flush=True)
            _go_on_later()
            raise
        return self.unit.name

    def checkpoint(self) -> DelayedSubmission:
        """What submitit is to run when the job is queued again: the same, for finished cells and a training's state are on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_local(units: Sequence[Unit], plan: Plan, out: Path, options: RunOptions) -> None:
    """Run the units one after another in this process."""
    from study.run import run_units

    run_units(units, plan, out, options)


def run_slurm(units: Sequence[Unit], plan: Plan, out: Path, options: RunOptions, slurm: SlurmOptions, cluster: str = "slurm") -> None:
    """Submit each unit as a job of a SLURM array, leaving out those whose earlier job is still in the queue.

    ``cluster`` may also be submitit's "local", one process each at the same time, or "debug", in order in this process; these
    always wait. Raises :class:`UserError` where there is no SLURM, or when it refuses the jobs.
    """
    folder = ensure_folder(out / "jobs")
    executor = _executor(folder, f"clipscope-{slug(out.name)}", slurm, cluster)
    queued = _queued(folder) if cluster == "slurm" else set()
    work = [UnitJob(unit, plan, out, options) for unit in units if _label(unit) not in queued]
    jobs = _submit(executor, work)
    if cluster == "slurm":
        _remember(folder, work, jobs)
        _announce(jobs, folder, len(units) - len(work))
    if slurm.wait or cluster != "slurm":
        _wait(work, jobs, cluster)


def _executor(folder: Path, name: str, slurm: SlurmOptions, cluster: str) -> AutoExecutor:
    import submitit

    # Jobs start in the folder they were submitted from, which need not be the one in which Python finds the packages.
    python = f"env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)}"
    try:
        executor = submitit.AutoExecutor(
            folder,
            cluster,
            slurm_python=python,
            slurm_max_num_timeout=MAX_TIMEOUTS,
            local_python=python,
            local_max_num_timeout=MAX_TIMEOUTS,
        )
    except RuntimeError as error:
        raise UserError("There is no SLURM here ('srun' is not found); use --executor local, or log in to the cluster.") from error
    executor.update_parameters(
        name=name,
        timeout_min=slurm.minutes,
        mem_gb=slurm.memory_gb,
        cpus_per_task=slurm.cpus,
        gpus_per_node=slurm.gpus or None,
        slurm_partition=slurm.partition,
        slurm_array_parallelism=slurm.array_parallelism,
        slurm_signal_delay_s=WARNING_S,
        slurm_additional_parameters={"requeue": True, **slurm.sbatch},
    )
    return executor


def _submit(executor: AutoExecutor, work: Sequence[UnitJob]) -> list[Job[str]]:
    """The job of each unit, in the same order."""
    from submitit.core.utils import FailedJobError
    from submitit.helpers import clean_env

    jobs: list[Job[str]] = []
    try:
        with clean_env():  # from within a job, its own limits would be taken over
            for first in range(0, len(work), MAX_ARRAY):
                jobs += executor.submit_array(work[first : first + MAX_ARRAY])
    except FailedJobError as error:
        raise UserError(f"SLURM refused the jobs: {' '.join(str(error).split())}") from error
    return jobs


def _label(unit: Unit) -> str:
    """The unit's name, and a hash that tells two models or tasks apart whose paths end alike."""
    key = unit.cells[0].key
    return f"{unit.name}-{hash_of({name: key[name] for name in ('model', 'tuning_name', 'task', 'seed') if name in key})[:8]}"


# --- the queue -----------------------------------------------------------------------------------------------------


def _queued(folder: Path) -> set[str]:
    """The labels of the units that an earlier submission has still in the queue or running."""
    path = folder / "submitted.json"
    submitted: dict[str, str] = read_json(path) if path.exists() else {}
    known = (_jobs_in_queue() if submitted else None) or set()
    return {label for label, job in submitted.items() if job in known}


def _remember(folder: Path, work: Sequence[UnitJob], jobs: Sequence[Job[str]]) -> None:
    path = folder / "submitted.json"
    earlier = read_json(path) if path.exists() else {}
    write_json(path, earlier | {_label(one.unit): job.job_id for one, job in zip(work, jobs, strict=True)})


def _jobs_in_queue() -> set[str] | None:
    """The ids of this user's jobs, waiting or running; None when SLURM does not answer."""
    listed = _squeue("--user", getpass.getuser(), "--array", "--format", "%i")
    return None if listed is None else set(listed.split())


def _squeue(*arguments: str) -> str | None:
    """What squeue prints; None when it fails, as it does for a job that it has forgotten."""
    asked = subprocess.run(["squeue", "--noheader", *arguments], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None


def _announce(jobs: Sequence[Job[str]], folder: Path, n_queued: int) -> None:
    if n_queued:
        print(f"{n_queued} unit{'s' * (n_queued != 1)} not submitted: an earlier job is still in the queue.")
    if not jobs:
        return
    arrays = ",".join(dict.fromkeys(job.job_id.split("_")[0] for job in jobs))
    print(f"Submitted {len(jobs)} job{'s' * (len(jobs) != 1)}, one for each unit; which is which stands in {folder / 'submitted.json'}.")
    print(f"  watch:   squeue --jobs {arrays}    logs: {folder}/{arrays.split(',')[0]}_*_log.*    stop: scancel {arrays}")
    print("  collect: the same command with --report-only, at any time. Without it, new jobs do what the ended ones left.", flush=True)


def _wait(work: Sequence[UnitJob], jobs: Sequence[Job[str]], cluster: str) -> None:
    """Until every job has ended; one line for each. What a job that broke down has left undone, the next submission does."""
    for number, (one, job) in enumerate(zip(work, jobs, strict=True), start=1):
        if cluster == "slurm":
            _until_it_left_the_queue(job.job_id)
        else:
            job.exception()  # waits, and in "debug" runs it
        left = sum(read_record(cell, one.out) is None for cell in one.unit.cells)
        told = f"ended with {left} of {len(one.unit.cells)} cells to do, see {job.paths.stderr}" if left else "done"
        print(f"[{number}/{len(jobs)}] {one.unit.name}: {told}", flush=True)


def _until_it_left_the_queue(job: str) -> None:
    """Not by submitit, which needs SLURM's accounting, and takes a job that is queued again after an error for ended."""
    while (known := _jobs_in_queue()) is None or job in known:
        time.sleep(POLL_S)


# --- within a job --------------------------------------------------------------------------------------------------


@contextmanager
def _stopped_by_submitit() -> Iterator[None]:
    """While the block runs, submitit's signal, SIGTERM and SIGUSR1 raise :class:`Interrupted`, from a training once its state is saved.

    Left to itself submitit would end the process at once, wherever it is.
    """
    from engine.signals import stopped_at_once

    before = signal.signal(_submitit_signal(), lambda number, frame: signal.raise_signal(signal.SIGTERM))
    try:
        with stopped_at_once():
            yield
    finally:
        signal.signal(_submitit_signal(), before)


def _go_on_later() -> None:
    """Let submitit queue this job again, which does not return; returns where there is no submitit to do so.

    SIGTERM comes to a job that is preempted and to one that is cancelled. One that is cancelled, or that SLURM queues again
    by itself, is no longer RUNNING and waits for its end: queueing it again would undo a scancel.
    """
    from submitit import JobEnvironment

    environment = JobEnvironment()
    if environment.cluster == "slurm" and _squeue("--jobs", environment.job_id, "--format", "%T") != "RUNNING":
        time.sleep(KILL_WAIT_S)
    elif callable(signal.getsignal(_submitit_signal())):
        signal.raise_signal(_submitit_signal())


def _submitit_signal() -> Any:
    from submitit import JobEnvironment

    return getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
