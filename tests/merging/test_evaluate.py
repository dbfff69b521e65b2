"""Evaluation of many encoders against one at a time, a loop over images and the engine's own; heads against a loop over prompts."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from datasets.registry import load_task
from engine.embed import LoadOptions
from engine.evaluate import evaluate as evaluate_one
from engine.runtime import start
from merging import evaluate as module
from merging.evaluate import as_encoder_names, evaluate, held, scaled, tower_names
from merging.heads import Heads, zero_shot_head
from merging.weights import TensorWeights
from models.loading import load_encoder
from tests.helpers import write_images, write_model

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
TEMPLATES = ("a photo of a {c}.", "a drawing of something {c}", "{c}")
OPTIONS = LoadOptions(batch_size=4, num_workers=0)


@pytest.fixture(scope="module")
def encoder(small_model):
    return load_encoder(str(small_model))


@pytest.fixture(scope="module")
def task(image_folder):
    return load_task(f"imagefolder:{image_folder}", "test", templates=TEMPLATES)


def moved(encoder, seed, *, both=False, size=0.3):
    """A model with other weights than the encoder."""
    generator = torch.Generator().manual_seed(seed)
    own = encoder.model.state_dict()
    tensors = {name: own[name] + size * torch.randn(own[name].shape, generator=generator) for name in tower_names(encoder, both=both)}
    return TensorWeights(f"model-{seed}", {name: tensor for name, tensor in tensors.items() if name != "logit_scale"})


def run(encoder, models, task, options=OPTIONS, both=False):
    return evaluate(start("cpu"), encoder, models, tower_names(encoder, both=both), task, zero_shot_head(encoder, task), options)


@torch.no_grad()
def answers_by_loop(encoder, model, task):
    """Class and loss of every image, image by image and prompt by prompt, with the model's weights copied into the encoder."""
    copy = load_encoder(encoder.source.name)
    copy.model.load_state_dict({**copy.model.state_dict(), **model.tensors})
    head = []
    for name in task.classnames:
        each = [copy.text_tower.encode(copy.tokenize([template.replace("{c}", name)]))[0] for template in task.templates]
        mean = torch.stack([vector / vector.norm() for vector in each]).mean(dim=0)
        head.append(mean / mean.norm())
    found = []
    for index, label in enumerate(task.labels.tolist()):
        features = copy.model.visual(copy.preprocess(task.samples.image(index))[None])[0]
        logits = copy.logit_scale.exp() * torch.stack(head) @ (features / features.norm())
        found.append((int(logits.argmax()), float(-F.log_softmax(logits, dim=0)[label])))
    return found


def test_a_head_is_the_normalised_mean_of_unit_prompts(encoder, task):
    head = zero_shot_head(encoder, task)
    for row, name in zip(head, task.classnames, strict=True):
        each = [encoder.text_tower.encode(encoder.tokenize([template.replace("{c}", name)]))[0] for template in TEMPLATES]
        mean = torch.stack([vector / vector.norm() for vector in each]).mean(dim=0)
        assert torch.allclose(row, mean / mean.norm(), atol=1e-6)


@pytest.mark.parametrize("both", [False, True])
def test_models_in_one_pass_are_a_loop_over_images(encoder, task, both):
    models = [moved(encoder, seed, both=both) for seed in range(3)]
    results = run(encoder, models, task, both=both)
    for model, result in zip(models, results, strict=True):
        expected = answers_by_loop(encoder, model, task)
        assert result.total == len(task) == 12
        assert result.correct == sum(answer == label for (answer, _), label in zip(expected, task.labels.tolist(), strict=True))
        assert result.loss == pytest.approx(sum(loss for _, loss in expected) / 12, rel=1e-5)
    assert len({result.loss for result in results}) == 3


def test_many_models_in_one_pass_are_as_many_passes(encoder, task, monkeypatch):
    models = [moved(encoder, seed) for seed in range(4)]
    alone = [run(encoder, [model], task)[0] for model in models]
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", 8)  # so that models are swapped in the middle of the task
    together = run(encoder, models, task)
    assert [(one.correct, one.loss, one.batch_loss) for one in together] == [(one.correct, one.loss, one.batch_loss) for one in alone]


def test_images_are_read_once_whatever_the_number_of_models(encoder, task, monkeypatch):
    read = []
    monkeypatch.setattr(module, "batches_of", lambda *args: (read.append(batch) or batch for batch in original(*args)))
    run(encoder, [moved(encoder, seed) for seed in range(3)], task)
    assert sum(map(len, read)) == 12


original = module.batches_of


def test_the_encoder_itself_gets_the_engines_accuracy_and_keeps_its_weights(encoder, task):
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    names = tower_names(encoder)
    own = held(TensorWeights("own", before), names, torch.device("cpu"))
    result, _ = run(encoder, [own, moved(encoder, 5)], task)
    engine = evaluate_one(start("cpu"), encoder, task, OPTIONS)
    assert result.accuracy == engine.top1
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.model.state_dict().items())


def test_losses_over_images_and_over_the_released_batches(encoder, task, monkeypatch):
    model = moved(encoder, 1)
    losses = [loss for _, loss in answers_by_loop(encoder, model, task)]
    monkeypatch.setattr(module, "RELEASED_BATCH", 5)  # batches of 5, 5 and 2
    (result,) = run(encoder, [model], task)
    batches = [losses[:5], losses[5:10], losses[10:]]
    assert result.batch_loss == pytest.approx(sum(sum(batch) / len(batch) for batch in batches) / 3, rel=1e-5)
    assert result.loss == pytest.approx(sum(losses) / 12, rel=1e-5)
    assert abs(result.loss - result.batch_loss) > 1e-3


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (5, 1), (64, 0)])
def test_batches_and_workers_change_nothing(encoder, task, batch_size, num_workers):
    models = [moved(encoder, seed) for seed in range(2)]
    expected = run(encoder, models, task)
    for one, other in zip(run(encoder, models, task, LoadOptions(batch_size, num_workers)), expected, strict=True):
        assert (one.correct, one.total) == (other.correct, other.total)
        assert one.loss == pytest.approx(other.loss, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_is_the_merges_own_arithmetic(encoder, dtype):
    base = TensorWeights("base", {"w": torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).to(dtype)})
    tau = TensorWeights("tau", {"w": torch.randn(7, 5, generator=torch.Generator().manual_seed(1))})
    model = scaled("0.3", base, tau, 0.3)
    expected = base.tensors["w"].to(torch.float32, copy=True).add_(tau.tensors["w"], alpha=0.3).to(dtype)
    assert torch.equal(model.read("w"), expected)
    assert torch.equal(model.read("w", slice(3, 20)), expected.reshape(-1)[3:20])


def test_a_head_is_kept_and_read_again(encoder, task, tmp_path, monkeypatch):
    first = Heads(encoder, tmp_path).of(task)
    (path,) = tmp_path.rglob("*.safetensors")
    monkeypatch.setattr("merging.heads.zero_shot_head", lambda *args: pytest.fail("it was there"))
    assert torch.equal(Heads(encoder, tmp_path).of(task), first)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    monkeypatch.undo()
    assert torch.equal(Heads(encoder, tmp_path).of(task), first)  # a damaged one is made anew


def other_weights(encoder, task):
    model = load_encoder(encoder.source.name)
    model.model.token_embedding.weight.data[5] += 1
    return model, task


def other_activation(encoder, task):
    model = load_encoder(encoder.source.name)
    model.model.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()
    return model, task


def other_tokenizer(encoder, task):
    model = load_encoder(encoder.source.name)
    tokenize = model._tokenizer
    model._tokenizer = lambda prompts: tokenize([prompt.upper() + "!" for prompt in prompts])
    return model, task


def other_names(encoder, task):
    return encoder, replace(task, classnames=(*task.classnames[:-1], "purple"))


def other_templates(encoder, task):
    return encoder, replace(task, templates=task.templates[::-1][:2])


@pytest.mark.parametrize("change", [other_weights, other_activation, other_tokenizer, other_names, other_templates])
def test_no_stale_head_is_served(encoder, task, tmp_path, change):
    Heads(encoder, tmp_path).of(task)
    changed, other = change(encoder, task)
    head = Heads(changed, tmp_path).of(other)
    assert torch.equal(head, zero_shot_head(changed, other))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_a_head_of_other_classes_is_refused(encoder, task):
    head = zero_shot_head(encoder, task)[:2]
    with pytest.raises(UserError, match=r"The head of imagefolder:.* is 2 x 32, but it has 3 classes"):
        evaluate(start("cpu"), encoder, [moved(encoder, 0)], tower_names(encoder), task, head, OPTIONS)


def test_models_of_another_encoder_are_refused(encoder, tmp_path):
    model = moved(encoder, 0)
    as_encoder_names(encoder, model)
    without = TensorWeights("half", {name: tensor for name, tensor in model.tensors.items() if name != "visual.ln_pre.weight"})
    with pytest.raises(UserError, match=r"'half' lacks 'visual.ln_pre.weight' .*--encoder"):
        as_encoder_names(encoder, without)
    other = load_encoder(str(write_model(tmp_path / "wide", embed_dim=48)))
    with pytest.raises(UserError, match=r"'model-0' has another \(32x32 float32\) tensor 'visual.proj' \(32x48 float32\)"):
        as_encoder_names(other, model)


def test_a_tower_without_projection_keeps_the_encoders(encoder, task):
    model = moved(encoder, 0, size=0.1)
    bare = TensorWeights("bare", {name: tensor for name, tensor in model.tensors.items() if name != "visual.proj"})
    whole = TensorWeights("whole", {**bare.tensors, "visual.proj": encoder.model.visual.proj.detach()})
    one, other = run(encoder, [as_encoder_names(encoder, bare), whole], task)
    assert (one.correct, one.loss) == (other.correct, other.loss)


def test_a_model_whose_outputs_are_not_finite_has_no_accuracy(encoder, task):
    model = moved(encoder, 0)
    model.tensors["visual.proj"][0, 0] = torch.inf
    with pytest.raises(UserError, match=r"The outputs of 'model-0' for 12 images of imagefolder:.* are not finite"):
        run(encoder, [moved(encoder, 1), model], task)


def test_unreadable_images_are_left_out_of_everything(encoder, image_folder, task, tmp_path):
    shutil.copytree(image_folder, tmp_path / "copy")
    (tmp_path / "copy/test/blue/01.png").write_bytes(b"no image")
    broken = load_task(f"imagefolder:{tmp_path / 'copy'}", "test", templates=TEMPLATES)
    models = [moved(encoder, seed) for seed in range(2)]
    with pytest.raises(UserError, match="1 image is unreadable"):
        run(encoder, models, broken)
    results = run(encoder, models, broken, replace(OPTIONS, max_skipped=1))
    for model, result in zip(models, results, strict=True):
        expected = [answer for index, answer in enumerate(answers_by_loop(encoder, model, task)) if index != 1]
        assert result.total == 11
        assert result.loss == pytest.approx(sum(loss for _, loss in expected) / 11, rel=1e-5)
        assert [name for name, _ in result.skipped.entries] == ["test/blue/01.png"]


def test_no_readable_image_is_no_accuracy(encoder, tmp_path):
    write_images(tmp_path / "test", 1)
    for path in tmp_path.rglob("*.jpg"):
        path.write_bytes(b"")
    broken = load_task(f"imagefolder:{tmp_path}", "test")
    with pytest.raises(UserError, match=r"No image of imagefolder:.* could be read"):
        run(encoder, [moved(encoder, 0)], broken, replace(OPTIONS, max_skipped=9))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu(small_model, encoder, task, precision):
    """Models that are kept on the device, and one of a task vector there."""
    on_device, device = load_encoder(str(small_model)), torch.device("cuda")
    names, models = tower_names(encoder), [moved(encoder, seed) for seed in range(2)]
    base = held(as_encoder_names(encoder, TensorWeights("base", encoder.model.state_dict())), names, device)
    tau = TensorWeights("tau", {name: models[0].tensors[name].to(device) - base.read(name) for name in models[0].tensors})
    kept = [*(held(model, names, device) for model in models), scaled("1", base, tau, 1.0)]
    head = zero_shot_head(encoder, task)
    results = evaluate(start("cuda", precision), on_device, kept, names, task, head, OPTIONS)
    expected = run(encoder, models, task)
    for one, other in zip(results, [*expected, expected[0]], strict=True):
        assert one.total == 12
        assert one.loss == pytest.approx(other.loss, rel=1e-3 if precision == "fp32" else 0.1)
