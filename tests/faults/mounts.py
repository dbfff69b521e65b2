"""File systems that only this process sees: a small disk, or one that is read-only. For root on Linux."""

from __future__ import annotations

import ctypes
import os
import signal
from functools import cache
from pathlib import Path

NEW_NAMESPACE, READ_ONLY, RECURSIVE, PRIVATE = 0x00020000, 1, 1 << 14, 1 << 18  # linux/sched.h, linux/mount.h


def mount(folder: Path, *, size: int | None = None) -> None:
    """Put an empty tmpfs over ``folder`` for this process alone: of ``size`` bytes, or read-only. OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir(parents=True, exist_ok=True)
    flags, options = (READ_ONLY, b"") if size is None else (0, f"size={size}".encode())
    for failed in (
        lambda: libc.unshare(NEW_NAMESPACE),
        lambda: libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None),
        lambda: libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, options),
    ):
        if failed():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def can_mount(folder: Path) -> bool:
    """Whether a process forked from this one may do so."""
    child = os.fork()
    if child == 0:
        try:
            mount(folder, size=1 << 16)
        except (OSError, AttributeError):
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
