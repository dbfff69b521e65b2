"""Device, precision and the place among other processes."""

import os
import subprocess
import sys

import pytest
import torch

from common.errors import UserError
from engine import runtime as runtime_module
from engine.runtime import adopt_srun, start
from tests.helpers import QUIET, ROOT

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

on_cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no CUDA device")
SRUN = {
    **{"SLURM_STEP_NUM_TASKS": "6", "SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "3(x2)"},
    **{"SLURM_JOB_ID": "1234567", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[07-09,12],big1"},
}


def test_one_process():
    runtime = start("cpu", seed=7)
    assert (runtime.device.type, runtime.precision, runtime.rank, runtime.world) == ("cpu", "fp32", 0, 1)
    assert runtime.is_main
    assert not runtime.pin_memory
    rows = torch.arange(6).reshape(3, 2)
    assert torch.equal(runtime.gather_rows(rows), rows)
    assert torch.equal(runtime.total(rows), rows)
    assert runtime.gather_objects(["a"]) == ["a"]
    runtime.close()


def test_the_seed_decides_what_torch_draws():
    def drawn(seed):
        start("cpu", seed=seed)
        return torch.rand(3).tolist()

    assert drawn(0) == drawn(0) != drawn(1)


def test_bf16_on_the_cpu_is_what_matrix_products_run_in():
    runtime = start("cpu", "bf16")
    a = torch.randn(4, 4)
    with runtime.autocast():
        assert (a @ a).dtype == torch.bfloat16
    assert (a @ a).dtype == torch.float32


def test_fp32_is_without_autocast():
    with start("cpu", "fp32").autocast():
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(UserError, match="--precision fp16 needs a CUDA device; use fp32 or bf16"):
        start("cpu", "fp16")


@on_cpu_only
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="--device cuda: no CUDA device is visible"):
        start("cuda")


@on_cpu_only
def test_auto_is_the_cpu_in_fp32():
    runtime = start("auto", "auto")
    assert (runtime.device.type, runtime.precision) == ("cpu", "fp32")


def test_processes_that_cannot_work_together_are_refused(monkeypatch):
    """As on a device for which accelerate knows no backend: each would do all of the work and write the same rows."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        runtime_module, "Accelerator", lambda **options: type("Alone", (), {"num_processes": 1, "device": torch.device("mps")})
    )
    with pytest.raises(UserError, match="2 processes were started, but on mps they cannot work together"):
        start("cpu")


# --- srun ------------------------------------------------------------------------------------------------------------


def test_what_srun_says_in_the_words_of_torchrun():
    environment = dict(SRUN)
    adopt_srun(environment)
    said = {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")}
    assert said == {"RANK": "4", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "gpu07"}
    assert 15000 <= int(environment["MASTER_PORT"]) < 30000


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("node3", "node3"), ("a1,b[2-3]", "a1"), ("r[1-2]n[05,07-09]", "r1n05"), ("gpu[3,7]", "gpu3"), ("gpu-a[10-11]", "gpu-a10")],
)
def test_the_first_host(hosts, first):
    environment = {**SRUN, "SLURM_STEP_NODELIST": hosts}
    adopt_srun(environment)
    assert environment["MASTER_ADDR"] == first


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {**SRUN, "WORLD_SIZE": "8", "RANK": "3"},  # torchrun within srun
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script that starts one process itself
    ],
)
def test_else_nothing_is_changed(environment):
    before = dict(environment)
    adopt_srun(environment)
    assert environment == before


GATHER = """
import torch
from engine.runtime import start
runtime = start("auto")
assert runtime.world == 2, runtime.world
rows = torch.full((2 * runtime.rank, 3), float(runtime.rank))
gathered = runtime.gather_rows(rows)
assert gathered.tolist() == [[1.0] * 3] * 2, gathered
assert runtime.gather_objects([runtime.rank] * (runtime.rank + 1)) == [0, 1, 1]
assert runtime.gather_objects([]) == []
assert runtime.total(torch.tensor([1.0, runtime.rank])).tolist() == [2.0, 1.0]
runtime.say("said once")
runtime.close()
"""


def test_two_processes_that_srun_started_on_a_machine_without_accelerator():
    """They find one another with ``--device auto``, bring rows of unequal number together, and one speaks."""
    tasks = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": "0"}
    environment = {**os.environ, **QUIET, **tasks, "SLURM_JOB_ID": str(os.getpid())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GATHER],
            cwd=ROOT,
            env={**environment, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert [out for out, _ in ends] == ["said once\n", ""]
