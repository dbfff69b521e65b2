"""Own images in the shards of WebDataset: ``wds:PATTERN``.

PATTERN is one of::

    shards/train-{000..012}.tar      braces count or list ({a,b}); wildcards (* ? []) match what is there
    shards/{split}-*.tar             {split} is train, val (valid, validation, dev) or test; val is optional
    PATH                             a folder: PATH/{split}/*.tar or PATH/{split}-*.tar, else PATH/*.tar

Without splits, a fifth of each class is the test split; without ``val``, it is drawn from ``train``. What a shard holds is told in
:mod:`datasets.tar_images`. In the folder that comes before the first wildcard, ``classnames.txt`` names the classes
(:mod:`datasets.own.labels`) and ``templates.txt`` or ``zeroshot_classification_templates.txt`` has the prompts; so the folders of
``clip-benchmark/wds_*`` on the hub work as they are.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from datasets.own.division import SPLIT_NAMES, split_of
from datasets.own.imagefolder import DEFAULT_TEMPLATES
from datasets.own.labels import named_classes
from datasets.tar_images import read_shards
from datasets.task import Task, read_template_file

TEMPLATE_FILES = ("templates.txt", "zeroshot_classification_templates.txt")
IN_FOLDERS = ("{split}/*.tar", "{split}-*.tar", "{split}.tar", "*.tar")

_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<listed>[^{}]*,[^{}]*))\}")

Shard = tuple[Path, str | None]  # and its split, where it has one


def webdataset_task(where: str, split: str, val_p: float, data_dir: Path) -> Task:
    """See :class:`~datasets.registry.OwnSource`."""
    if re.match(r"(https?|s3|gs|pipe|hdfs):", where):
        raise UserError(f"'wds:{where}' is not on this machine; download the shards and name them by their path.")
    root, shards = find_shards(str(Path(where).expanduser()))
    paths = [path for path, _ in shards]
    samples, texts = read_shards(paths, [path.relative_to(root).with_suffix("").as_posix() for path in paths], data_dir)
    labels, classnames = named_classes(f"'wds:{where}'", texts, None, root / "classnames.txt")
    whole = Task(f"wds:{where}", "all", samples, labels, classnames, _templates(root))
    return split_of(whole, _splits(shards, np.diff(samples.ends, prepend=0)), split, val_p)


def find_shards(pattern: str) -> tuple[Path, list[Shard]]:
    """(folder before the first wildcard, shards in order) of a pattern or a folder."""
    if Path(pattern).is_dir():
        found = next((shards for name in IN_FOLDERS if (shards := _matching(f"{glob.escape(pattern)}/{name}"))), [])
        if not found:
            raise UserError(f"The folder '{pattern}' holds no shards; expected '{pattern}/train/*.tar' or '{pattern}/*.tar'.")
        return Path(pattern), found
    if not (found := _matching(pattern)):
        raise UserError(f"There is no shard '{pattern}'; expected tar files.")
    fixed = re.split(r"[*?\[{]", pattern)[0]
    return Path(fixed).parent if not fixed.endswith("/") else Path(fixed), found


def _matching(pattern: str) -> list[Shard]:
    if "{split}" not in pattern:
        return [(path, None) for path in _expanded(pattern)]
    found: dict[str, list[Path]] = {}
    for name, split in SPLIT_NAMES.items():
        if paths := _expanded(pattern.replace("{split}", name), must_exist=False):
            found.setdefault(split, paths)
    return [(path, split) for split, paths in found.items() for path in paths]


def _expanded(pattern: str, must_exist: bool = True) -> list[Path]:
    """The files that a pattern means, braces before wildcards, as in a shell."""
    if braces := _BRACES.search(pattern):
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        paths = (path for text in _alternatives(braces) for path in _expanded(before + text + after, must_exist))
        return list(dict.fromkeys(paths))  # braces in braces give some twice
    if glob.has_magic(pattern):
        return [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207 (an absolute pattern)
    if must_exist and not Path(pattern).is_file():
        raise UserError(f"The shard '{pattern}' is missing; get it, or name only those that are there.")
    return [Path(pattern)] if Path(pattern).is_file() else []


def _alternatives(braces: re.Match[str]) -> list[str]:
    if braces["listed"] is not None:
        return braces["listed"].split(",")
    width = len(braces["first"]) if braces["first"].startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(braces["first"]), int(braces["last"]) + 1)]


def _splits(shards: list[Shard], sizes: NDArray[np.int64]) -> NDArray[np.object_] | None:
    """The split of every sample; None where the shards are one set."""
    if shards[0][1] is None:
        return None
    return np.repeat(np.array([split for _, split in shards], dtype=object), sizes)


def _templates(root: Path) -> tuple[str, ...]:
    listed = next((root / name for name in TEMPLATE_FILES if (root / name).exists()), None)
    return read_template_file(listed) if listed else DEFAULT_TEMPLATES
