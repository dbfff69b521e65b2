"""RegMean against hooks, loops and the textbook formula in float64."""

import functools
from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from merging.methods.regmean import METHOD, regmean
from merging.options import MergeOptions
from merging.weights import TensorWeights
from tests.merging.drawn_data import images_of, make_data, make_encoder, make_pool, moved, with_weights
from tests.merging.regression_oracle import BLOCKS, merged_weight, read_by
from tests.models import small

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
BUILDS = (small.clip, small.slip)


@functools.cache
def encoder(build=small.clip):
    return make_encoder(build())


def textbook(data, pool, build, ratio):
    """Every merged tensor: the blocks' matrices by the inputs that they have in whole towers of the models, all else averaged."""
    towers = [with_weights(data.encoder, model, build) for model in pool.models]
    read = [read_by(tower, images_of(data, model.name), build) for tower, model in zip(towers, pool.models, strict=True)]
    merged = {name: sum(model.tensors[name].double() for model in pool.models) / len(pool.models) for name in pool.merged}
    for name in read[0]:
        weights = [model.tensors[f"visual.{name}"] for model in pool.models]
        merged[f"visual.{name}"] = merged_weight([inputs[name] for inputs in read], weights, ratio)
    return merged


@pytest.mark.parametrize("ratio", [0.95, 0.5])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_is_the_textbook_formula(build, ratio):
    data, pool = make_data(encoder(build), examples=5, batch_size=2), make_pool(encoder(build))
    merge = regmean(pool, MergeOptions(non_diagonal_ratio=ratio), data)
    expected = textbook(data, pool, build, ratio)
    assert len(BLOCKS[build]) * 3 == sum(not torch.allclose(expected[n], pool.stack(n).mean(dim=0).double()) for n in pool.merged)
    for name in pool.merged:
        assert merge(name).dtype == torch.float32
        torch.testing.assert_close(merge(name).double(), expected[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("ratio", [0.95, 1.0])
def test_equal_models_stay_as_they_are(ratio):
    one = moved(encoder(), "one", seed=1)
    pool = make_pool(encoder(), [one, TensorWeights("two", one.tensors)])
    merge = regmean(pool, MergeOptions(non_diagonal_ratio=ratio), make_data(encoder()))
    for name in pool.merged:
        torch.testing.assert_close(merge(name), one.tensors[name], rtol=1e-5, atol=1e-6)


def test_one_model_stays_as_it_is():
    one = moved(encoder(), "one", seed=1)
    merge = regmean(make_pool(encoder(), [one]), MergeOptions(), make_data(encoder()))
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(merge(name), tensor, rtol=1e-5, atol=1e-6)


def test_neither_the_batch_size_nor_the_order_of_the_models_matters():
    pool = make_pool(encoder())
    found = [
        regmean(replace(pool, models=models), MergeOptions(), make_data(encoder(), batch_size=size))
        for size, models in [(1, pool.models), (9, pool.models), (4, pool.models[::-1])]
    ]
    for name in pool.merged:
        torch.testing.assert_close(found[0](name), found[1](name), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[0](name), found[2](name), rtol=1e-4, atol=1e-5)


def test_every_task_counts_the_same_however_many_its_images():
    """A task whose images come twice has the same mean."""
    data, pool = make_data(encoder()), make_pool(encoder())
    tasks = {name: task.subset(torch.arange(len(task)).repeat(1 + (name == "two")).numpy()) for name, task in data.tasks.items()}
    found = [regmean(pool, MergeOptions(), one) for one in (data, replace(data, tasks=tasks, examples=100))]
    for name in pool.merged:
        torch.testing.assert_close(found[0](name), found[1](name), rtol=1e-4, atol=1e-5)


def test_heads_are_not_needed():
    data = make_data(encoder())
    regmean(make_pool(encoder()), MergeOptions(), data)
    assert not dict(data.heads)


def test_the_encoder_stays_as_it_was():
    before = {name: tensor.clone() for name, tensor in encoder().model.state_dict().items()}
    regmean(make_pool(encoder()), MergeOptions(), make_data(encoder()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder().model.state_dict().items())


def test_dependent_inputs_are_told(capsys):
    """Without shrinking, 9 images of 5 tokens each cannot span the 128 inputs of the last map."""
    regmean(make_pool(encoder()), MergeOptions(non_diagonal_ratio=1.0), make_data(encoder()))
    assert "The inputs of 'visual.transformer.resblocks.0.mlp.c_proj.weight' do not span their space" in capsys.readouterr().out


@pytest.mark.parametrize("build", [small.resnet, small.convnext, small.eva02], ids=lambda build: build.__name__)
def test_other_towers_are_named(build):
    other = encoder(build)
    with pytest.raises(UserError, match=r"regmean goes through .*the image tower of 'small' \((ModifiedResNet|ConvNeXt|Eva)\)"):
        regmean(make_pool(other), MergeOptions(), make_data(other))


def test_a_diverged_model_is_told():
    bad = moved(encoder(), "two", seed=1)
    bad.tensors["visual.transformer.resblocks.1.mlp.c_fc.weight"][0] = 1e38
    with pytest.raises(UserError, match=r"What goes into 'visual.transformer.resblocks.1.mlp.c_proj.weight' of 'two' is not finite"):
        regmean(make_pool(encoder(), [moved(encoder(), "one", 0), bad]), MergeOptions(), make_data(encoder()))


def test_what_is_not_of_the_image_tower_is_refused():
    with pytest.raises(UserError, match=r"regmean .*'token_embedding.weight'.*--towers both"):
        regmean(replace(make_pool(encoder()), merged=("token_embedding.weight",)), MergeOptions(), make_data(encoder()))


def test_without_images_it_is_a_user_error():
    with pytest.raises(UserError, match="regmean looks at images of every model's task"):
        METHOD.start(make_pool(encoder()), MergeOptions())
