"""What the cells of merging do, with the functions that merge.py calls too."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.files import ensure_folder, read_json
from merging.bench import Bench
from merging.data import TOWER, LazyHeads, MergeData
from merging.data_arguments import EXAMPLES
from merging.data_command import Started, encoder_pool, is_transductive, record_of_images
from merging.evaluate import Scores, tower_names
from merging.inputs import Inputs, open_inputs
from merging.merge import checksums, merge, record_of
from merging.method import Method
from merging.options import MergeOptions
from merging.sources import open_weights
from merging.table import METHODS
from merging.weights import TensorWeights, Weights
from merging.wemoe.merge import merge_routed
from merging.wemoe.method import options_for
from models.encoder import Encoder
from models.tensors import read_safetensors
from study.cells import Cell, Unit, hash_of, short
from study.done import Done
from study.materials import Materials
from study.merging_cells import merge_of
from study.merging_inputs import images_of, source_of
from study.plan_merging import clean
from study.plan_merging_methods import merge_options
from study.quiet import quiet

PRODUCTS = Path("merges")  # below the study's folder
LEARNT = "learnt.safetensors"  # beside a merge: the coefficients, and masks, that it merges by


def merge_models(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """Merge, into a folder of these inputs. Learning that was killed goes on from its state there, any other merge begins anew."""
    began, method, folder = time.perf_counter(), METHODS[cell.key["merge"]["method"]], _folder(cell, materials, inputs)
    tasks = cell.key["merge"]["tasks"]
    models = [f"{name}={source_of(cell.key['model'], task, unit, materials)}" for name, task in _named(tasks).items()]
    opened, options = open_inputs(cell.key["model"], models), _options(cell, method, materials, folder)
    data = _data(cell, materials) if images_of(cell) else None
    if data is not None:
        opened = replace(opened, images=record_of_images(data, method))
    results: dict[str, Any] = {"transductive": data is not None and is_transductive(data, method), "data": method.data}
    if method.routed:
        assert data is not None
        results |= _routed(opened, method, options, data, folder)
        materials.drop_encoder()  # which is the routed one now
    else:
        results |= _merged(cell, opened, method, options, data, folder, materials)
    results = {**_below(results, materials.out), "seconds": round(time.perf_counter() - began, 3)}
    return Done(results, _told(results), seed=cell.key["seed"])


def _named(tasks: list[str]) -> dict[str, str]:
    """{name of a task's model in the merge, which becomes that of a file: the task}."""
    names = [short(task) for task in tasks]
    unique = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]
    return dict(zip(unique, tasks, strict=True))


def _folder(cell: Cell, materials: Materials, inputs: Mapping[str, Any]) -> Path:
    """Its folder is of these inputs and this precision, so what is gone on with is never another merge."""
    mark = hash_of({**inputs, "precision": materials.runtime.precision})[:8]
    return ensure_folder(materials.out / PRODUCTS / f"{cell.name}-{mark}")


def _options(cell: Cell, method: Method, materials: Materials, folder: Path) -> MergeOptions:
    """Those of the cell; those of the run where the method reads them."""
    of_run = {"seed": cell.key["seed"], "device": materials.runtime.device.type, "save_weights": str(folder / LEARNT)}
    return merge_options(cell.key["merge"]["options"], **{name: value for name, value in of_run.items() if name in method.reads})


def _data(cell: Cell, materials: Materials) -> MergeData:
    """The encoder and the images that the method looks at, by the names of the models."""
    images = images_of(cell)
    tasks = {name: materials.task(*images[task]) for name, task in _named(cell.key["merge"]["tasks"]).items()}
    encoder = materials.selection(cell.key["model"]).encoder
    examples, load = cell.key["merge"]["options"].get("examples", EXAMPLES), materials.load_options(next(iter(tasks.values())))
    heads = LazyHeads(encoder, tasks, materials.out / "heads")
    return MergeData(quiet(materials.runtime), encoder, tasks, heads, load, examples=examples, seed=cell.key["seed"])


def _merged(
    cell: Cell, inputs: Inputs, method: Method, options: MergeOptions, data: MergeData | None, folder: Path, materials: Materials
) -> dict[str, Any]:
    """Write the merged encoder, or that of each task."""
    tasks, per_model = cell.key["merge"]["tasks"], cell.key["merge"].get("per_model", False)
    (folder / LEARNT).unlink(missing_ok=True)  # of a merge that was killed before it was written
    args = argparse.Namespace(out=folder / "merged.safetensors", report=None, sweep=[], overwrite=True, only=[], towers=None)
    started = Started(args, inputs, method, options, data) if data is not None else None
    starting = replace(method, start=started.start) if started else method
    written = merge(inputs, starting, options, folder if per_model else args.out, per_model=per_model, overwrite=True)
    for state in started.states.values() if started else ():
        state.remove()
    where = {"files": dict(zip(tasks, written.paths, strict=True))} if per_model else {"file": written.paths[0]}
    parameters = _bench(materials.selection(cell.key["model"]).encoder, materials).parameters
    return {**where, "parameters": parameters, "learnt": _learnt(folder / LEARNT, tasks)}


def _learnt(path: Path, tasks: list[str]) -> dict[str, Any]:
    """The mean coefficient of each task over all tensors, and the first and the last entropy; nothing of a method that learns nothing."""
    if not path.exists():
        return {}
    tensors, described = read_safetensors(path)
    means = tensors["coefficients"].mean(dim=1).tolist()
    return {"coefficients": dict(zip(tasks, means, strict=True)), "entropies": json.loads(described["entropies"])}


def _routed(inputs: Inputs, method: Method, options: MergeOptions, data: MergeData, folder: Path) -> dict[str, Any]:
    """Write the routed encoder."""
    args = argparse.Namespace(only=[], towers=None)
    pool, out = encoder_pool(args, inputs, method.name), folder / "merged.safetensors"
    record = record_of(inputs, method, options, False, checksums(inputs))
    routed, entropies = merge_routed(pool, data, options_for(method.name, options), out, record=record, overwrite=True)
    parameters = sum(tensor.numel() for name, tensor in routed.encoder.model.state_dict().items() if name.startswith(TOWER))
    return {"file": out, "parameters": parameters, "learnt": {"entropies": [*entropies[:1], *entropies[-1:]]}}


def _below(results: dict[str, Any], out: Path) -> dict[str, Any]:
    """The results with paths as the study's folder has them, and so in JSON's types."""
    if "file" in results:
        return {**results, "file": results["file"].relative_to(out).as_posix()}
    return {**results, "files": {task: path.relative_to(out).as_posix() for task, path in results["files"].items()}}


def _told(results: Mapping[str, Any]) -> str:
    written = f"{len(results['files'])} encoders" if "files" in results else "1 encoder"
    coefficients = results["learnt"].get("coefficients", {})
    return ", ".join([written, *(f"{short(task)} {value:.3f}" for task, value in coefficients.items())])


def merged_test(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """The merged encoder, or that of the task, on the test images."""
    results, model = read_json(merge_of(unit, cell).path(materials.out))["results"], cell.key["model"]
    file = materials.out / (results["files"][clean(cell.key["eval_task"])] if "files" in results else results["file"])
    if METHODS[cell.key["merge"]["method"]].routed:
        return _test(cell, materials, materials.selection(model, file).encoder, TensorWeights(cell.key["merge"]["label"], {}))
    return _test_file(cell, materials, str(file))


def single_test(cell: Cell, unit: Unit, materials: Materials, inputs: Mapping[str, Any]) -> Done:
    """The fine-tuned model of one task on the test images of any."""
    return _test_file(cell, materials, source_of(cell.key["model"], cell.key["fine_tune"], unit, materials))


def _test_file(cell: Cell, materials: Materials, source: str) -> Done:
    """The base with the image tower of ``source``."""
    encoder = materials.selection(cell.key["model"]).encoder
    (weights,) = _bench(encoder, materials).place.put([open_weights(source, materials.base(cell.key["model"]))])
    return _test(cell, materials, encoder, weights)


def _test(cell: Cell, materials: Materials, encoder: Encoder, weights: Weights) -> Done:
    """``encoder`` with these of its tensors replaced."""
    task, began = materials.task(cell.key["eval_task"], "test"), time.perf_counter()
    load = materials.load_options(task)
    bench = replace(_bench(encoder, materials), tasks={task.name: task}, options=load)
    (scores,) = bench.on_task(task.name, [weights])
    results = {**_results(scores), "seconds": round(time.perf_counter() - began, 3)}
    return Done(results, f"top-1 {scores.accuracy:.3f} of {scores.total} images", scores.total, load.batch_size, cell.key.get("seed", 0))


def _results(scores: Scores) -> dict[str, Any]:
    return {
        "n_images": scores.total,
        "n_correct": scores.correct,
        "top1": scores.accuracy,
        "loss": scores.loss,
        "n_skipped": len(scores.skipped),
    }


def _bench(encoder: Encoder, materials: Materials) -> Bench:
    """Where encoders are tested: without tasks yet, one encoder at a time."""
    runtime = quiet(materials.runtime)
    encoder.to(runtime.device)
    return Bench(runtime, encoder, {}, materials.heads(encoder), materials.load, tower_names(encoder), resident=1)
