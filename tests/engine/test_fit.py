"""Training step by step: updates against gradients written out, batches cut in different ways, and what ends a run."""

import math
import re
import shutil

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from datasets.registry import load_task
from engine.classifier import Classifier
from engine.embed import LoadOptions
from engine.evaluate import Evaluation
from engine.fit import OPTIMIZERS, Fit, FitFiles, FitOptions
from engine.inputs import FeatureInputs, PixelInputs
from engine.loading import SkippedImages
from engine.order import EpochOrder
from engine.runtime import start
from engine.schedule import learning_rate
from models.encoder import Encoder
from models.loading import load_encoder
from models.tunings import TuningOptions, apply_tuning
from tests.helpers import forget_accelerator

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


@pytest.fixture
def tasks(image_folder):
    """(train, val) of 19 and 5 images."""
    return tuple(load_task(f"imagefolder:{image_folder}", split, val_p=0.2) for split in ("train", "val"))


@pytest.fixture
def make(small_model, tasks, tmp_path):
    """A function that makes a Fit of the small model; ``kind`` says how images come in."""

    def make_fit(
        tuning="full", options=None, kind=PixelInputs, batch_size=4, accumulate=1, tasks=tasks, max_skipped=0, device="cpu", **how
    ):
        forget_accelerator()
        runtime = start(device, how.pop("precision", "fp32"))
        encoder = load_encoder(str(small_model)).to(runtime.device)
        train, val = tasks
        apply_tuning(encoder, tuning, options or TuningOptions(rank=4), classnames=train.classnames)
        classifier = Classifier(encoder, train.prompts()).to(runtime.device)
        order = EpochOrder(len(train), batch_size, accumulate, seed=how.pop("seed", 0))
        load = LoadOptions(batch_size, num_workers=0, max_skipped=max_skipped)
        if kind is PixelInputs:
            inputs = PixelInputs(runtime, train, val, encoder.preprocess, order, load)
        elif kind is FeatureInputs:
            inputs = FeatureInputs(runtime, classifier, train, val, order, load)
        else:
            inputs = kind(order, train, encoder)
        saved = []
        files = FitFiles(tmp_path / "state.safetensors", lambda *what: saved.append(what))
        fit = Fit(runtime, classifier, inputs, order, FitOptions(**{"epochs": 1, "lr": 0.01, "wd": 0.0, **how}), files, {})
        fit.saved = saved
        return fit

    return make_fit


def weights(fit):
    return {name: parameter.detach().clone() for name, parameter in fit.parameters.items()}


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


class Recorder:
    """Notes learning rate and gradients at each optimizer step."""

    def __init__(self, fit):
        self.rates, self.gradients = [], []
        plain = fit._plain_optimizer()
        step = plain.step

        def noting(*arguments, **options):
            self.rates.append(plain.param_groups[0]["lr"])
            self.gradients.append(
                {name: parameter.grad.clone() for name, parameter in fit.parameters.items() if parameter.grad is not None}
            )
            return step(*arguments, **options)

        plain.step = noting

    def norms(self):
        return [math.sqrt(sum(float(gradient.square().sum()) for gradient in step.values())) for step in self.gradients]


class Scripted:
    """Inputs that give the images of the training task, and the validation accuracies that they are told to."""

    accuracies = (0.5,)

    def __init__(self, order, train, encoder):
        self.unreadable, self.max_skipped = {}, 0
        self.order, self.validated = order, 0
        self.pixels = torch.stack([encoder.preprocess(train.samples.image(index)) for index in range(len(train))])
        self.labels = torch.from_numpy(train.labels)

    def micro_batches(self):
        for batch in self.order:
            yield self.pixels[batch], self.labels[batch]

    def validate(self, classifier):
        accuracy = self.accuracies[min(self.validated, len(self.accuracies) - 1)]
        self.validated += 1
        return Evaluation(5, accuracy, accuracy, 0.0, SkippedImages())


# --- updates -------------------------------------------------------------------------------------------------------


def direct_gradients(small_model, task, batch):
    """Gradients of the mean cross-entropy over all class prompts, with open_clip's own methods."""
    encoder = load_encoder(str(small_model))
    model = encoder.model.requires_grad_(True)
    pixels = torch.stack([encoder.preprocess(task.samples.image(index)) for index in batch])
    images = model.encode_image(pixels, normalize=True)
    texts = model.encode_text(encoder._tokenizer([prompts[0] for prompts in task.prompts()]), normalize=True)
    F.cross_entropy(model.logit_scale.exp() * images @ texts.T, torch.from_numpy(task.labels[batch])).backward()
    return {f"model.{name}": parameter.grad for name, parameter in model.named_parameters()}


def test_the_gradient_is_that_of_the_mean_cross_entropy_over_all_class_prompts(make, small_model, tasks):
    fit = make(batch_size=19)
    noted = Recorder(fit)
    fit.run()
    expected = direct_gradients(small_model, tasks[0], next(iter(EpochOrder(19, 19))))
    assert_close(noted.gradients[0], expected, 5e-5)
    assert sum(float(gradient.abs().sum()) for gradient in expected.values()) > 100  # not 0 against 0


@pytest.mark.parametrize(("size", "accumulate"), [(4, 2), (2, 4), (3, 5)])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_accumulated_batches_are_one_large_batch(make, size, accumulate, optimizer):
    """19 images: the last step, and its last micro-batch, are smaller than the others."""
    cut, whole = (make("lora", batch_size=bs, accumulate=n, optimizer=optimizer) for bs, n in ((size, accumulate), (size * accumulate, 1)))
    before = weights(cut)
    noted, expected = Recorder(cut), Recorder(whole)
    cut.run(), whole.run()
    assert len(noted.gradients) == len(expected.gradients) == math.ceil(19 / (size * accumulate))
    for one, other in zip(noted.gradients, expected.gradients, strict=True):
        assert_close(one, other, 1e-5)
    assert cut.progress.history[0]["loss"] == pytest.approx(whole.progress.history[0]["loss"], abs=1e-5)
    assert any((weights(cut)[name] - tensor).abs().max() > 1e-4 for name, tensor in before.items())


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(make, small_model, tasks):
    """At a learning rate of 0 that is the loss of the model as it was."""
    fit = make(lr=0.0, batch_size=4)
    fit.run()
    with torch.no_grad():
        encoder, task = load_encoder(str(small_model)), tasks[0]
        pixels = torch.stack([encoder.preprocess(task.samples.image(index)) for index in range(19)])
        loss = F.cross_entropy(Classifier(encoder, task.prompts())(pixels), torch.from_numpy(task.labels))
    assert fit.progress.history[0]["loss"] == pytest.approx(float(loss), abs=1e-6)


def test_the_published_hyper_parameters_of_the_optimizers():
    made = {name: make([torch.nn.Parameter(torch.zeros(1))], 0.1, 0.01) for name, make in OPTIMIZERS.items()}
    assert {name: type(each) for name, each in made.items()} == {
        "SGD": torch.optim.SGD,
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
    }
    assert made["SGD"].defaults["momentum"] == 0.9
    assert not made["SGD"].defaults["nesterov"]
    assert made["SGD"].defaults["dampening"] == 0
    assert made["Adam"].defaults["betas"] == made["AdamW"].defaults["betas"] == (0.9, 0.99)
    assert {(each.defaults["lr"], each.defaults["weight_decay"]) for each in made.values()} == {(0.1, 0.01)}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_each_step_has_the_learning_rate_of_its_number_in_the_run(make, schedule):
    fit = make("bias", epochs=2, schedule=schedule, warmup=3, kind=Scripted)
    noted = Recorder(fit)
    fit.run()
    assert noted.rates == [learning_rate(step, 10, peak=0.01, schedule=schedule, warmup=3) for step in range(10)]


@pytest.mark.parametrize("steps", [3, 5, 7, 10])
def test_a_run_of_steps_is_the_beginning_of_a_longer_one(make, steps):
    """5 steps are an epoch. The schedule runs over the steps asked for, and the last epoch's loss is that of the images it saw."""
    short, whole = make(kind=Scripted, steps=steps, lr=0.0, schedule="linear"), make(kind=Scripted, epochs=2, lr=0.0)
    noted, expected = Recorder(short), Recorder(whole)
    short.run(), whole.run()
    assert len(noted.gradients) == steps
    for one, other in zip(noted.gradients, expected.gradients, strict=False):
        assert_close(one, other, 0)
    assert [entry["epoch"] for entry in short.progress.history] == list(range(1, math.ceil(steps / 5) + 1))
    assert short.saved[-1][:2] == ("last", math.ceil(steps / 5))
    rates = Recorder(risen := make(kind=Scripted, steps=steps, schedule="linear"))
    risen.run()
    assert rates.rates == [learning_rate(step, steps, peak=0.01, schedule="linear") for step in range(steps)]


def test_the_loss_of_a_cut_epoch_is_the_mean_over_the_images_it_saw(make):
    fit, seen = make(kind=Scripted, steps=7, lr=0.0), make(kind=Scripted, epochs=2, lr=0.0)
    losses = []
    for each in (fit, seen):
        real = each._backward
        each._backward = lambda *batch, real=real, **how: losses.append(real(*batch, **how)) or losses[-1]
        each.run()
        assert each.progress.epoch == 2
    cut = sum(float(loss) * 4 for loss in losses[5:7]) / 8
    assert fit.progress.history[1]["loss"] == pytest.approx(cut, abs=1e-6)


def test_a_run_of_steps_that_was_stopped_in_its_last_epoch_goes_on(make):
    whole, cut = make(kind=Scripted, steps=7), make(kind=Scripted, steps=7, save_minutes=0)
    whole.run()
    real = cut._stop_or_save

    def stop(request):
        real(request)
        if (cut.progress.epoch, cut.progress.step) == (1, 1):
            raise KeyboardInterrupt

    cut._stop_or_save = stop
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = make(kind=Scripted, steps=7)
    again.resume()
    again.run()
    assert_close(weights(again), weights(whole), 0)
    assert again.progress.history[1]["loss"] == whole.progress.history[1]["loss"]


def test_the_decay_of_adams_second_mean_can_be_torchs_own(make):
    assert make(optimizer="Adam", beta2=0.999)._plain_optimizer().defaults["betas"] == (0.9, 0.999)


def test_clipping_bounds_the_norm_of_the_gradient_that_is_applied(make):
    free, clipped = make(kind=Scripted), make(kind=Scripted, clip_norm=0.5)
    noted, bounded = Recorder(free), Recorder(clipped)
    free.run(), clipped.run()
    assert noted.norms()[0] > 1
    assert bounded.norms()[0] == pytest.approx(0.5, rel=1e-4)
    assert max(bounded.norms()) <= 0.5 + 1e-4
    scale = noted.norms()[0] / 0.5
    assert_close({name: tensor * scale for name, tensor in bounded.gradients[0].items()}, noted.gradients[0], 1e-4)


def test_a_bound_that_is_not_reached_changes_nothing(make):
    free, clipped = make("bias", kind=Scripted), make("bias", kind=Scripted, clip_norm=1e6)
    free.run(), clipped.run()
    assert_close(weights(free), weights(clipped), 0)


# --- frozen towers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tuning", "optimizer"), [("probe", "SGD"), ("adapter", "AdamW")])
def test_features_computed_once_train_to_the_weights_of_pixels(make, tuning, optimizer):
    pixels, features = (make(tuning, kind=kind, optimizer=optimizer, epochs=3, lr=0.003) for kind in (PixelInputs, FeatureInputs))
    before = weights(pixels)
    pixels.run(), features.run()
    assert_close(weights(pixels), weights(features), 1e-6)
    assert any((weights(pixels)[name] - tensor).abs().max() > 1e-3 for name, tensor in before.items())
    for one, other in zip(pixels.progress.history, features.progress.history, strict=True):
        assert one["val_accuracy"] == other["val_accuracy"]
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


@pytest.mark.parametrize("tuning", ["probe", "adapter"])
def test_the_image_tower_sees_each_image_once_however_many_epochs(make, monkeypatch, tuning):
    seen, real = [], Encoder.image_features

    def counting(self, pixels):
        seen.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(Encoder, "image_features", counting)
    make(tuning, kind=FeatureInputs, epochs=4).run()
    assert sum(seen) == 19 + 5


# --- best and last -------------------------------------------------------------------------------------------------


def test_best_is_the_first_epoch_with_the_highest_validation_accuracy(make, monkeypatch):
    monkeypatch.setattr(Scripted, "accuracies", (0.9, 0.2, 0.6, 0.4, 0.6, 0.5))  # the first is from before training
    fit = make("bias", kind=Scripted, epochs=5)
    fit.run()
    assert fit.saved == [("best", 1, 0.2), ("best", 2, 0.6), ("last", 5, 0.5)]
    progress = fit.progress
    assert (progress.before, progress.best_accuracy, progress.best_epoch) == (0.9, 0.6, 2)
    assert [(entry["epoch"], entry["val_accuracy"]) for entry in progress.history] == [(1, 0.2), (2, 0.6), (3, 0.4), (4, 0.6), (5, 0.5)]


def test_an_accuracy_of_zero_is_a_best_one_too(make, monkeypatch):
    monkeypatch.setattr(Scripted, "accuracies", (0.0,))
    fit = make("bias", kind=Scripted, epochs=2)
    fit.run()
    assert fit.saved == [("best", 1, 0.0), ("last", 2, 0.0)]


@pytest.mark.parametrize(("took", "after_epochs"), [(0.0, [1, 2]), (1e9, [1])])
def test_the_state_is_saved_after_epochs_unless_that_takes_too_much_of_the_time_and_never_at_the_end(make, monkeypatch, took, after_epochs):
    saved = []

    def save(fit):
        saved.append(fit.progress.epoch)
        fit._saving = took

    monkeypatch.setattr(Fit, "_save_state", save)
    progress = make("bias", kind=Scripted, epochs=3).run()
    assert saved == after_epochs
    assert progress.seconds > 0  # which the record tells


# --- losses that are not finite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_every", [1, 16])
def test_a_loss_that_is_not_finite_ends_the_run_with_its_step_and_learning_rate(make, monkeypatch, check_every):
    """On an accelerator losses are looked at in groups; the step that is told is that of the loss all the same."""
    if check_every > 1:
        monkeypatch.setattr(Fit, "_check_losses", in_groups_of(check_every))
    fit = make("bias", kind=Scripted, epochs=3, schedule="linear")
    fit.inputs.pixels[next(iter(EpochOrder(19, 19)))[9]] = float("nan")  # an image of step 3 in epoch 1
    with pytest.raises(UserError, match=re.escape("The loss became nan in step 3 (epoch 1) at learning rate 0.00866667; use a smaller")):
        fit.run()
    assert not fit.files.state.exists()
    assert fit.saved == []


def in_groups_of(number):
    """``Fit._check_losses`` as on an accelerator."""
    real = Fit._check_losses

    def check(self, now=False):
        if now or len(self._losses) == number:
            real(self, now=True)

    return check


def test_a_learning_rate_that_is_far_too_large(make):
    with pytest.raises(UserError, match=r"(The loss became (nan|inf) in step \d|outputs for 5 images .* are not finite)"):
        make(lr=1e30, epochs=3).run()


# --- unreadable images ---------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(image_folder, tmp_path):
    """(train, val) with two images of training and one of validation that cannot be read."""
    whole = load_task(f"imagefolder:{image_folder}", "train", val_p=0.2), load_task(f"imagefolder:{image_folder}", "val", val_p=0.2)
    shutil.copytree(image_folder, tmp_path / "damaged")
    for name in (*whole[0].sample_ids[3:5], whole[1].sample_ids[0]):
        (tmp_path / "damaged" / name).write_bytes(b"")
    return tuple(load_task(f"imagefolder:{tmp_path / 'damaged'}", split, val_p=0.2) for split in ("train", "val"))


@pytest.mark.parametrize("kind", [PixelInputs, FeatureInputs])
def test_unreadable_images_are_told_once_however_many_epochs(make, damaged, kind):
    fit = make("adapter", kind=kind, tasks=damaged, max_skipped=3, epochs=3)
    fit.run()
    names = {*damaged[0].sample_ids[3:5], damaged[1].sample_ids[0]}
    assert fit.progress.unreadable == dict.fromkeys(names, "the file is empty")


@pytest.mark.parametrize("kind", [PixelInputs, FeatureInputs])
def test_more_unreadable_images_than_allowed_end_the_run(make, damaged, kind):
    with pytest.raises(UserError, match=r"[123] images? (is|are) unreadable, more than --max-skipped [02] allows"):
        make("adapter", kind=kind, tasks=damaged, max_skipped=0).run()
    with pytest.raises(UserError, match=r"3 images are unreadable, more than --max-skipped 2 allows"):
        make("adapter", kind=kind, tasks=damaged, max_skipped=2).run()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_unreadable_image_has_no_part_in_the_weights(make, damaged, tasks, batch_size):
    """The same for pixels and features, and for batches of which nothing is left."""
    pixels, features = (
        make("adapter", kind=kind, tasks=damaged, max_skipped=3, batch_size=batch_size, lr=0.003) for kind in (PixelInputs, FeatureInputs)
    )
    pixels.run(), features.run()
    assert_close(weights(pixels), weights(features), 1e-6)
    whole = make("adapter", batch_size=batch_size, lr=0.003)
    whole.run()
    assert max((weights(whole)[name] - tensor).abs().max() for name, tensor in weights(pixels).items()) > 1e-5


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_batch_without_a_readable_image_is_a_step_without_a_gradient(make, damaged, tuning):
    fit = make(tuning, tasks=damaged, max_skipped=3, batch_size=1, accumulate=2)
    noted = Recorder(fit)
    fit.run()
    assert len(noted.gradients) == 10
    assert all(torch.isfinite(tensor).all() for tensor in weights(fit).values())
    assert math.isfinite(fit.progress.history[0]["loss"])


# --- precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tuning", ["lora", "adapter"])
def test_bf16_trains_float32_weights_close_to_those_of_fp32(make, tuning):
    exact = make(tuning, epochs=2)
    exact.run()
    rounded = make(tuning, epochs=2, precision="bf16")
    rounded.run()
    assert {tensor.dtype for tensor in weights(rounded).values()} == {torch.float32}
    assert exact.progress.history[-1]["loss"] == pytest.approx(rounded.progress.history[-1]["loss"], abs=0.1)
    assert exact.progress.history[-1]["loss"] != rounded.progress.history[-1]["loss"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("tuning", "kind"), [("full", PixelInputs), ("lora", PixelInputs), ("adapter", FeatureInputs), ("probe", FeatureInputs)]
)
def test_on_a_gpu_the_loss_falls_as_on_the_cpu(make, precision, tuning, kind):
    how = {"tuning": tuning, "kind": kind, "epochs": 3, "clip_norm": 1.0, "accumulate": 2}
    expected = make(**how)
    expected.run()
    found = make(**how, device="cuda", precision=precision)
    found.run()
    for one, other in zip(expected.progress.history, found.progress.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=0.02 if precision == "fp32" else 0.15)
    assert all(torch.isfinite(tensor).all() for tensor in weights(found).values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_fp16_scaler_goes_through_the_state(make):
    fit = make(device="cuda", precision="fp16")
    fit.run()
    scale = fit.scaler.get_scale()
    again = make(device="cuda", precision="fp16", epochs=2)
    again.scaler.update(scale * 4)
    again.resume()
    assert again.scaler.get_scale() == scale
    again.run()
    assert again.progress.epoch == 2
