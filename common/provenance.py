"""What a result must say about how it came about."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

VERSION = "0.1.0"
_PACKAGES = ("torch", "open_clip_torch", "timm", "transformers", "numpy", "accelerate")


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """The versions that decide a number: clipscope's, Python's and those of the libraries that compute."""
    known = {"clipscope": VERSION, "python": platform.python_version()}
    for package in packages:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = "absent"
    return known


def now() -> str:
    """The time, UTC, as ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def peak_memory_mib() -> dict[str, int]:
    """The greatest memory used so far, in MiB: of the process, and of the CUDA device when one was used."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20}
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        peak["device"] = torch.cuda.max_memory_allocated() >> 20
    return peak
