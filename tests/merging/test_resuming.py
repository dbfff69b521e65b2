"""Learning that is stopped goes on to the same bits; a state of other learning is not taken; states go when all is done."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from common.errors import Interrupted, UserError
from engine.signals import STOPPING
from merging import resuming
from merging.data import MergeData
from merging.methods import adamerging, concrete
from merging.options import MergeOptions
from merging.resuming import Batches, StateFile, is_state, states_of
from merging.table import METHODS
from models.tensors import write_safetensors
from tests.merging.small_data import merge_data, moved_models

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
FEW = MergeOptions(mask_steps=4, adapt_steps=4, adapt_lr=0.05, adapt_batch_size=5)
ONE_STAGE = [method.name for method in (*adamerging.METHODS, concrete.METHODS[0])]  # four steps of Adam
TWO_STAGES = [method.name for method in concrete.METHODS[1:]]  # eight, two for each of the mask, and four
CUTS = [*((name, step) for name in ONE_STAGE for step in (1, 3)), *((name, step) for name in TWO_STAGES for step in (1, 6, 10))]


@pytest.fixture
def data(small_model: Path, image_folder: Path, tmp_path: Path) -> MergeData:
    return replace(merge_data(small_model, image_folder), state=StateFile(tmp_path / "merged.state.safetensors"))


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save after every step, as if each took a minute."""
    monkeypatch.setattr(resuming, "SECONDS", 0)
    monkeypatch.setattr(resuming, "SAVE_COST", 0)


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """A function: do something just before the step of Adam with a number, from 1."""
    real = torch.optim.Adam.step

    def install(number: int, happens: Callable[[], None]) -> None:
        steps = [0]

        def step(self: torch.optim.Adam, *args: Any, **kwargs: Any) -> Any:
            steps[0] += 1
            if steps[0] == number:
                happens()
            return real(self, *args, **kwargs)

        monkeypatch.setattr(torch.optim.Adam, "step", step)

    yield install


def merged(method: str, data: MergeData, options: MergeOptions = FEW) -> dict[str, Tensor]:
    pool, start = moved_models(data.encoder), METHODS[method].start_with_data
    assert start is not None
    merge = start(pool, options, data)
    return {name: merge(name) for name in pool.merged}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def kill() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("method", "number"), CUTS)
def test_what_is_cut_off_goes_on_to_the_same_bits(data: MergeData, method: str, number: int, at_step: Any) -> None:
    expected = merged(method, replace(data, state=None))
    at_step(number, kill)
    with pytest.raises(KeyboardInterrupt):
        merged(method, data)
    at_step(0, kill)
    assert_same(merged(method, data), expected)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("mask_type", ["continuous", "discrete"])
def test_masks_that_are_drawn_are_the_same_too(data: MergeData, released: bool, mask_type: Any, at_step: Any) -> None:
    """Of the two steps of Adam that each step of the mask takes, the fourth is in the middle of the second."""
    options = replace(FEW, as_released=released, mask_type=mask_type)
    expected = merged("concrete_layer_wise_adamerging", replace(data, state=None), options)
    at_step(4, kill)
    with pytest.raises(KeyboardInterrupt):
        merged("concrete_layer_wise_adamerging", data, options)
    at_step(0, kill)
    assert_same(merged("concrete_layer_wise_adamerging", data, options), expected)


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_saves_the_state_and_says_how_to_go_on(data: MergeData, number: signal.Signals, at_step: Any, monkeypatch: Any) -> None:
    expected, state = merged("task_wise_adamerging", replace(data, state=None)), data.state
    assert state is not None
    monkeypatch.setattr(resuming, "SECONDS", 1e9)
    at_step(2, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match=f"Stopped by {number.name} in step 2; the same command goes on from '{state.path}'"):
        merged("task_wise_adamerging", data)
    at_step(3, kill)  # there are but two more
    assert_same(merged("task_wise_adamerging", data), expected)


def test_finished_learning_is_not_done_again(data: MergeData, at_step: Any, capsys: pytest.CaptureFixture[str]) -> None:
    first = merged("concrete_task_wise_adamerging", data)
    at_step(1, kill)
    assert_same(merged("concrete_task_wise_adamerging", data), first)
    assert "Going on after step 4 from " in capsys.readouterr().out


def test_a_plateau_ends_resumed_learning_where_it_ends_the_other(data: MergeData, at_step: Any) -> None:
    options = replace(FEW, adapt_steps=40, adapt_lr=1e-9, plateau=2)
    expected = merged("task_wise_adamerging", replace(data, state=None), options)
    at_step(3, kill)
    with pytest.raises(KeyboardInterrupt):
        merged("task_wise_adamerging", data, options)
    at_step(0, kill)
    assert_same(merged("task_wise_adamerging", data, options), expected)


def test_unreadable_images_do_not_shift_the_batches(small_model: Path, image_folder: Path, tmp_path: Path, at_step: Any) -> None:
    """With one image in each batch, an unreadable one gives no batch at all."""
    shutil.copytree(image_folder, tmp_path / "images")
    next((tmp_path / "images" / "test").glob("*/*.png")).write_bytes(b"no image")
    lenient = merge_data(small_model, tmp_path / "images")
    lenient = replace(lenient, load=replace(lenient.load, max_skipped=1))
    options = replace(FEW, adapt_steps=20, adapt_batch_size=1)
    expected = merged("task_wise_adamerging", lenient, options)
    again = replace(lenient, state=StateFile(tmp_path / "merged.state.safetensors"), passed={})
    at_step(16, kill)
    with pytest.raises(KeyboardInterrupt):
        merged("task_wise_adamerging", again, options)
    at_step(0, kill)
    assert_same(merged("task_wise_adamerging", again, options), expected)


OTHERS: dict[str, tuple[Callable[[MergeData], MergeData], MergeOptions, str]] = {
    "rate": (lambda data: data, replace(FEW, adapt_lr=0.5), "adapt_lr = 0.05, not 0.5"),
    "steps": (lambda data: data, replace(FEW, adapt_steps=9), "adapt_steps = 4, not 9"),
    "seed": (lambda data: replace(data, seed=1), FEW, "the order of images = 0, not 1"),
    "images": (lambda data: replace(data, tasks=dict.fromkeys(data.tasks, data.task("first").subset([0, 1]))), FEW, "the images of first"),
    "heads": (lambda data: replace(data, heads={name: 2 * data.heads[name] for name in data.tasks}), FEW, "the heads"),
    "precision": (lambda data: replace(data, runtime=replace(data.runtime, precision="bf16")), FEW, "precision = fp32, not bf16"),
}


@pytest.mark.parametrize("how", OTHERS)
def test_a_state_of_other_learning_is_told(data: MergeData, how: str) -> None:
    change, options, words = OTHERS[how]
    merged("task_wise_adamerging", data)
    with pytest.raises(UserError, match=rf"merged.state.safetensors' belongs to a run with {words}.* start anew with --overwrite"):
        merged("task_wise_adamerging", change(data), options)


def test_a_state_of_other_models_and_of_another_method_is_told(data: MergeData) -> None:
    merged("task_wise_adamerging", data)
    with pytest.raises(UserError, match="belongs to a run with method = task_wise_adamerging, not layer_wise"):
        merged("layer_wise_adamerging", data)
    pool, start = moved_models(data.encoder, size=0.2), METHODS["task_wise_adamerging"].start_with_data
    assert start is not None
    with pytest.raises(UserError, match="belongs to a run with the weights of first = "):
        start(pool, FEW, data)


def test_with_overwrite_learning_goes_on_or_starts_anew(data: MergeData, at_step: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert data.state is not None
    data = replace(data, state=replace(data.state, overwrite=True))
    expected = merged("task_wise_adamerging", replace(data, state=None), replace(FEW, adapt_lr=0.01))
    first = merged("task_wise_adamerging", data)
    assert_same(merged("task_wise_adamerging", data, replace(FEW, adapt_lr=0.01)), expected)
    assert "is the state of another run; it is replaced" in capsys.readouterr().out
    at_step(1, kill)
    assert_same(merged("task_wise_adamerging", data, replace(FEW, adapt_lr=0.01)), expected)
    assert not torch.equal(first["visual.conv1.weight"], expected["visual.conv1.weight"])


def test_a_file_that_is_no_state_is_told_and_kept(data: MergeData) -> None:
    assert data.state is not None
    write_safetensors(data.state.path, {"a": torch.zeros(2)})
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"is not the state of a training run .* delete it"):
            merged("task_wise_adamerging", replace(data, state=replace(data.state, overwrite=overwrite)))
    data.state.remove()
    assert data.state.path.exists()
    data.state.path.write_bytes(data.state.path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated or damaged"):
        merged("task_wise_adamerging", data)


def test_learning_that_diverges_leaves_no_state(data: MergeData) -> None:
    assert data.state is not None
    with pytest.raises(UserError, match="not finite in step 2"):
        merged("task_wise_adamerging", data, replace(FEW, adapt_lr=1e30))
    assert not data.state.path.exists()


def test_states_of_all_stages_are_removed_with_what_a_kill_left(data: MergeData, tmp_path: Path) -> None:
    assert data.state is not None
    merged("concrete_task_wise_adamerging", data)
    (tmp_path / ".merged.state.safetensors.abc_0123.tmp").mkdir()
    (tmp_path / ".merged.safetensors.other.tmp").mkdir()
    assert all(is_state(tmp_path / name) for name in ("merged.state.safetensors", "merged.mask.state.safetensors"))
    data.state.remove()
    data.state.remove()
    assert [path.name for path in tmp_path.iterdir()] == [".merged.safetensors.other.tmp"]


def test_what_is_kept_of_learning_may_be_there_when_it_goes_on(data: MergeData, tmp_path: Path) -> None:
    options = replace(FEW, save_weights=str(tmp_path / "learnt.safetensors"))
    first = merged("task_wise_adamerging", data, options)
    content = (tmp_path / "learnt.safetensors").read_bytes()
    assert_same(merged("task_wise_adamerging", data, options), first)  # stopped between that file and the merge
    assert (tmp_path / "learnt.safetensors").read_bytes() == content
    assert data.state is not None
    data.state.remove()
    with pytest.raises(UserError, match="exists; name another file"):
        merged("task_wise_adamerging", data, options)


def arguments(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"out": None, "report": None, "sweep": [], "overwrite": False, **values})


def test_states_lie_beside_what_is_written() -> None:
    method, options = METHODS["layer_wise_adamerging"], MergeOptions()

    def names(options: MergeOptions = options, **values: object) -> list[str]:
        return [str(state.path) for state in states_of(arguments(**values), method, options).values()]

    assert names(out=Path("a/merged.safetensors"), report=Path("r.json")) == ["a/merged.state.safetensors"]
    assert names(out=Path("a/vit-b.32")) == ["a/vit-b.32.state.safetensors"]
    assert names(report=Path("r.json")) == ["r.state.safetensors"]
    assert names(replace(options, save_weights="w.safetensors"), report=Path("r.json")) == ["w.state.safetensors"]
    assert names(replace(options, weights_file="w.safetensors"), report=Path("r.json")) == []
    assert names() == []
    swept = names(out=Path("best.safetensors"), sweep=["adapt_lr=0.1,0.01"])
    assert swept == ["best.adapt-lr-0.1.state.safetensors", "best.adapt-lr-0.01.state.safetensors"]
    for other in ("ties", "fisher", "wemoe"):
        assert states_of(arguments(out=Path("x.safetensors")), METHODS[other], options) == {}


def test_rows_of_batches_can_be_put_where_they_were(small_model: Path, image_folder: Path) -> None:
    def rows() -> Batches:
        return Batches(merge_data(small_model, image_folder), ["first", "second"], 5)

    one, other = rows(), rows()
    for _ in range(4):  # three batches are an epoch
        one.next("first")
    one.next("second")
    assert one.positions() == {"first": 4, "second": 1}
    other.put(one.positions())
    assert other.positions() == one.positions()
    for model in one.models:
        assert torch.equal(one.next(model), other.next(model))
