"""Blocks, projections, MLPs and biases: what is found is shown to be it by what happens when it is set to zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from open_clip.transformer import Attention as OpenClipAttention
from timm.layers.attention import Attention as TimmAttention
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.eva import EvaAttention, EvaBlock
from torch import Tensor, nn

from models.parts import (
    Tower,
    attention_projections,
    bias_parameters,
    image_tower,
    last_blocks,
    mlp_linears,
    named_blocks,
    projections_in,
    text_tower,
    towers,
)
from tests.models import small

WIDTH, LENGTH = 16, 5


class _Unlike(nn.Module):
    """``nn.MultiheadAttention`` with keys and values of another width, as in CoCa's pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, kdim=24, vdim=24, batch_first=True)
        self.widen = torch.randn(WIDTH, 24, generator=torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        other = x @ self.widen
        return self.attention(x, other, other, need_weights=False)[0]


class _Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


FORMS: dict[str, Callable[[], nn.Module]] = {
    "nn.MultiheadAttention": _Packed,
    "nn.MultiheadAttention, other widths": _Unlike,
    "open_clip Attention": lambda: OpenClipAttention(WIDTH, 2),
    "timm Attention": lambda: TimmAttention(WIDTH, 2, qkv_bias=True),
    "timm EvaAttention, fused": lambda: EvaAttention(WIDTH, 2, qkv_fused=True, norm_layer=nn.LayerNorm),
    "timm EvaAttention, separate": lambda: EvaAttention(WIDTH, 2, qkv_fused=False, norm_layer=nn.LayerNorm),
    "timm AttentionPoolLatent": lambda: AttentionPoolLatent(WIDTH, num_heads=2),
}


def _with_zeros(form: str, *roles: str) -> Tensor:
    """What a seeded attention of some form makes of a seeded input, the rows of ``roles`` set to zero."""
    torch.manual_seed(0)
    module = FORMS[form]().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    holder = nn.Module()
    holder.attention = module
    found = projections_in(Tower("image", holder, "visual.", "test"), holder)
    assert sorted(projection.role for projection in found) == ["k", "q", "v"]
    with torch.no_grad():
        for projection in found:
            if projection.role in roles:
                projection.weight[projection.start : projection.stop] = 0
        return module(torch.randn(2, LENGTH, WIDTH))


@pytest.mark.parametrize("form", FORMS)
def test_projections_are_what_they_are_called(form: str) -> None:
    """Without K all is attended alike, with or without Q; without Q the query's bias still prefers some; without V nothing is left of x."""
    plain, no_q, no_k, no_v, no_qk = (_with_zeros(form, *roles) for roles in ("", "q", "k", "v", "qk"))
    torch.testing.assert_close(no_k, no_qk)
    assert not torch.allclose(no_q, no_qk)
    assert not torch.allclose(no_q, plain)
    torch.testing.assert_close(no_v[0], no_v[1])  # two inputs, one output
    assert not torch.allclose(plain[0], plain[1])


def test_a_latent_query_without_projection_has_only_k_and_v() -> None:
    holder = nn.Module()
    holder.pool = AttentionPoolLatent(WIDTH, num_heads=2, q_proj=False)
    found = projections_in(Tower("image", holder, "visual.", "test"), holder)
    assert [projection.role for projection in found] == ["k", "v"]


def test_blocks_come_in_order_with_their_names_in_the_model() -> None:
    encoder = small.encoder(small.clip())
    for tower, prefix in zip(towers(encoder), ("visual.transformer", "transformer"), strict=True):
        blocks = named_blocks(tower)
        assert list(blocks) == [f"{prefix}.resblocks.{index}" for index in range(3)]
        for name, block in blocks.items():
            assert encoder.model.get_submodule(name) is block


def test_last_blocks_are_the_last_and_at_most_all() -> None:
    tower = image_tower(small.encoder(small.clip()))
    every = list(named_blocks(tower).values())
    assert last_blocks(tower, 2) == every[1:]
    assert last_blocks(tower, 12) == every


@pytest.mark.parametrize(
    ("build", "count"),
    [(small.resnet, 5), (small.convnext, 12)],
)
def test_convolutional_towers_have_blocks_but_no_attention(build: Callable[[], nn.Module], count: int) -> None:
    tower = image_tower(small.encoder(build()))
    assert len(named_blocks(tower)) == count
    assert attention_projections(tower) == []
    assert all(bias_parameters(block) for block in last_blocks(tower, count))


def test_a_huggingface_tower_has_blocks_but_no_attention_for_us(tmp_path: Path) -> None:
    tower = text_tower(small.encoder(small.huggingface_text(tmp_path), vocabulary=100, length=20))
    assert list(named_blocks(tower)) == ["text.transformer.encoder.layer.0", "text.transformer.encoder.layer.1"]
    assert attention_projections(tower) == []


def test_pooling_attention_counts_as_attention_but_not_as_a_block() -> None:
    encoder = small.encoder(small.coca(), length=76)
    tower = image_tower(encoder)
    assert len(named_blocks(tower)) == 3
    assert len(attention_projections(tower)) == 3 * (3 + 1)
    assert attention_projections(tower)[-1].weight is encoder.model.visual.attn_pool.attn.v_proj_weight


@pytest.mark.parametrize("build", [small.clip, small.custom_text])
def test_the_towers_share_nothing_and_leave_only_the_scale(build: Callable[[], nn.Module]) -> None:
    encoder = small.encoder(build())
    image, text = ({id(parameter) for parameter in tower.parameters()} for tower in towers(encoder))
    assert not image & text
    rest = [name for name, parameter in encoder.model.named_parameters() if id(parameter) not in image | text]
    assert rest == ["logit_scale"]


def test_mlps_have_two_linear_layers_or_three_when_gated() -> None:
    block = last_blocks(image_tower(small.encoder(small.clip())), 1)[0]
    assert [linear.module for linear in mlp_linears(block)] == [block.mlp.c_fc, block.mlp.c_proj]
    gated = EvaBlock(WIDTH, 2, swiglu_mlp=True, scale_mlp=True, norm_layer=nn.LayerNorm)
    assert len(mlp_linears(gated)) == 3
    assert mlp_linears(nn.Linear(2, 2)) == []


def test_biases_are_all_biases_of_a_block() -> None:
    block = last_blocks(text_tower(small.encoder(small.clip())), 1)[0]
    found = {id(bias) for bias in bias_parameters(block)}
    expected = [
        block.ln_1.bias,
        block.attn.in_proj_bias,
        block.attn.out_proj.bias,
        block.ln_2.bias,
        block.mlp.c_fc.bias,
        block.mlp.c_proj.bias,
    ]
    assert found == {id(bias) for bias in expected}
    fused = EvaAttention(WIDTH, 2, qkv_fused=True, norm_layer=nn.LayerNorm)
    assert {id(fused.q_bias), id(fused.v_bias)} < {id(bias) for bias in bias_parameters(fused)}
