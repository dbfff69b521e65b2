"""What may be merged with what, and what is said of models that are equal, broken or of another kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from merging.weights import PART, Pool, TensorWeights, equal, make_pool, told_equal

Tensors = dict[str, Tensor]


def tensors(seed: int, **more: Tensor) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(4, 3, generator=generator), "b": torch.randn(4, generator=generator), "ids": torch.arange(3)} | more


def make(base: Tensors | None, *models: Tensors, **rules: Callable[[str], bool]) -> Pool:
    named = [TensorWeights(f"m{number}", model) for number, model in enumerate(models)]
    return make_pool(None if base is None else TensorWeights("base", base), named, **rules)


def test_stack_and_task_vectors_are_those_of_the_definition() -> None:
    base, models = tensors(0), [tensors(seed) for seed in (1, 2, 3)]
    pool = make(base, *models)
    assert pool.merged == ("w", "b")
    assert torch.equal(pool.stack("w"), torch.stack([model["w"] for model in models]))
    assert torch.equal(pool.task_vectors("w"), torch.stack([model["w"] - base["w"] for model in models]))
    assert torch.equal(pool.task_vectors("w", slice(2, 7)), pool.task_vectors("w").flatten(1)[:, 2:7])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_arithmetic_is_in_float32_whatever_is_stored(dtype: torch.dtype) -> None:
    base, model = ({"w": tensors(seed)["w"].to(dtype)} for seed in (0, 1))
    vectors = make(base, model).task_vectors("w")
    assert vectors.dtype == torch.float32
    assert torch.equal(vectors[0], model["w"].float() - base["w"].float())


def test_parts_cover_a_tensor_once() -> None:
    size = 2 * PART + 5
    pool = make({"w": torch.zeros(size)}, {"w": torch.arange(float(size))})
    assert [part.stop - part.start for part in pool.parts("w")] == [PART, PART, 5]
    assert torch.equal(pool.by_parts("w", lambda part: pool.stack("w", part)[0]), torch.arange(float(size)))


def test_a_scalar_and_an_empty_tensor_have_parts_too() -> None:
    pool = make(None, {"scale": torch.tensor(2.0), "none": torch.zeros(0, 3)})
    assert pool.by_parts("scale", lambda part: pool.stack("scale", part)[0]) == 2
    assert pool.by_parts("none", lambda part: pool.stack("none", part)[0]).shape == (0, 3)


def test_what_is_chosen_and_floating_and_in_the_models_is_merged() -> None:
    base = tensors(0, text=torch.ones(2))
    assert make(base, tensors(1), optional=lambda name: name == "text").merged == ("w", "b")
    with pytest.raises(UserError, match=r"'m0' lacks the tensor 'text' \(2 float32\), which 'base' has"):
        make(base, tensors(1))
    assert make(base, tensors(1, text=torch.ones(2))).merged == ("w", "b", "text")
    assert make(base, tensors(1, text=torch.ones(7)), chosen=lambda name: name != "text").merged == ("w", "b")
    with pytest.raises(UserError, match="'m0' has no tensor that is to be merged"):
        make(base, tensors(1), chosen=lambda name: False)


def without(model: Tensors, name: str) -> Tensors:
    return {other: tensor for other, tensor in model.items() if other != name}


UNFIT = {
    "lacks": (lambda: without(tensors(2), "b"), r"'m1' lacks the tensor 'b' \(4 float32\), which 'm0' has"),
    "has more": (lambda: tensors(2, more=torch.ones(2)), r"'m1' has a tensor 'more' \(2 float32\), which 'base' has not"),
    "shape": (lambda: tensors(2, b=torch.ones(5)), "The tensor 'b' of 'm1' is 5 float32; 4 float32 is expected, as in 'base'"),
    "dtype": (lambda: tensors(2, b=torch.ones(4).half()), "'b' of 'm1' is 4 float16; 4 float32 is expected"),
    "integers": (lambda: tensors(2, b=torch.arange(4)), "'b' of 'm1' is 4 int64; 4 float32 is expected"),
}


@pytest.mark.parametrize("how", UNFIT)
def test_models_that_do_not_fit_are_told_with_tensor_model_and_expectation(how: str) -> None:
    make_model, words = UNFIT[how]
    with pytest.raises(UserError, match=words):
        make(tensors(0), tensors(1), make_model())


def test_integer_tensors_of_the_models_do_not_matter() -> None:
    assert make(tensors(0), tensors(1, ids=torch.arange(9)), without(tensors(2), "ids")).merged == ("w", "b")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_nan_and_infinity_are_told_where_they_are_read(value: float, dtype: torch.dtype) -> None:
    broken = torch.zeros(4, 3, dtype=dtype)
    broken[2, 1] = value
    healthy = {"w": torch.zeros(4, 3, dtype=dtype)}
    for pool in (make(healthy, healthy, {"w": broken}), make({"w": broken}, healthy)):
        with pytest.raises(UserError, match=r"The tensor 'w' of '(m1|base)' holds NaN or infinity"):
            pool.task_vectors("w")


def test_large_numbers_whose_sum_overflows_are_no_infinity() -> None:
    large = {"w": torch.full((4, 3), 3e38)}
    assert make(large, large).task_vectors("w").eq(0).all()
    half = {"w": torch.full((400,), 60_000.0, dtype=torch.float16)}
    assert make(half, half).task_vectors("w").eq(0).all()


def test_equal_models_are_told() -> None:
    base, one, other = tensors(0), tensors(1), tensors(2)
    assert told_equal(make(base, one, other)) == []
    assert told_equal(make(base, one, {**base})) == ["'m1' equals the base 'base' in every merged tensor: its task vector is 0."]
    assert told_equal(make(None, one, other, {**one})) == ["'m0' and 'm2' are equal in every merged tensor."]


def test_comparison_ends_at_the_first_difference_and_begins_with_small_tensors() -> None:
    read: list[str] = []

    class Watched(TensorWeights):
        def read(self, name: str, part: slice | None = None) -> Tensor:
            read.append(name)
            return super().read(name, part)

    named = [Watched(str(seed), tensors(seed)) for seed in (0, 1)]
    assert told_equal(make_pool(named[0], named[1:])) == []
    assert read == ["b", "b"]
    assert equal(named[0], named[0], ["w", "b"])
