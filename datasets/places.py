"""Where the files of a data set lie below ``--data-dir``, and what is said when they do not."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError


def find(name: str, data_dir: Path, *candidates: str) -> Path:
    """The first of ``candidates`` (paths relative to ``data_dir``) that exists; a :class:`UserError` when none does."""
    for candidate in candidates:
        if (path := data_dir.expanduser() / candidate).exists():
            return path
    raise missing(name, data_dir, candidates[0])


def missing(name: str, data_dir: Path, wanted: str) -> UserError:
    """The error for a data set whose file or folder ``wanted`` is not below ``data_dir``: names the command that helps."""
    from datasets.downloads.manifest import got_by_hand

    script, there = "python download_datasets.py", f"{name} --data-dir {data_dir}"
    help_ = f"see '{script} --list {there}'" if got_by_hand(name, wanted) else f"get it with '{script} --datasets {there}'"
    return UserError(f"{name} is not in '{data_dir}' ('{data_dir / wanted}' is missing); {help_}.")
