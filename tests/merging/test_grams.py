"""Gram matrices against loops over tokens, and what the regression makes of them against the textbook formula."""

import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

from merging.grams import Grams
from merging.regression import Regression, cholesky, shrink

OPEN_CLIP = {"attn.in_proj_weight": "ln_1", "mlp.c_fc.weight": "ln_2", "mlp.c_proj.weight": "mlp.gelu"}  # what each reads
TIMM = {"attn.qkv.weight": "norm1", "mlp.fc1.weight": "norm2", "mlp.fc2.weight": "mlp.drop1"}


class Apart(nn.Module):
    """Three maps of one tensor, as in architectures that keep query, key and value apart."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = x * 2
        return self.out(self.q(x) + self.k(x) * self.v(x))


def build(kind):
    torch.manual_seed(0)
    if kind == "timm":
        return Block(8, 2).eval(), TIMM
    return ResidualAttentionBlock(8, 2, batch_first=kind == "open_clip").eval(), OPEN_CLIP


def tokens(width=8):
    return torch.randn(5, 3, width, generator=torch.Generator().manual_seed(1))


def watched(block, batches, wanted=None):
    grams = Grams(block, [name for name, _ in block.named_parameters()] if wanted is None else wanted)
    with torch.no_grad(), grams.watching():
        for batch in batches:
            block(batch)
    return grams


def by_loop(inputs):
    rows = inputs.reshape(-1, inputs.shape[-1]).double()
    return sum(torch.outer(row, row) for row in rows) / len(rows)


@pytest.mark.parametrize("kind", ["open_clip", "tokens first", "timm"])
def test_a_matrix_is_the_mean_of_outer_products_of_what_a_weight_reads(kind):
    block, reads = build(kind)
    seen = {}
    for weight, name in reads.items():
        block.get_submodule(name).register_forward_hook(lambda module, inputs, output, weight=weight: seen.update({weight: output}))
    found = watched(block, [tokens()])
    for weight in reads:
        torch.testing.assert_close(found.mean(weight).double(), by_loop(seen[weight]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_last_map_of_an_attention_reads_its_heads(batch_first):
    block, _ = build("open_clip" if batch_first else "tokens first")
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    rows = []
    for image in tokens() if batch_first else tokens().transpose(0, 1):
        x = F.layer_norm(image, (8,))
        for i in range(len(x)):
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                q, k, v = (x @ weight[8 * n : 8 * n + 8][head].T + bias[8 * n : 8 * n + 8][head] for n in range(3))
                heads.append((q[i] @ k.T / 2).softmax(dim=0) @ v)
            rows.append(torch.cat(heads))
    found = watched(block, [tokens()])
    torch.testing.assert_close(found.mean("attn.out_proj.weight").double(), by_loop(torch.stack(rows)), rtol=1e-5, atol=1e-6)


def test_batches_do_not_matter():
    block, _ = build("open_clip")
    whole, parts = watched(block, [tokens()]), watched(block, tokens().split(2))
    assert whole.names == parts.names
    for name in whole.names:
        torch.testing.assert_close(whole.mean(name), parts.mean(name), rtol=1e-5, atol=1e-6)


def test_weights_that_read_one_input_share_a_matrix():
    grams = watched(Apart(), [tokens(4), tokens(4)])
    assert set(grams.names) == {"q.weight", "k.weight", "v.weight", "out.weight"}
    assert len(grams._sums) == 2
    assert torch.equal(grams.mean("v.weight"), grams.mean("q.weight"))
    torch.testing.assert_close(grams.mean("q.weight").double(), by_loop(2 * tokens(4)), rtol=1e-5, atol=1e-6)


def test_only_what_is_wanted_is_computed_and_nothing_watches_afterwards():
    block, _ = build("open_clip")
    grams = watched(block, [tokens()], ["mlp.c_fc.weight"])
    assert grams.names == ["mlp.c_fc.weight"]
    before = grams.mean("mlp.c_fc.weight")
    block(2 * tokens())
    assert torch.equal(grams.mean("mlp.c_fc.weight"), before)


def draw(count, rows=40, width=6, out=4):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(rows, width, generator=generator) @ torch.randn(width, width, generator=generator) for _ in range(count)]
    return inputs, [torch.randn(out, width, generator=generator) for _ in range(count)]


def regressed(inputs, weights, ratio=0.95):
    regression = Regression(ratio)
    for x, weight in zip(inputs, weights, strict=True):
        regression.add(x.T @ x / len(x), weight)
    return regression.solve(lambda: torch.stack(weights).mean(dim=0))


@pytest.mark.parametrize("ratio", [0.0, 0.95, 1.0])
def test_the_regression_is_the_textbook_formula(ratio):
    inputs, weights = draw(3)
    s, r = 0, 0
    for x, weight in zip(inputs, weights, strict=True):
        gram = (x.T @ x / len(x)).double()
        shrunk = torch.tensor([[gram[i, j] * (1 if i == j else ratio) for j in range(6)] for i in range(6)], dtype=torch.float64)
        s, r = s + shrunk, r + shrunk @ weight.double().T
    found, ridge = regressed(inputs, weights, ratio)
    assert ridge == 0
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), (torch.linalg.inv(s) @ r).T, rtol=1e-5, atol=1e-6)


def test_without_shrinking_it_minimises_the_squared_error():
    inputs, weights = draw(2)
    stacked = torch.cat(inputs).double()
    answers = torch.cat([x @ weight.T for x, weight in zip(inputs, weights, strict=True)]).double()
    found, _ = regressed(inputs, weights, ratio=1.0)
    torch.testing.assert_close(found.double(), torch.linalg.lstsq(stacked, answers).solution.T, rtol=1e-4, atol=1e-5)


def test_units_of_the_inputs_do_not_matter():
    inputs, weights = draw(2)
    units = torch.tensor([1e-4, 1e-2, 1.0, 1e2, 1e3, 1e4])
    found, ridge = regressed([x * units for x in inputs], [weight / units for weight in weights])
    assert ridge == 0
    torch.testing.assert_close(found * units, regressed(inputs, weights)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dead", ["an input is 0", "two inputs are equal"])
def test_what_the_inputs_leave_open_is_the_average(dead):
    inputs, weights = draw(2)
    for x in inputs:
        x[:, 1] = 0 if dead == "an input is 0" else x[:, 0]
    found, ridge = regressed(inputs, weights, ratio=1.0)
    average = torch.stack(weights).mean(dim=0)
    assert ridge > 0
    open_part = (lambda w: w[:, 1]) if dead == "an input is 0" else (lambda w: w[:, 0] - w[:, 1])
    torch.testing.assert_close(open_part(found), open_part(average), rtol=0.05, atol=0.02)
    same, _ = regressed(inputs, [weights[0], weights[0]], ratio=1.0)
    torch.testing.assert_close(same, weights[0], rtol=1e-5, atol=1e-5)


def test_shrinking_keeps_the_diagonal():
    found = shrink(torch.tensor([[4.0, 2.0], [2.0, 3.0]]), 0.5)
    assert found.tolist() == [[4.0, 1.0], [1.0, 3.0]]


def test_no_ridge_helps_a_matrix_that_is_no_gram_matrix():
    with pytest.raises(ArithmeticError):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))
