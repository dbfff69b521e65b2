"""RegMean++ against the same written down block by block with whole towers, in which only finished blocks are merged."""

import functools
from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from merging.methods.regmean import regmean
from merging.methods.regmean_plus_plus import METHOD, regmean_plus_plus
from merging.options import MergeOptions
from merging.weights import TensorWeights
from tests.helpers import forget_accelerator
from tests.merging.drawn_data import images_of, make_data, make_encoder, make_pool, moved, with_weights
from tests.merging.regression_oracle import BLOCKS, PREFIX, merged_weight, read_by
from tests.models import small

pytestmark = pytest.mark.usefixtures("fresh_accelerator")
BUILDS = (small.clip, small.slip)


@functools.cache
def encoder(build=small.clip):
    return make_encoder(build())


def textbook(data, pool, build, ratio):
    """For each block: whole towers that are merged before it and the model's own in it give its inputs."""
    merged = {name: sum(model.tensors[name].double() for model in pool.models) / len(pool.models) for name in pool.merged}
    for number in range(3):
        inside = f"{PREFIX[build]}{number}."
        read = []
        for model in pool.models:
            own = {name: tensor for name, tensor in model.tensors.items() if name.startswith(f"visual.{inside}")}
            mixed = TensorWeights(model.name, {**{name: tensor.float() for name, tensor in merged.items()}, **own})
            read.append(read_by(with_weights(data.encoder, mixed, build), images_of(data, model.name), build))
        for name in [inside + weight for weight in BLOCKS[build]]:
            weights = [model.tensors[f"visual.{name}"] for model in pool.models]
            merged[f"visual.{name}"] = merged_weight([inputs[name] for inputs in read], weights, ratio)
    return merged


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_is_the_textbook_formula_block_by_block(build):
    data, pool = make_data(encoder(build), examples=5, batch_size=2), make_pool(encoder(build))
    merge, plain = regmean_plus_plus(pool, MergeOptions(), data), regmean(pool, MergeOptions(), data)
    for name, expected in textbook(data, pool, build, 0.95).items():
        assert merge(name).dtype == torch.float32
        torch.testing.assert_close(merge(name).double(), expected, rtol=1e-4, atol=2e-5, msg=name)
    last = f"visual.{PREFIX[build]}2.{list(BLOCKS[build])[-1]}"
    assert not torch.allclose(merge(last), plain(last), atol=1e-3)


def test_equal_models_stay_as_they_are():
    one = moved(encoder(), "one", seed=1)
    pool = make_pool(encoder(), [one, TensorWeights("two", one.tensors)])
    merge = regmean_plus_plus(pool, MergeOptions(), make_data(encoder()))
    for name in pool.merged:
        torch.testing.assert_close(merge(name), one.tensors[name], rtol=1e-5, atol=1e-6)


def test_neither_the_batch_size_nor_the_order_of_the_models_matters():
    pool = make_pool(encoder())
    found = [
        regmean_plus_plus(replace(pool, models=models), MergeOptions(), make_data(encoder(), batch_size=size))
        for size, models in [(1, pool.models), (9, pool.models), (4, pool.models[::-1])]
    ]
    for name in pool.merged:
        torch.testing.assert_close(found[0](name), found[1](name), rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(found[0](name), found[2](name), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("build", "norm"), [(small.clip, "visual.ln_post.weight"), (small.slip, "visual.trunk.norm.weight")])
def test_as_released_leaves_the_last_norm_as_in_the_base(build, norm):
    data, pool = make_data(encoder(build), examples=2), make_pool(encoder(build))
    found, released = (regmean_plus_plus(pool, MergeOptions(as_released=flag), data) for flag in (False, True))
    torch.testing.assert_close(found(norm), pool.stack(norm).mean(dim=0))
    assert torch.equal(released(norm), encoder(build).model.state_dict()[norm])
    assert all(torch.equal(found(name), released(name)) for name in pool.merged if name.rpartition(".")[0] != norm.rpartition(".")[0])
    with pytest.raises(UserError, match=r"regmean\+\+ --as-released needs the model that the others were tuned from"):
        regmean_plus_plus(replace(pool, base=None), MergeOptions(as_released=True), data)


def test_what_is_not_merged_is_the_bases_on_the_way():
    """With the first block left alone, the second one's inputs are those behind the base's first block."""
    data, pool = make_data(encoder()), make_pool(encoder())
    own = encoder().model.state_dict()
    first, second = "visual.transformer.resblocks.0.", "visual.transformer.resblocks.1."
    merged = tuple(name for name in pool.merged if name.startswith(second))
    found = regmean_plus_plus(replace(pool, merged=merged), MergeOptions(), data)
    like_base = [
        TensorWeights(model.name, {n: t if n.startswith(second) else own[n] for n, t in model.tensors.items()}) for model in pool.models
    ]
    expected = regmean_plus_plus(replace(pool, models=tuple(like_base)), MergeOptions(), data)
    for name in merged:
        torch.testing.assert_close(found(name), expected(name), rtol=1e-5, atol=1e-6)
    assert torch.allclose(expected(f"{first}mlp.c_fc.weight"), own[f"{first}mlp.c_fc.weight"], atol=1e-5)


def test_other_towers_are_named():
    other = encoder(small.resnet)
    with pytest.raises(UserError, match=r"regmean\+\+ goes through vision transformers .*\(ModifiedResNet\)"):
        regmean_plus_plus(make_pool(other), MergeOptions(), make_data(other))


def test_without_images_it_is_a_user_error():
    with pytest.raises(UserError, match="regmean_plus_plus looks at images of every model's task"):
        METHOD.start(make_pool(encoder()), MergeOptions())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", [regmean, regmean_plus_plus], ids=lambda method: method.__name__)
def test_the_same_on_a_gpu(method):
    pool, found = make_pool(encoder()), []
    for device in ("cpu", "cuda"):
        forget_accelerator()
        found.append(method(pool, MergeOptions(), make_data(make_encoder(small.clip()), device=device)))
    for name in pool.merged:
        torch.testing.assert_close(found[1](name), found[0](name), rtol=1e-3, atol=1e-3)
