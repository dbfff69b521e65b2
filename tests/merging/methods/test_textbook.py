"""Every method equals its textbook form on random models to 1e-6."""

import functools

import pytest
import torch

from tests.merging import small_weights, textbook
from tests.merging.small_weights import assert_equal, merged, merged_for

COUNTS = (1, 2, 4)


@functools.cache
def drawn(count: int, shared: float = 0.5):
    base, models = small_weights.draw(count, shared=shared)
    return base, models, small_weights.pool(base, models)


@pytest.mark.parametrize("count", COUNTS)
def test_simple_average(count):
    base, models, pool = drawn(count)
    expected = {name: sum(model[name].double() for model in models) / count for name in base}
    assert_equal(merged("simple_average", pool), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_weighted_average(normalize):
    base, models, pool = drawn(4)
    weights = (0.5, 2.0, -0.25, 1.0)
    total = sum(weights) if normalize else 1
    expected = {name: sum(w * model[name].double() for w, model in zip(weights, models, strict=True)) / total for name in base}
    assert_equal(merged("weighted_average", pool, weights=weights, normalize=normalize), expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("scaling", [None, 0.7, -0.5, 0.0])
def test_task_arithmetic(count, scaling):
    base, models, pool = drawn(count)
    expected = textbook.element_wise(base, models, 0.3 if scaling is None else scaling, lambda vectors: vectors.double().sum(0))
    assert_equal(merged("task_arithmetic", pool, scaling=scaling), expected)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("merge_func", ["sum", "mean", "max"])
@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
def test_ties(count, merge_func, density):
    base, models, pool = drawn(count)
    expected = textbook.element_wise(base, models, 0.3, lambda vectors: textbook.ties(vectors, density, merge_func))
    assert_equal(merged("ties", pool, density=density, merge_func=merge_func), expected)


def test_ties_by_tensor():
    base, models, pool = drawn(4)
    expected = {}
    for name in base:
        only = [{name: model[name]} for model in models]
        expected |= textbook.element_wise({name: base[name]}, only, 0.3, lambda vectors: textbook.ties(vectors, 0.2, "sum"))
    assert_equal(merged("ties", pool, scope="tensor"), expected)


@pytest.mark.parametrize("count", COUNTS)
def test_magmax(count):
    base, models, pool = drawn(count)
    assert_equal(merged("magmax", pool), textbook.element_wise(base, models, 0.5, textbook.magmax))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("shared", [0.0, 0.5, 3.0])
def test_model_stock(count, shared):
    base, models, pool = drawn(count, shared)
    assert_equal(merged("model_stock", pool), textbook.model_stock(base, models))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp(t):
    """Between models that share no base, for the angle of tuned ones is so small that a line takes the place of the circle."""
    (first, _), (second, _) = small_weights.draw(0, seed=1), small_weights.draw(0, seed=2)
    first["scale"] = second["scale"]
    expected = {name: textbook.slerp(first[name], second[name], t) for name in first}
    expected["scale"] = first["scale"]
    assert_equal(merged("slerp", small_weights.pool(None, [first, second]), t=t), expected)


@pytest.mark.parametrize("count", COUNTS)
def test_iso_c(count):
    base, models, pool = drawn(count)
    assert_equal(merged("iso_c", pool), textbook.add(base, textbook.by_matrix(base, models, textbook.iso_c), 1.0))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 1.0])
def test_iso_cts(count, fraction):
    base, models, pool = drawn(count)
    expected = textbook.by_matrix(base, models, lambda vectors: textbook.iso_cts(vectors, fraction))
    assert_equal(merged("iso_cts", pool, common_space_fraction=fraction), textbook.add(base, expected, 1.0))


@pytest.mark.parametrize("count", COUNTS)
def test_tsv_m(count):
    base, models, pool = drawn(count)
    assert_equal(merged("tsv_m", pool), textbook.add(base, textbook.by_matrix(base, models, textbook.tsv_m), 1.0))


@pytest.mark.parametrize(("count", "iterations"), [(1, 40), (2, 40), (4, 400)])
def test_wudi(count, iterations):
    base, models, pool = drawn(count)
    expected = textbook.by_matrix(base, models, lambda vectors: textbook.wudi(vectors, iterations, 1e-5))
    assert_equal(merged("wudi", pool, iterations=iterations), textbook.add(base, expected, 1.0))


@pytest.mark.parametrize("min_tasks", [0, 1, 2, 5])
def test_consensus(min_tasks):
    base, models, pool = drawn(4)
    expected = textbook.element_wise(
        base, models, 0.3, lambda vectors: vectors.sum(0) * (textbook.tall_masks(vectors, 0.6).sum(0) >= min_tasks)
    )
    assert_equal(merged("tall_mask", pool, min_tasks=min_tasks), expected)


@pytest.mark.parametrize("task", range(4))
def test_tall_masks(task):
    base, models, pool = drawn(4)
    expected = textbook.element_wise(base, models, 1.0, lambda vectors: vectors.sum(0) * textbook.tall_masks(vectors, 0.4)[task])
    assert_equal(merged_for("tall_mask", pool, task, mask_threshold=0.4), expected)


def test_emr_unified():
    base, models, pool = drawn(4)
    assert_equal(merged("emr", pool), textbook.element_wise(base, models, 1.0, lambda vectors: textbook.emr(vectors)[0]))


@pytest.mark.parametrize("task", range(4))
def test_emr_per_task(task):
    base, models, pool = drawn(4)

    def expected(vectors):
        unified, masks, rescalers = textbook.emr(vectors)
        return unified.double() * masks[task] * rescalers[task]

    assert_equal(merged_for("emr", pool, task), textbook.element_wise(base, models, 1.0, expected))


@pytest.mark.parametrize("count", [1, 3])
def test_wudi_exact_has_no_gradient(count):
    """At the exact minimum the loss is flat: autograd's gradient is 0, where the start's is not."""
    base, models, pool = drawn(count)
    solved = merged("wudi", pool, solver="exact")
    for name in ("out", "fc1", "fc2"):
        vectors = torch.stack([model[name].double() - base[name].double() for model in models])
        tau = (solved[name].double() - base[name].double()).requires_grad_()
        loss = textbook.wudi_loss(tau, vectors)
        (gradient,) = torch.autograd.grad(loss, tau)
        assert gradient.abs().max() < 1e-6
        assert loss <= textbook.wudi_loss(vectors.sum(0), vectors) + 1e-12
