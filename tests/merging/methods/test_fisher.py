"""Fisher merging against loops over images and classes with autograd, and what must not matter to it."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.errors import UserError
from merging.data import MergeData
from merging.fisher_information import FisherInformation, draw, fewest_rows, squaring
from merging.methods.fisher import METHOD, fisher
from merging.options import MergeOptions
from merging.weights import TensorWeights
from tests.helpers import forget_accelerator
from tests.merging.drawn_data import images_of, log_probabilities, make_data, make_encoder, make_pool, moved, task, with_weights
from tests.models import small

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
BUILDS = (small.clip, small.slip, small.siglip, small.resnet)


@functools.cache
def encoder(build=small.clip):
    return make_encoder(build())


def diagonal(data: MergeData, model: TensorWeights, **options):
    information = FisherInformation(data, model.tensors, **options)
    data.fill(information.tower, model)
    return information.diagonal(model.name)


def gradients(tower, value):
    parameters = {f"visual.{name}": parameter for name, parameter in tower.named_parameters() if name != "proj"}
    found = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(parameters.items(), found, strict=True)
    }


def exact(data: MergeData, model: TensorWeights, build):
    """(1/N) Σ_x Σ_c p_c (d log p_c / dθ)^2, image by image and class by class."""
    tower, images = with_weights(data.encoder, model, build), images_of(data, model.name)
    sums: dict[str, torch.Tensor] = {}
    for image in images:
        logs = log_probabilities(data, model.name, tower(image[None]))[0]
        for log in logs:
            for name, gradient in gradients(tower, log).items():
                sums[name] = sums.get(name, 0) + log.detach().exp() * gradient.double() ** 2
    return {name: total / len(images) for name, total in sums.items()}


def released(data: MergeData, model: TensorWeights, build, batch_size):
    """(1/N) Σ_B (d/dθ Σ_x Σ_c √p_c log p_c)^2."""
    tower, images = with_weights(data.encoder, model, build), images_of(data, model.name)
    sums: dict[str, torch.Tensor] = {}
    for batch in images.split(batch_size):
        logs = log_probabilities(data, model.name, tower(batch))
        for name, gradient in gradients(tower, (logs.detach().exp().sqrt() * logs).sum()).items():
            sums[name] = sums.get(name, 0) + gradient.double() ** 2
    return {name: total / len(images) for name, total in sums.items()}


def assert_close(found, expected, tolerance=2e-5):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        largest = expected[name].abs().max().item()
        torch.testing.assert_close(
            tensor.double(), expected[name].double(), rtol=10 * tolerance, atol=tolerance * largest + 1e-12, msg=name
        )


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_the_diagonal_is_the_sum_over_images_and_classes(build):
    data = make_data(encoder(build), examples=5)
    model = moved(data.encoder, "two", seed=1)
    found = diagonal(data, model)
    expected = {name: tensor for name, tensor in exact(data, model, build).items() if name in found}
    assert found.keys() == {name for name, _ in data.encoder.model.named_parameters()} & model.tensors.keys()
    assert_close(found, expected)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_as_released_squares_the_gradient_of_a_batch(batch_size):
    data = make_data(encoder(), batch_size=batch_size)
    model = moved(data.encoder, "one", seed=1)
    assert_close(diagonal(data, model, as_released=True), released(data, model, small.clip, batch_size))


@pytest.mark.parametrize("samples", [0, 3])
def test_the_batch_size_does_not_matter(samples):
    model = moved(encoder(), "two", seed=1)
    found = [diagonal(make_data(encoder(), batch_size=size), model, samples=samples) for size in (1, 4, 9)]
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])


def test_drawn_classes_give_the_same_in_the_mean():
    model = moved(encoder(), "one", seed=1)
    data = make_data(encoder(), examples=3)
    sampled, whole = diagonal(data, model, samples=200), diagonal(data, model)
    for name in ("visual.class_embedding", "visual.conv1.weight", "visual.transformer.resblocks.1.mlp.c_fc.weight"):
        assert sampled[name].sum().item() == pytest.approx(whole[name].sum().item(), rel=0.15)


def test_drawn_classes_follow_the_seed():
    model = moved(encoder(), "one", seed=1)
    found = [diagonal(make_data(encoder(), seed=seed), model, samples=1)["visual.class_embedding"] for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


@pytest.mark.parametrize(("classes", "width"), [(3, 8), (8, 3), (5, 5), (1, 4)])
def test_fewest_rows_have_the_same_products(classes, width):
    rows = torch.randn(6, classes, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[0, :, 1:] = 0
    found = fewest_rows(rows)
    assert found.shape[1] <= min(classes, width)
    torch.testing.assert_close(found.mT @ found, rows.mT @ rows, rtol=0, atol=1e-5)
    assert found[0].abs().sum(dim=1).count_nonzero() == 1


def test_gradients_are_squared_before_those_of_the_layer_before_are_made():
    """Else the gradients of all layers would wait in memory, once for each image."""
    seen = []

    class Between(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(totals[1].clone())
            return gradient

    totals = [torch.zeros(3), torch.zeros(3)]
    first, second = (squaring(torch.ones(3), total, 4) for total in totals)
    (Between.apply(first * 2) * second).sum().backward()
    assert seen[0].tolist() == [16.0] * 3
    assert totals[0].tolist() == [16.0] * 3
    assert first.grad is None


def test_classes_are_drawn_by_their_probabilities():
    p = torch.tensor([[0.0, 0.7, 0.3], [0.5, 0.0, 0.5]], dtype=torch.float64)
    drawn = draw(p, 20000, np.random.default_rng(0))
    shares = torch.stack([(drawn == number).double().mean(dim=1) for number in range(3)], dim=1)
    torch.testing.assert_close(shares, p, atol=0.02, rtol=0)


@pytest.mark.parametrize("normalize_fisher", [True, False])
def test_merging_is_the_mean_weighted_by_the_diagonals(normalize_fisher):
    data, pool = make_data(encoder()), make_pool(encoder())
    merge = fisher(pool, MergeOptions(normalize_fisher=normalize_fisher), data)
    diagonals = [exact(data, model, small.clip) for model in pool.models]
    lengths = [torch.cat([tensor.flatten() for tensor in one.values()]).norm() for one in diagonals]
    inverse = [1 / (length + 1e-6) for length in lengths]
    for name in pool.merged:
        above = below = 0
        for model, one, share in zip(pool.models, diagonals, inverse, strict=True):
            a = 0.5 * (share / sum(inverse) if normalize_fisher else 1)
            above = above + a * (one[name] + 1e-6) * model.read(name).double()
            below = below + a * (one[name] + 1e-6)
        torch.testing.assert_close(merge(name).double(), above / below, atol=2e-5, rtol=0)
        assert merge(name).dtype == torch.float32


@pytest.mark.parametrize("as_released", [True, False])
def test_equal_models_stay_as_they_are(as_released):
    one = moved(encoder(), "one", seed=1)
    pool = make_pool(encoder(), [one, TensorWeights("two", one.tensors)])
    merge = fisher(pool, MergeOptions(as_released=as_released), make_data(encoder()))
    for name in pool.merged:
        torch.testing.assert_close(merge(name), one.tensors[name], rtol=1e-6, atol=1e-7)


def test_what_no_answer_depends_on_is_averaged():
    """The statistics of BatchNorm are no parameters."""
    data, pool = make_data(encoder(small.resnet), examples=2), make_pool(encoder(small.resnet))
    merge = fisher(pool, MergeOptions(normalize_fisher=False), data)
    name = "visual.bn1.running_mean"
    torch.testing.assert_close(merge(name), torch.stack([model.read(name) for model in pool.models]).mean(dim=0))


def test_only_merged_tensors_are_weighed_and_the_models_have_all_their_own():
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    data, pool = make_data(encoder()), make_pool(encoder())
    some = fisher(replace(pool, merged=(name,)), MergeOptions(normalize_fisher=False), data)
    torch.testing.assert_close(some(name), fisher(pool, MergeOptions(normalize_fisher=False), data)(name))


def test_what_is_not_of_the_image_tower_is_refused():
    with pytest.raises(UserError, match=r"fisher .*'token_embedding.weight'.*--towers both"):
        fisher(replace(make_pool(encoder()), merged=("token_embedding.weight",)), MergeOptions(), make_data(encoder()))


def test_two_estimates_at_once_are_refused():
    with pytest.raises(UserError, match=r"--fisher-samples .* --as-released"):
        fisher(make_pool(encoder()), MergeOptions(as_released=True, fisher_samples=1), make_data(encoder()))


def test_an_answer_that_is_certain_has_no_information():
    rows = torch.zeros(2, 3, 4, dtype=torch.float64)
    assert fewest_rows(rows).shape == (2, 0, 4)


def test_a_diverged_model_is_told():
    bad = moved(encoder(), "two", seed=1)
    bad.tensors["visual.class_embedding"][0] = 1e30
    with pytest.raises(UserError, match=r"The outputs of 'two' are not finite"):
        fisher(make_pool(encoder(), [moved(encoder(), "one", 0), bad]), MergeOptions(), make_data(encoder()))


def test_without_images_it_is_a_user_error():
    with pytest.raises(UserError, match=r"fisher looks at images of every model's task"):
        METHOD.start(make_pool(encoder()), MergeOptions())


def test_order_of_the_images_in_their_files_does_not_matter():
    model, sorted_task = moved(encoder(), "one", seed=1), task("one")
    order = np.random.default_rng(3).permutation(len(sorted_task))
    found = [diagonal(make_data(encoder(), [one], examples=4), model) for one in (sorted_task, sorted_task.subset(order))]
    assert_close(found[0], found[1], tolerance=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"samples": 2}, {"as_released": True}], ids=["exact", "drawn", "released"])
def test_the_same_on_a_gpu(options):
    model, found = moved(encoder(), "two", seed=1), []
    for device in ("cpu", "cuda"):
        forget_accelerator()
        found.append(diagonal(make_data(make_encoder(small.clip()), device=device), model, **options))
    assert_close({name: tensor.cpu() for name, tensor in found[1].items()}, found[0], tolerance=1e-3)
