"""Training of routers on drawn tasks without labels: lower entropy, the same again, and on from where it stopped."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from common.errors import UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.evaluate import evaluate as evaluate_one
from engine.runtime import start
from merging import resuming
from merging.data import LazyHeads, MergeData
from merging.evaluate import evaluate
from merging.heads import zero_shot_head
from merging.weights import TensorWeights
from merging.wemoe.merge import merge_routed
from merging.wemoe.mlp import routers_of
from merging.wemoe.options import WemoeOptions
from models.checkpoint import read_header
from models.loading import load_encoder
from models.tensors import read_safetensors
from tests.merging.wemoe.small import pool_of

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
STEPS = 5


@pytest.fixture(scope="module")
def tasks():
    drawn = {"task0": "Shapes-Color", "task1": "Shapes-Kind"}
    return {model: load_task(name, "test").subset(np.arange(40)) for model, name in drawn.items()}


def run(tasks, out, model, **options):
    """Merge two noisy copies of a model; the routed encoder and the entropies."""
    encoder = load_encoder(str(model))
    pool = pool_of(encoder, 2, size=0.02)
    data = MergeData(start("cpu", "fp32"), encoder, tasks, LazyHeads(encoder, tasks), LoadOptions(num_workers=0))
    chosen = WemoeOptions(**{"adapt_steps": STEPS, "adapt_batch_size": 8, "adapt_lr": 1e-2, **options})
    return merge_routed(pool, data, chosen, out)


def trained(routed):
    return parameters_to_vector(routers_of(routed.encoder).values()).detach()


def test_the_entropy_falls(tasks, tmp_path):
    few = {model: task.subset(np.arange(12)) for model, task in tasks.items()}
    _, entropies = run(few, tmp_path / "routed.safetensors", "tiny", adapt_steps=4, adapt_batch_size=12)
    assert len(entropies) == 4
    assert entropies[3] < entropies[0] - 0.02


def test_only_the_routers_change(tasks, tmp_path, small_model):
    trained, untrained = (run(tasks, tmp_path / f"{steps}.safetensors", small_model, adapt_steps=steps)[0] for steps in (2, 0))
    own, other = trained.encoder.model.state_dict(), untrained.encoder.model.state_dict()
    assert {name for name in own if not torch.equal(own[name], other[name])} == set(routers_of(trained.encoder))


def test_the_same_again_is_the_same(tasks, tmp_path, small_model):
    (one, losses), (same, again) = (run(tasks, tmp_path / f"{number}.safetensors", small_model) for number in range(2))
    assert losses == again
    assert torch.equal(trained(one), trained(same))
    assert not torch.equal(trained(one), trained(run(tasks, tmp_path / "other.safetensors", small_model, seed=1)[0]))


def test_a_run_that_was_stopped_goes_on(tasks, tmp_path, small_model, monkeypatch):
    whole, losses = run(tasks, tmp_path / "whole.safetensors", small_model)
    monkeypatch.setattr(resuming, "SECONDS", 0)
    monkeypatch.setattr(resuming, "SAVE_COST", 0)
    step, calls = torch.optim.Adam.step, []

    def stopping(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    out = tmp_path / "routed.safetensors"
    monkeypatch.setattr(torch.optim.Adam, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tasks, out, small_model)
    assert [path.name for path in sorted(tmp_path.glob("routed*"))] == ["routed.state.safetensors"]
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(UserError, match="a run with adapt_lr"):
        run(tasks, out, small_model, adapt_lr=0.5)
    resumed, again = run(tasks, out, small_model)
    assert again == losses
    assert torch.equal(trained(resumed), trained(whole))
    assert [path.name for path in tmp_path.glob("routed*")] == ["routed.safetensors"]


def test_trained_routers_are_pruned_once(tasks, tmp_path, small_model):
    dense, _ = run(tasks, tmp_path / "dense.safetensors", small_model, shared_gate=True)
    routed, _ = run(tasks, tmp_path / "pruned.safetensors", small_model, shared_gate=True, gate_prune_ratio=0.5)
    kept = trained(routed) != 0
    assert kept.float().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(trained(routed)[kept], trained(dense)[kept])
    stored, _ = read_safetensors(tmp_path / "pruned.safetensors")
    assert sum(int(tensor.count_nonzero()) for name, tensor in stored.items() if name.startswith("router/")) == int(kept.sum())


def test_the_header_says_that_test_images_were_used(tasks, tmp_path, small_model):
    run(tasks, tmp_path / "routed.safetensors", small_model)
    settings = read_header(tmp_path / "routed.safetensors").settings
    assert settings["transductive"] is True
    assert settings["images"]["task1"]["task"] == "Shapes-Kind"
    assert settings["adapt_steps"] == STEPS


def test_it_is_evaluated_like_any_encoder(tasks, tmp_path, small_model):
    routed, _ = run(tasks, tmp_path / "routed.safetensors", small_model)
    task, load = tasks["task0"], LoadOptions(batch_size=16, num_workers=0)
    scores = evaluate(
        start("cpu", "fp32"), routed.encoder, [TensorWeights("wemoe", {})], (), task, zero_shot_head(routed.encoder, task), load
    )
    assert scores[0].accuracy == evaluate_one(start("cpu", "fp32"), routed.encoder, task, load).top1


def test_what_is_there_is_kept(tasks, tmp_path, small_model):
    out = tmp_path / "routed.safetensors"
    out.write_bytes(b"earlier")
    with pytest.raises(UserError, match="--overwrite replaces it"):
        run(tasks, out, small_model)
    with pytest.raises(UserError, match=r"does not end in \.safetensors"):
        run(tasks, tmp_path / "folder", small_model)
    assert out.read_bytes() == b"earlier"


def test_a_model_without_a_task_is_told(tasks, tmp_path, small_model):
    with pytest.raises(UserError, match="No task is known for the model 'task1'"):
        run({"task0": tasks["task0"]}, tmp_path / "routed.safetensors", small_model)


def test_weights_that_diverge_are_told(tasks, tmp_path, small_model):
    with pytest.raises(UserError, match="not finite"):
        run(tasks, tmp_path / "routed.safetensors", small_model, adapt_lr=1e30)
