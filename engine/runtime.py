"""Where and how a command runs: device, precision, processes and seed. Accelerate underneath."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from common import stages
from common.errors import UserError
from common.stages import START, staged

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Device, precision, seed and this process's place among the others.

    ``torchrun`` or ``srun`` start several processes; every collective call below is a no-op in a single one.
    """

    accelerator: Accelerator
    precision: str
    seed: int

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes."""
        return self.accelerator.is_main_process

    @property
    def pin_memory(self) -> bool:
        """Whether batches should lie in page-locked memory, from which copies to the device overlap with its work."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which towers run in this precision."""
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32")

    def alone(self) -> Runtime:
        """This process by itself: it shares no work, waits for no other, prints and writes."""
        return _Alone(self.accelerator, self.precision, self.seed)

    def say(self, *words: object) -> None:
        """Print, in the main process only."""
        if self.is_main:
            print(*words, flush=True)

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        return self.accelerator.reduce(values, reduction="sum") if self.world > 1 else values

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of all processes, process after process, on the CPU; processes may hold different numbers of them."""
        if self.world == 1:
            return rows.cpu()
        count = torch.tensor([len(rows)], device=self.device)
        counts = self.accelerator.gather(count).tolist()
        padding = rows.new_zeros((max(counts) - len(rows), *rows.shape[1:]))
        padded = self.accelerator.gather(torch.cat([rows, padding]).to(self.device)).cpu()
        return torch.cat([part[:size] for part, size in zip(padded.chunk(self.world), counts, strict=True)])

    def gather_objects(self, items: Sequence[Any]) -> list[Any]:
        """The items of all processes in one list."""
        if self.world == 1:
            return list(items)
        from accelerate.utils import gather_object

        return list(gather_object(list(items)))

    def close(self) -> None:
        """Finish what trackers have to write, and leave the process group, so that torchrun ends quietly."""
        stages.compare(self.gather_objects)
        self.accelerator.end_training()


@dataclass(frozen=True)
class _Alone(Runtime):
    """One of several processes, as if there were no others."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def world(self) -> int:
        return 1

    @property
    def is_main(self) -> bool:
        return True


@staged(START)
def start(
    device: str = "auto", precision: str = "auto", seed: int = 0, tracker: str | None = None, tracker_folder: Path | None = None
) -> Runtime:
    """Set up this process. ``auto`` is the accelerator where there is one, and bf16 where the hardware has it, else fp32."""
    _check_device(device)
    _check_tracker(tracker)
    chosen = _choose_precision(device, precision)
    adopt_srun(os.environ)
    accelerator = Accelerator(
        cpu=device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available()),  # must be told of several processes
        mixed_precision="no" if chosen == "fp32" else chosen,
        log_with=tracker,
        project_dir=tracker_folder,
        # Some trained part may have no share in a step's loss; and no buffer changes, so none needs to be sent around.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
    )
    _check_processes(accelerator)
    torch.manual_seed(seed)
    return Runtime(accelerator, chosen, seed)


def adopt_srun(environment: MutableMapping[str, str]) -> None:
    """Where ``srun`` started several processes, say so in ``environment`` in the words of torchrun, which accelerate reads."""
    if "WORLD_SIZE" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return
    hosts, job = environment["SLURM_STEP_NODELIST"], int(environment["SLURM_JOB_ID"])
    first = re.match(r"(?:[^,\[]|\[[^]]*\])+", hosts)  # e.g. gpu[07-09,12] of gpu[07-09,12],big1
    assert first is not None
    environment.update(
        RANK=environment["SLURM_PROCID"],
        LOCAL_RANK=environment["SLURM_LOCALID"],
        WORLD_SIZE=environment["SLURM_STEP_NUM_TASKS"],
        LOCAL_WORLD_SIZE=re.split(r"\D", environment["SLURM_STEP_TASKS_PER_NODE"])[0],
        MASTER_ADDR=re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first[0]),
        MASTER_PORT=str(15000 + (97 * job + int(environment["SLURM_STEP_ID"])) % 15000),
    )


def _check_processes(accelerator: Accelerator) -> None:
    """Several processes that do not know of one another would each do all of the work and write the same rows."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise UserError(f"{started} processes were started, but on {accelerator.device.type} they cannot work together; start one.")


def _check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is visible to torch; use --device cpu or auto.")


def _check_tracker(name: str | None) -> None:
    """Accelerate would go on without one that is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise UserError(f"--log-with {name} needs the package of that name; install it with 'pip install {name}'.")


def _choose_precision(device: str, precision: str) -> str:
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and not on_cuda:
        raise UserError("--precision fp16 needs a CUDA device; use fp32 or bf16 on the CPU.")
    return precision
