"""Routed encoders against merging image by image, and what they are made of."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from common.errors import UserError
from merging.options import MergeOptions
from merging.table import METHODS
from merging.weights import Pool
from merging.wemoe.assemble import assemble
from merging.wemoe.mlp import RoutedMLP, routers_of
from merging.wemoe.options import E_WEMOE, WemoeOptions
from merging.wemoe.sparse import magnitude_pruned
from models.loading import load_encoder
from tests.merging.wemoe.small import assembled, image_by_image, images, mlps, pool_of
from tests.models import small

KINDS = {
    "two-layers": {},
    "one-layer": {"router_layers": 1},
    "constant": {"router_layers": 0},
    "efficient": {"prune_ratio": 0.9, "shared_gate": True, "position_dim": 8},
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def routed(request, small_model):
    return assembled(small_model, **request.param)[0]


@torch.no_grad()
def test_images_are_those_of_a_loop_that_merges_for_each(routed, monkeypatch):
    pixels = images(routed)
    found = routed.encoder.image_tower(pixels)
    monkeypatch.setattr(RoutedMLP, "forward", image_by_image)
    torch.testing.assert_close(found, routed.encoder.image_tower(pixels), rtol=1e-5, atol=1e-5)


def test_gradients_of_the_routers_are_those_of_that_loop(routed, monkeypatch):
    pixels, routers = images(routed), list(routers_of(routed.encoder).values())
    found = torch.autograd.grad(routed.encoder.encode_image(pixels)[:, 0].sum(), routers)
    monkeypatch.setattr(RoutedMLP, "forward", image_by_image)
    expected = torch.autograd.grad(routed.encoder.encode_image(pixels)[:, 0].sum(), routers)
    torch.testing.assert_close(parameters_to_vector(found), parameters_to_vector(expected), rtol=1e-4, atol=1e-6)
    assert parameters_to_vector(found).any()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(routed):
    pixels = images(routed)
    together = routed.encoder.encode_image(pixels)
    alone = torch.cat([routed.encoder.encode_image(image[None]) for image in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together.flip(0), routed.encoder.encode_image(pixels.flip(0)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_it_does_as_released_when_asked_to(small_model):
    routed, _ = assembled(small_model, batch_reduce=True)
    pixels = images(routed)
    together = routed.encoder.encode_image(pixels)
    alone = torch.cat([routed.encoder.encode_image(image[None]) for image in pixels])
    assert (together - alone).abs().max() > 1e-3
    per_image, _ = assembled(small_model)
    torch.testing.assert_close(alone, per_image.encoder.encode_image(pixels), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 2])
def test_constant_routers_are_task_arithmetic(small_model, layers):
    routed, pool = assembled(small_model, stirred=False, router_layers=layers)
    for mlp in mlps(routed):
        if layers:
            mlp.router.last.weight.zero_()
    merge = METHODS["task_arithmetic"].start(pool, MergeOptions(scaling=0.3))
    plain = load_encoder(str(small_model))
    plain.model.load_state_dict({**plain.model.state_dict(), **{name: merge(name) for name in pool.merged}})
    pixels = images(routed)
    torch.testing.assert_close(routed.encoder.encode_image(pixels), plain.encode_image(pixels), rtol=1e-5, atol=1e-5)


def test_task_vectors_are_pruned_tensor_by_tensor(small_model):
    routed, pool = assembled(small_model, prune_ratio=0.9)
    own = routed.encoder.model.state_dict()
    for name in routed.routed:
        assert torch.equal(own[name][0], pool.base.read(name))
        for kept, vector in zip(own[name][1:], pool.task_vectors(name), strict=True):
            assert torch.equal(kept, magnitude_pruned(vector, 0.9))


def test_only_the_routers_train_and_nothing_is_lost(small_model):
    routed, pool = assembled(small_model)
    width, mlps_of_both = 32, 2 * (2 * 32 * 128 + 128 + 32)
    trained = {name: p for name, p in routed.encoder.named_parameters() if p.requires_grad}
    assert list(trained) == [f"model.{name}" for name in routers_of(routed.encoder)]
    assert sum(p.numel() for p in trained.values()) == 2 * (width + 1) * (width + 3)
    assert {*routed.merged, *routed.routed} == set(pool.merged)
    numbers = sum(tensor.numel() for tensor in routed.encoder.image_tower.state_dict().values())
    plain = sum(tensor.numel() for tensor in load_encoder(str(small_model)).image_tower.state_dict().values())
    assert numbers == plain + 3 * mlps_of_both + 2 * (width + 1) * (width + 3)


def test_a_shared_router_is_one(small_model):
    routed, _ = assembled(small_model, shared_gate=True)
    first, second = mlps(routed)
    assert first.router is second.router
    assert sum(p.numel() for p in routers_of(routed.encoder).values()) == 33 * 35
    positioned, _ = assembled(small_model, shared_gate=True, position_dim=8)
    first, second = mlps(positioned)
    assert not torch.equal(first.position, second.position)
    assert sum(p.numel() for p in routers_of(positioned.encoder).values()) == 41 * 43


def test_the_efficient_version_has_its_published_options():
    assert WemoeOptions(prune_ratio=0.9, shared_gate=True) == E_WEMOE


@pytest.mark.parametrize("kind", ["resnet", "convnext", "siglip", "eva02"])
def test_towers_without_known_mlps_are_refused(kind):
    encoder = small.encoder(getattr(small, kind)())
    with pytest.raises(UserError, match="residual attention blocks, which the image tower of 'small'"):
        assemble(pool_of(encoder, 1), encoder, WemoeOptions())


def test_an_encoder_that_is_not_the_base_is_refused(small_model):
    encoder = load_encoder(str(small_model))
    pool = pool_of(encoder, 2)
    with torch.no_grad():
        encoder.model.visual.class_embedding += 1
    with pytest.raises(UserError, match="other weights than the base 'base'"):
        assemble(pool, encoder, WemoeOptions())


def test_tensors_of_the_text_tower_and_missing_mlps_are_refused(small_model):
    encoder = load_encoder(str(small_model))
    pool = pool_of(encoder, 2)
    with pytest.raises(UserError, match="'positional_embedding' is of another part"):
        assemble(Pool(pool.base, pool.models, (*pool.merged, "positional_embedding")), encoder, WemoeOptions())
    with pytest.raises(UserError, match="not among the tensors that are merged"):
        assemble(Pool(pool.base, pool.models, pool.merged[:3]), encoder, WemoeOptions())
    with pytest.raises(UserError, match="--base"):
        assemble(Pool(None, pool.models, pool.merged), encoder, WemoeOptions())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"router_layers": 3}, "--router-layers is 3"),
        ({"prune_ratio": 1.5}, "--prune-ratio is 1.5"),
        ({"gate_prune_ratio": -1.0}, "--gate-prune-ratio is -1"),
        ({"position_dim": 3, "shared_gate": True}, "--position-dim is 3"),
        ({"position_dim": 8}, "add --shared-gate"),
        ({"adapt_steps": -1}, "--adapt-steps"),
    ],
    ids=str,
)
def test_options_out_of_range_are_told(options, told):
    with pytest.raises(UserError, match=told):
        WemoeOptions(**options)


@torch.no_grad()
def test_images_of_these_tests_get_weights_of_their_own(small_model):
    routed, _ = assembled(small_model)
    seen = []
    mlps(routed)[0].router.register_forward_hook(lambda module, inputs, output: seen.append(output))
    routed.encoder.image_tower(images(routed))
    assert seen[0].std(dim=0).min() > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same(routed):
    pixels, routers = images(routed), list(routers_of(routed.encoder).values())
    expected = routed.encoder.encode_image(pixels)
    gradient = torch.autograd.grad(expected[:, 0].sum(), routers)
    on_gpu = routed.encoder.to("cuda")
    found = on_gpu.encode_image(pixels.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)
    again = torch.autograd.grad(found[:, 0].sum(), list(routers_of(on_gpu).values()))
    torch.testing.assert_close(parameters_to_vector(again).cpu(), parameters_to_vector(gradient), rtol=1e-2, atol=1e-3)
