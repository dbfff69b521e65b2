"""The greatest memory of a process since a moment, and the memory that is free, where the system tells it."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

from common.provenance import peak_memory_mib

PROCESS = Path("/proc/self")


def restart_peak() -> None:
    """Let the peak begin at what is in use now: what was freed goes back to the system, and the system forgets the earlier peak.

    Only Linux can; elsewhere the peak stays that of the whole process, so growth is told too small rather than too large.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    forget = PROCESS / "clear_refs"
    if forget.exists():
        forget.write_text("5")


def peak_mib() -> int:
    """The greatest memory since :func:`restart_peak`, in MiB."""
    status = PROCESS / "status"
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) >> 10 if found else peak_memory_mib()["process"]


def available_mib() -> int | None:
    """Memory that a new process can have without another losing its own, in MiB; None where the system does not tell."""
    facts = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", facts.read_text()) if facts.exists() else None
    return int(found[1]) >> 10 if found else None
