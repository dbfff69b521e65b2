"""The machine that a table is from, without its name or anything of its user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.work import cores
from common.files import slug
from common.provenance import now, versions

PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "numpy", "scipy", "scikit-learn", "pillow", "safetensors")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, GPU, versions, commit and date."""
    return {
        "processor": processor(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": system(),
        "gpu": gpu(),
        "versions": versions(PACKAGES),
        "commit": commit(),
        "date": now(),
    }


def name_of(found: dict[str, Any]) -> str:
    """What results of such a machine are filed under: ``cpu-2-cores``, or the GPU's name."""
    return slug(found["gpu"].lower()) if found["gpu"] else f"cpu-{found['cores']}-cores"


def sentence(found: dict[str, Any], threads: int | None = None) -> str:
    """The machine in a line, with the threads that were used if they are not as many as it has cores."""
    known = found["versions"]
    parts = [f"{found['processor']}, {found['cores']} cores", f"{found['memory_gib']} GiB", found["gpu"] or "no GPU", found["system"]]
    parts += [f"Python {known['python']}", f"PyTorch {known['torch']}", f"NumPy {known['numpy']}"]
    parts += [f"{threads} threads"] if threads else []
    parts += [f"commit {found['commit']}"] if found["commit"] else []
    return "; ".join([*parts, found["date"][:10]])


def processor() -> str:
    """Its model's name."""
    facts = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", facts.read_text()) if facts.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def memory_gib() -> int:
    """Of the machine, rounded."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def system() -> str:
    """The operating system, with its distribution."""
    try:
        return f"{platform.system()}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def gpu() -> str:
    """The first CUDA device's name, or nothing; asked of the driver, so that PyTorch need not be imported."""
    return _said_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader").partition("\n")[0]


def commit() -> str:
    """The commit of the tree, marked where files of it are changed; nothing outside of a repository."""
    return _said_by("git", "describe", "--always", "--dirty", "--exclude=*")


def _said_by(*command: str) -> str:
    try:
        done = subprocess.run(command, check=False, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
