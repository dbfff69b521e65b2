"""What every entry of METHODS promises."""

from dataclasses import fields

import pytest
import torch

import merging.weights
from common.errors import UserError
from merging.options import MergeOptions
from merging.table import METHODS as ALL
from tests.merging import small_weights
from tests.merging.small_weights import assert_equal, merged, merged_for

METHODS = {name: method for name, method in ALL.items() if method.data == "none"}
TWO = {"slerp"}  # takes exactly two models
NO_BASE = {"simple_average", "weighted_average", "slerp"}
PER_MODEL = [name for name, method in METHODS.items() if method.per_model]
ELEMENT_WISE = sorted(METHODS.keys() - {"slerp", "model_stock", "iso_c", "iso_cts", "tsv_m", "wudi"})
OTHER_VALUES = {
    "scaling": 0.45,
    "weights": (0.3, 0.9),
    "normalize": False,
    "density": 0.6,
    "merge_func": "mean",
    "scope": "tensor",
    "drop_rate": 0.2,
    "rescale": False,
    "t": 0.2,
    "seed": 1,
    "common_space_fraction": 0.3,
    "solver": "exact",
    "iterations": 3,
    "learning_rate": 1e-3,
    "mask_threshold": 2.0,
    "min_tasks": 1,
}


def options(method: str, count: int = 2) -> dict:
    """What a method cannot do without, and what makes it quick."""
    return {"weights": (0.1, 0.7, 0.4, 0.2)[:count], "iterations": 5} if method in {"weighted_average", "wudi"} else {}


def drawn(method: str, shared: float = 0.5):
    return small_weights.draw(2 if method in TWO else 3, shared=shared)


def test_names_and_fields():
    known = {field.name for field in fields(MergeOptions)}
    for name, method in ALL.items():
        assert method.name == name
        assert "\n" not in method.description
        assert set(method.reads) <= known
        assert len(set(method.reads)) == len(method.reads)
    for method in METHODS.values():
        assert method.reads[0] == "scaling"
        assert method.default_scaling is not None


def test_every_option_is_read_by_some_method():
    assert {option for method in ALL.values() for option in method.reads} == {field.name for field in fields(MergeOptions)}


@pytest.mark.parametrize("method", METHODS)
def test_reads_what_it_says_and_nothing_else(method):
    """Another value changes the result exactly if the table says that the method reads it."""
    base, models = small_weights.draw(2, shared=0.5)
    pool = small_weights.pool(base, models)
    needed = options(method)
    plain = merged(method, pool, **needed)
    for option, value in OTHER_VALUES.items():
        changed = merged(method, pool, **{**needed, option: value})
        same = all(torch.equal(changed[name], plain[name]) for name in plain)
        assert same == (option not in METHODS[method].reads), option


@pytest.mark.parametrize("method", METHODS)
def test_scaling_multiplies_the_merged_task_vector(method):
    base, models = drawn(method)
    pool, needed = small_weights.pool(base, models), options(method, len(models))
    whole = merged(method, pool, scaling=1.0, **needed)
    for scaling in (0.0, -0.7, 1.8):
        expected = {name: base[name] + scaling * (whole[name] - base[name]) for name in base}
        assert_equal(merged(method, pool, scaling=scaling, **needed), expected)
    default = merged(method, pool, scaling=METHODS[method].default_scaling, **needed)
    assert_equal(merged(method, pool, **needed), default, tolerance=0)


@pytest.mark.parametrize("method", METHODS)
def test_task_vector_is_what_scaling_multiplies(method):
    base, models = drawn(method)
    pool = small_weights.pool(base, models)
    start = METHODS[method].task_vector
    assert (start is None) == (method in NO_BASE)
    if start is not None:
        tau = start(pool, MergeOptions(**options(method, len(models))))
        expected = {name: base[name] + 0.45 * tau(name) for name in base}
        assert_equal(merged(method, pool, scaling=0.45, **options(method, len(models))), expected)


@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("dare")])  # masks go with names: see test_dare.py
def test_the_order_of_the_models_matters_only_where_it_is_said(method):
    base, models = drawn(method)
    models[1] = {name: 2 * base[name] - models[0][name] for name in base}  # equal magnitudes, opposite signs
    needed = {**options(method, len(models)), **({"t": 0.3} if method == "slerp" else {})}
    forward = merged(method, small_weights.pool(base, models), **needed)
    backward = merged(method, small_weights.pool(base, models[::-1]), **needed)
    same = all(torch.allclose(forward[name], backward[name], atol=1e-5) for name in base)
    assert same == METHODS[method].symmetric


@pytest.mark.parametrize("method", METHODS)
def test_models_equal_to_the_base_leave_it_as_it_is(method):
    base, _ = small_weights.draw(1)
    pool = small_weights.pool(base, [base, base])
    assert_equal(merged(method, pool, scaling=0.7, **options(method)), base)
    if method in PER_MODEL:
        assert_equal(merged_for(method, pool, 1), base)


FIXED_POINT = {
    "simple_average": {},
    "weighted_average": {"weights": (0.2, 0.7)},
    "slerp": {"t": 0.3},
    "model_stock": {},
    "dare_average": {"drop_rate": 0.0},
    "magmax": {"scaling": 1.0},
    "ties": {"scaling": 1.0, "density": 1.0, "merge_func": "mean"},
    "task_arithmetic": {"scaling": 0.5},
    "emr": {},
}


@pytest.mark.parametrize("method", FIXED_POINT)
def test_equal_models_are_merged_to_themselves(method):
    base, (model,) = small_weights.draw(1)
    assert_equal(merged(method, small_weights.pool(base, [model, model]), **FIXED_POINT[method]), model)


ONE_MODEL = {
    "simple_average": {},
    "weighted_average": {"weights": (3.0,)},
    "task_arithmetic": {},
    "ties": {"density": 1.0},
    "dare_average": {"drop_rate": 0.0},
    "dare_task_arithmetic": {"drop_rate": 0.0},
    "dare_ties": {"drop_rate": 0.0, "density": 1.0},
    "magmax": {},
    "tsv_m": {},
    "wudi": {},
    "tall_mask": {"min_tasks": 1},
    "emr": {},
}


@pytest.mark.parametrize("method", ONE_MODEL)
def test_one_model_is_merged_to_itself(method):
    base, (model,) = small_weights.draw(1)
    assert_equal(merged(method, small_weights.pool(base, [model]), scaling=1.0, **ONE_MODEL[method]), model)


@pytest.mark.parametrize("method", PER_MODEL)
def test_the_only_task_gets_its_own_encoder(method):
    base, (model,) = small_weights.draw(1)
    assert_equal(merged_for(method, small_weights.pool(base, [model]), 0), model)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_merged_in_float32(method, dtype):
    base, models = small_weights.draw(2, dtype=dtype)
    wide = [{name: tensor.float() for name, tensor in model.items()} for model in (base, *models)]
    found = merged(method, small_weights.pool(base, models), scaling=0.6, **options(method))
    assert_equal(found, merged(method, small_weights.pool(wide[0], wide[1:]), scaling=0.6, **options(method)), tolerance=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_models_stay_as_they_are_and_repeating_repeats(method):
    base, models = small_weights.draw(2)
    pool = small_weights.pool(base, models)
    first = merged(method, pool, **options(method))
    assert_equal(merged(method, pool, **options(method)), first, tolerance=0)
    again, others = small_weights.draw(2)
    for tensors, drawn_again in zip((base, *models), (again, *others), strict=True):
        assert_equal(tensors, drawn_again, tolerance=0)


@pytest.mark.parametrize("method", METHODS)
def test_parts_do_not_matter(method, monkeypatch):
    base, models = drawn(method)
    pool, needed = small_weights.pool(base, models), options(method, len(models))
    whole = merged(method, pool, **needed)
    monkeypatch.setattr(merging.weights, "PART", 11)
    assert_equal(merged(method, pool, **needed), whole, tolerance=0 if method in ELEMENT_WISE else 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_base(method):
    base, models = drawn(method)
    alone, needed = small_weights.pool(None, models), options(method, len(models))
    if method in NO_BASE:
        assert_equal(merged(method, alone, **needed), merged(method, small_weights.pool(base, models), **needed), tolerance=0)
        with pytest.raises(UserError, match="--base"):
            merged(method, alone, scaling=0.5, **needed)
    else:
        with pytest.raises(UserError, match=f"{method}.*--base"):
            merged(method, alone, **needed)
    if method in PER_MODEL:
        with pytest.raises(UserError, match=f"{method}.*--base"):
            merged_for(method, alone, 0)


@pytest.mark.parametrize(
    ("method", "count", "chosen", "sentence"),
    [
        ("weighted_average", 2, {}, "--weights must give one number for each of the 2 models; it gives 0."),
        ("weighted_average", 2, {"weights": (1.0, 2.0, 3.0)}, "it gives 3"),
        ("weighted_average", 2, {"weights": (1.0, float("nan"))}, "finite"),
        ("weighted_average", 2, {"weights": (1.0, -1.0)}, "sum to 0"),
        ("slerp", 3, {}, "exactly two, not 3"),
        ("model_stock", 1, {}, "at least two"),
    ],
    ids=["no weights", "too many weights", "NaN weight", "weights that cancel", "slerp of three", "model stock of one"],
)
def test_what_a_method_refuses(method, count, chosen, sentence):
    with pytest.raises(UserError, match=sentence):
        merged(method, small_weights.pool(*small_weights.draw(count)), **chosen)


@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m", "wudi"])
@pytest.mark.parametrize("device", ["tpu-v9", "meta:x"])
def test_a_device_that_is_not_there(method, device):
    with pytest.raises(UserError, match=f"--device {device} cannot be used"):
        merged(method, small_weights.pool(*small_weights.draw(2)), device=device)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["iso_c", "iso_cts", "tsv_m", "wudi"])
def test_on_the_gpu_as_on_the_cpu(method):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pool = small_weights.pool(*small_weights.draw(3, shared=0.5))
    assert_equal(merged(method, pool, device="cuda"), merged(method, pool), tolerance=1e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("density", value) for value in (0.0, -0.1, 1.5, 20.0, float("nan"))),
        *(("drop_rate", value) for value in (-0.1, 1.0)),
        *(("t", value) for value in (-0.1, 1.1)),
        *(("common_space_fraction", value) for value in (-0.1, 1.1)),
        *(("non_diagonal_ratio", 1.1), ("minimal_fisher", 0.0), ("fisher_samples", -1), ("adapt_lr", 0.0), ("adapt_batch_size", 0)),
        *(("plateau", -1), ("adapt_steps", -1), ("mask_steps", -1), ("temperature", 0.0), ("inner_lr", 0.0), ("mask_type", "binary")),
        *(("iterations", -1), ("learning_rate", 0.0), ("mask_threshold", -1.0), ("min_tasks", -1)),
        *(("scaling", float("inf")), ("merge_func", "median"), ("scope", "layer"), ("solver", "sgd")),
    ],
)
def test_options_out_of_range(option, value):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} is"):
        MergeOptions(**{option: value})
