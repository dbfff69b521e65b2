"""A run over one data set: which results are there, which are wanting, and the making of these."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from tqdm import tqdm

from common import stages
from common.errors import UserError
from common.files import write_json
from common.stages import staged
from datasets.task import Task
from fewshot.cells import Cell, Cells, Request, Target, result_of
from fewshot.data import FewShotData
from fewshot.features import Towers
from fewshot.material import Material
from fewshot.method import Fitted, ImageData
from fewshot.protocol import Splits, draw_all
from fewshot.results import Result, finished
from fewshot.robustness import class_columns


def run_data_set(towers: Towers, splits: Splits, request: Request, others: Sequence[Task] = ()) -> list[Result]:
    """The results of ``request`` for one data set, tested on its own test images and on ``others``; what is done is read.

    Features are made by all processes together, classifiers are divided among them. Each result is on disk as soon as it is known.
    """
    draws = [draw for seed in request.seeds for draw in draw_all(splits, request.shots, seed, request.order, request.val_shots)]
    targets = [Target(task, class_columns(splits.test, task)) for task in (splits.test, *others)]
    cells = list(Cells(towers, splits, request).all(draws, targets))
    wanting = _wanting(towers, cells)
    if told := _told_of_small_classes(splits.train, max(request.shots)):
        towers.runtime.say(told)
    towers.runtime.say(f"{splits.test.name}: {len(cells)} results, {len(cells) - len(wanting)} of them done before")
    if wanting:
        material = Material(towers, splits, draws, request.views)
        material.prepare([cell.draw for cell in wanting if cell.draw is not None])
        _Making(towers, splits, request, material, others).make(wanting)
        towers.runtime.gather_objects([None])  # wait for the other processes' files
    return [_read(cell) for cell in cells]


def _told_of_small_classes(train: Task, shots: int) -> str:
    """A sentence where classes have fewer training images than shots; empty where none has."""
    counts = np.bincount(train.labels, minlength=len(train.classnames))
    small = int((counts < shots).sum())
    if not small:
        return ""
    return f"{train.name}: {small} of {len(counts)} classes have fewer than {shots} training images and give all of them"


def _wanting(towers: Towers, cells: Sequence[Cell]) -> list[Cell]:
    """The cells without a result, as the main process sees it, so that all processes do the same."""
    names = {cell.path.name for cell in cells if finished(cell.path, cell.inputs) is None}
    names = towers.runtime.gather_objects([names])[0]
    return [cell for cell in cells if cell.path.name in names]


class _Making:
    """Classifiers are made and tested here, once the features that they need are there."""

    def __init__(self, towers: Towers, splits: Splits, request: Request, material: Material, others: Sequence[Task]) -> None:
        self.towers, self.splits, self.request, self.material = towers, splits, request, material
        self.others = {task.name: task for task in others}
        self.features = {splits.test.name: material.test} | {name: towers.features(task)[0] for name, task in self.others.items()}

    def make(self, wanting: Sequence[Cell]) -> None:
        """This process's share of the classifiers; one that is tested on several sets is made once."""
        runtime, name = self.towers.runtime, self.splits.test.name
        classifiers = [list(group) for _, group in groupby(wanting, lambda cell: [cell.inputs[key] for key in ("method", "shots", "seed")])]
        mine = classifiers[runtime.rank :: runtime.world]
        for cells in tqdm(mine, desc=name, disable=not (self.towers.load.progress and runtime.is_main), leave=False):
            data = self.material.data(cells[0].draw)
            started = time.perf_counter()
            fitted = self._fit(cells[0], data)
            seconds = time.perf_counter() - started
            stages.count("results made", len(cells))
            for cell in cells:
                test = self.features[cell.target.task.name]
                write_json(cell.path, result_of(cell, self.request, self.towers, data, fitted, test, seconds))

    @staged("fit and search")
    def _fit(self, cell: Cell, data: FewShotData) -> Fitted:
        method, draw = cell.method, cell.draw
        options = replace(self.request.options, seed=draw.seed if draw else 0, device=str(self.towers.runtime.device))
        if method.fit_with_images is None or draw is None:
            return method.fit(data, options)
        train, val = self.splits.train.subset(draw.cache), self.splits.split(draw.val_split).subset(draw.val)
        tasks = {"train": train, "val": val, "test": self.splits.test} | self.others
        others = {name: self.features[name] for name in self.others}
        images = ImageData(self.towers.runtime, self.towers.selection, tasks, self.towers.load, data, others)
        return method.fit_with_images(images, options)


def _read(cell: Cell) -> Result:
    result = finished(cell.path, cell.inputs)
    if result is None:
        raise UserError(f"'{cell.path}' was written by this run and is not there any more; run again.")
    return result
