"""Coefficients by task and tensor: merges against loops, the gradient against autograd through the merge."""

import open_clip
import pytest
import torch

from merging.coefficients import Columns, TaskVectors, combined, contracted, parts_of
from merging.weights import TensorWeights, make_pool
from tests.merging.small_objective import SHAPES, coefficients, loss_on, merged_by_hand, task_vectors
from tests.merging.small_objective import Objective as SmallObjective

KINDS = (Columns.task_wise, Columns.layer_wise)


def visual_names(architecture):
    """The names of an image tower without its projection, built without weights."""
    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        model = open_clip.CLIP(**config)
    return [name for name, _ in model.named_parameters() if name.startswith("visual.") and name != "visual.proj"]


@pytest.mark.parametrize(("architecture", "columns", "stored"), [("ViT-B-32", 199, 151), ("ViT-L-14", 391, 295)])
def test_layer_wise_columns_are_as_many_as_in_published_weights(architecture, columns, stored):
    names = visual_names(architecture)
    assert len(names) == stored
    assert len(Columns.layer_wise(names).names) == len(set(Columns.layer_wise(names).names)) == columns


def test_task_wise_is_one_column_for_all_tensors():
    columns = Columns.task_wise(SHAPES)
    assert len(columns.names) == 1
    assert set(columns.of) == set(SHAPES)


@pytest.mark.parametrize("name", ["in_proj_weight", "blocks.0.attn.in_proj_bias", "trunk.blocks.3.attn.qkv.weight"])
def test_packed_tensors_are_three(name):
    assert parts_of(name) == (f"{name}[q]", f"{name}[k]", f"{name}[v]")


def test_other_tensors_are_one():
    assert parts_of("attn.out_proj.weight") == ("attn.out_proj.weight",)


@pytest.mark.parametrize(("shape", "parts"), [((), 1), ((5,), 1), ((6,), 3), ((6, 4), 3), ((6, 4), 1), ((4, 3, 2, 2), 1)])
def test_combined_and_contracted_are_loops(shape, parts):
    generator = torch.Generator().manual_seed(0)
    vectors, gradient = torch.randn(3, *shape, generator=generator), torch.randn(shape, generator=generator)
    by = torch.randn(3, parts, generator=generator)
    found, contraction = combined(by, vectors), contracted(gradient, vectors, parts)
    assert found.shape == shape
    for part, (own, of_gradient) in enumerate(zip(found.reshape(parts, -1), gradient.reshape(parts, -1), strict=True)):
        of_part = [vector.reshape(parts, -1)[part] for vector in vectors]
        torch.testing.assert_close(own, sum(by[k, part] * vector for k, vector in enumerate(of_part)))
        torch.testing.assert_close(contraction[:, part], torch.stack([(of_gradient * vector).sum() for vector in of_part]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_coefficients_is_that_of_autograd(kind, masked):
    vectors, loss = task_vectors(kind), loss_on(0)
    masks = {name: base.abs() for name, base in task_vectors(kind, 1).base.items()} if masked else None
    vectors = TaskVectors(vectors.base, vectors.vectors, vectors.columns, masks.__getitem__ if masks else None)
    by = coefficients(vectors).requires_grad_()
    value, of_tensors = SmallObjective(loss)(lambda name: vectors.merged(by, name))
    expected = loss(merged_by_hand(vectors, by, masks))
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(vectors.gradient(of_tensors), by.grad, rtol=1e-9, atol=1e-12)


def test_tensors_without_a_gradient_have_no_part():
    vectors = task_vectors(Columns.layer_wise)
    name = "visual.out.weight"
    gradient = vectors.gradient({name: torch.ones(SHAPES[name], dtype=torch.float64)})
    other = [column for column, of in enumerate(vectors.columns.names) if of != name]
    assert not gradient[:, other].any()
    assert gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_task_vectors_of_a_pool(dtype):
    base = TensorWeights("base", {name: torch.randn(shape) for name, shape in SHAPES.items()})
    models = [TensorWeights(f"m{k}", {name: torch.randn(shape) for name, shape in SHAPES.items()}) for k in range(2)]
    vectors = TaskVectors.of(make_pool(base, models), Columns.layer_wise(SHAPES), torch.device("cpu"), dtype)
    for name in SHAPES:
        assert vectors.vectors[name].dtype == dtype
        by = torch.full((2, len(vectors.columns.names)), 0.3)
        expected = base.tensors[name] + sum(0.3 * (model.tensors[name] - base.tensors[name]) for model in models)
        assert vectors.merged(by, name).dtype == torch.float32
        torch.testing.assert_close(vectors.merged(by, name), expected, rtol=1e-5, atol=1e-6 if dtype == torch.float32 else 0.02)
