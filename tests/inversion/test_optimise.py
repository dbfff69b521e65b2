"""The optimisation: equal to a plain loop, and independent of everything but the item."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F

from common.errors import UserError
from inversion import optimise
from inversion.optimise import INITIAL_STD, InversionOptions, initial_tokens, invert
from inversion.pseudo_image import PseudoImage
from inversion.pseudo_text import PseudoText
from tests.models import small

NAMES = ["a", "b", "ü", "a/b.jpg", "4", "", "seven"]
FEW = InversionOptions(steps=20)
ATOL = 1e-5  # of pseudo-tokens, whose size is 0.1 to 1


@pytest.fixture(scope="module")
def encoder():
    return small.encoder(small.clip(), noise=0)


@pytest.fixture(scope="module")
def tower(encoder):
    return PseudoText(encoder, n_tokens=2)


def targets(count=7, seed=0):
    return F.normalize(torch.randn(count, small.WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(tower, target, name, options):
    """The published optimisation of one item: nothing hoisted, batched or fused; (pseudo-tokens [K, width], losses [steps])."""
    tokens = initial_tokens([name], options.seed, tower.shape).requires_grad_()
    optimiser = torch.optim.AdamW([tokens], lr=options.lr, weight_decay=options.weight_decay, fused=False, foreach=False)
    losses = []
    for _ in range(options.steps):
        optimiser.zero_grad()
        loss = 1 - F.cosine_similarity(tower.features(tokens), target[None])
        (loss.sum() / 64).backward()
        losses.append(loss.item())
        optimiser.step()
    return tokens.detach()[0], torch.tensor(losses)


def test_the_start_of_an_item_comes_from_seed_and_name_alone():
    start = initial_tokens(NAMES, 42, (3, 50))
    assert start.dtype == torch.float32
    assert torch.equal(initial_tokens(NAMES[::-1], 42, (3, 50)), start.flip(0))
    assert torch.equal(initial_tokens(["ü"], 42, (3, 50))[0], start[2])
    assert not torch.isclose(initial_tokens(["ü"], 43, (3, 50))[0], start[2]).any()
    assert len(set(start[:, 0, 0].tolist())) == len(NAMES)
    assert initial_tokens(["\udce4"], 0, (1, 2)).shape == (1, 1, 2)  # a file name that is no UTF-8


def test_the_start_is_normal_with_the_published_deviation():
    start = initial_tokens([str(number) for number in range(200)], 0, (2, 64)) / INITIAL_STD
    assert start.mean().abs() < 5 / math.sqrt(start.numel())
    assert (start.var() - 1).abs() < 5 * math.sqrt(2 / start.numel())
    assert start[:, 0].flatten().dot(start[:, 1].flatten()).abs() / len(start[:, 0].flatten()) < 0.05


def test_the_start_stays_the_same_between_versions_and_machines():
    """Golden: drawn once by numpy 2.4. Another draw would leave resumed inversions half of one kind."""
    start = initial_tokens(["cat.jpg"], 42, (1, 4)).flatten()
    torch.testing.assert_close(
        start, torch.tensor([0.002270176773890853, -0.0005996436229906976, -0.01754116639494896, 0.009686028584837914]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("options", [FEW, InversionOptions(steps=12, lr=0.1, weight_decay=0.3, seed=0)], ids=["published", "other"])
def test_a_batch_is_what_a_plain_loop_gives_item_by_item(tower, options):
    """Among other things: a fused AdamW once took a gradient with other strides than its parameter's for another gradient."""
    found = invert(tower, targets(), NAMES, options)
    curves = []
    for row, (target, name) in enumerate(zip(targets(), NAMES, strict=True)):
        tokens, losses = by_hand(tower, target, name, options)
        torch.testing.assert_close(found.pseudo_tokens[row, -1], tokens, rtol=0, atol=ATOL)
        curves.append(losses)
    torch.testing.assert_close(found.curve, torch.stack(curves).mean(dim=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_the_loss_falls_strictly_over_the_published_steps(encoder, kind):
    tower = PseudoText(encoder) if kind == "text" else PseudoImage(encoder)
    found = invert(tower, targets(8), [str(number) for number in range(8)], InversionOptions())
    assert len(found.curve) == 150
    assert (found.curve.diff() < 0).all()
    assert found.losses.mean() < found.curve[-1] < 0.8 * found.curve[0]


def test_what_is_returned(tower):
    found = invert(tower, 7 * targets(), NAMES, InversionOptions(steps=4, snapshots=(2, 0, 2)))
    assert found.steps == (0, 2, 4)
    assert found.pseudo_tokens.shape == (7, 3, 2, small.WIDTH)
    assert torch.equal(found.pseudo_tokens[:, 0], initial_tokens(NAMES, 42, tower.shape))
    with torch.no_grad():
        features = torch.stack([tower.features(found.pseudo_tokens[:, step]) for step in range(3)], dim=1)
    torch.testing.assert_close(found.features, features, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.losses, 1 - F.cosine_similarity(features, targets()[:, None], dim=-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.losses.mean(dim=0)[:2], found.curve[[0, 2]], rtol=0, atol=1e-6)
    assert found.stopped.tolist() == [4] * 7
    for tensor in (found.pseudo_tokens, found.features, found.losses, found.curve):
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad


def test_a_snapshot_is_the_end_of_a_shorter_run(tower):
    long = invert(tower, targets(), NAMES, InversionOptions(steps=12, snapshots=(5,)))
    short = invert(tower, targets(), NAMES, InversionOptions(steps=5))
    assert torch.equal(long.pseudo_tokens[:, 0], short.pseudo_tokens[:, -1])


def test_snapshots_beyond_the_last_step_are_refused():
    with pytest.raises(UserError, match="Snapshot 160 does not lie between 0 and the 150 steps"):
        _ = InversionOptions(snapshots=(10, 160)).recorded


@pytest.mark.parametrize("rows", [[3], [6, 2, 5, 0, 1, 4, 3], [5, 1]], ids=["alone", "permuted", "two"])
@pytest.mark.parametrize("early", [{}, {"stop_below": 5e-2, "stop_over": 5, "check_every": 5}], ids=["every step", "early stop"])
def test_an_item_does_not_depend_on_the_others(tower, rows, early):
    options = InversionOptions(steps=30, snapshots=(12,), **early)
    every = invert(tower, targets(), NAMES, options)
    some = invert(tower, targets()[rows], [NAMES[row] for row in rows], options)
    torch.testing.assert_close(some.pseudo_tokens, every.pseudo_tokens[rows], rtol=0, atol=ATOL)
    torch.testing.assert_close(some.features, every.features[rows], rtol=0, atol=ATOL)
    assert torch.equal(some.stopped, every.stopped[rows])
    assert bool(early) == (len(set(every.stopped.tolist())) > 1)


def test_a_batch_of_64_is_64_runs(encoder):
    tower, names, options = PseudoText(encoder), [f"{number}.jpg" for number in range(64)], InversionOptions(steps=3)
    batch = invert(tower, targets(64), names, options)
    alone = [invert(tower, targets(64)[[row]], [name], options) for row, name in enumerate(names)]
    for field in ("pseudo_tokens", "features", "losses"):
        expected = torch.cat([getattr(of, field) for of in alone])
        torch.testing.assert_close(getattr(batch, field), expected, rtol=0, atol=ATOL)


def test_filling_a_batch_up_changes_nothing(tower):
    plain, filled = (invert(tower, targets(), NAMES, FEW, pad_to=size) for size in (0, 16))
    torch.testing.assert_close(filled.pseudo_tokens, plain.pseudo_tokens, rtol=0, atol=ATOL)
    torch.testing.assert_close(filled.curve, plain.curve, rtol=0, atol=1e-6)
    assert filled.stopped.tolist() == [20] * 7


@pytest.mark.parametrize("stop", [{"stop_at_cosine": 0.4}, {"stop_below": 4e-2, "stop_over": 6}], ids=["cosine", "plateau"])
def test_a_stopped_item_is_what_a_run_of_so_many_steps_gives(tower, stop):
    """When it stops is checked against the losses of a run that takes every step, one item at a time."""
    options = InversionOptions(steps=40, check_every=4, snapshots=(3, 25), **stop)
    found = invert(tower, targets(), NAMES, options)
    for row, name in enumerate(NAMES):
        losses = invert(tower, targets()[[row]], [name], InversionOptions(steps=40)).curve
        if "stop_at_cosine" in stop:
            due = [step for step in range(4, 40, 4) if 1 - losses[step] >= 0.4]
        else:
            due = [step for step in range(8, 40, 4) if losses[step - 6] - losses[step] < 4e-2]
        stopped = due[0] if due else 40
        assert found.stopped[row] == stopped
        shorter = invert(tower, targets()[[row]], [name], InversionOptions(steps=stopped, snapshots=(min(25, stopped), min(3, stopped))))
        torch.testing.assert_close(found.pseudo_tokens[row, -1], shorter.pseudo_tokens[0, -1], rtol=0, atol=ATOL)
        torch.testing.assert_close(
            found.pseudo_tokens[row, 1], shorter.pseudo_tokens[0, shorter.steps.index(min(25, stopped))], rtol=0, atol=ATOL
        )
    assert len(set(found.stopped.tolist())) > 1
    assert found.curve[-1] < found.curve[0]


def test_when_all_have_stopped_nothing_more_is_computed(tower, monkeypatch):
    calls = []
    plain = optimise._item_losses
    monkeypatch.setattr(optimise, "_item_losses", lambda *args: calls.append(len(args[1])) or plain(*args))
    found = invert(tower, targets(), NAMES, InversionOptions(steps=100, stop_at_cosine=0.01, check_every=10))
    assert len(calls) == found.stopped.max() + 1 < 100
    assert calls[0] == 7
    assert torch.isfinite(found.curve).all()


def test_a_compiled_loss_meets_few_shapes(tower, monkeypatch):
    """One without early stopping, however small the last batch; with it the batch, its half, quarter and eighth."""
    shapes = set()
    plain = optimise._item_losses
    monkeypatch.setattr(optimise, "_compiled", lambda: lambda *args: shapes.add(len(args[1])) or plain(*args))
    names = [str(number) for number in range(40)]
    whole = invert(tower, targets(40), names, InversionOptions(steps=5, compile=True), pad_to=40)
    part = invert(tower, targets(40)[:7], names[:7], InversionOptions(steps=5, compile=True), pad_to=40)
    assert shapes == {40}
    torch.testing.assert_close(part.pseudo_tokens, whole.pseudo_tokens[:7], rtol=0, atol=ATOL)
    early = {"steps": 60, "stop_at_cosine": 0.5, "check_every": 2}
    stopped, expected = (invert(tower, targets(40), names, InversionOptions(**early, compile=each)) for each in (True, False))
    assert {40} < shapes <= {40, 20, 10, 5}
    assert torch.equal(stopped.stopped, expected.stopped)
    torch.testing.assert_close(stopped.pseudo_tokens, expected.pseudo_tokens, rtol=0, atol=1e-4)


def test_bf16_learns_float32_pseudo_tokens_that_are_encoded_exactly(tower):
    exact = invert(tower, targets(), NAMES, FEW)
    found = invert(tower, targets(), NAMES, FEW, lambda: torch.autocast("cpu", torch.bfloat16))
    assert not torch.equal(found.pseudo_tokens, exact.pseudo_tokens)
    with torch.no_grad():
        features = tower.features(found.pseudo_tokens[:, -1])
    torch.testing.assert_close(found.features[:, -1], features, rtol=0, atol=1e-6)
    assert (found.losses.mean() - exact.losses.mean()).abs() < 0.02


def test_the_weights_get_no_gradient(encoder):
    model = small.encoder(small.clip(), noise=0)
    model.model.requires_grad_(True)
    with torch.no_grad():  # whatever the caller has switched off
        found = invert(PseudoText(model, n_tokens=2), targets(), NAMES, FEW)
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(found.pseudo_tokens, invert(PseudoText(encoder, n_tokens=2), targets(), NAMES, FEW).pseudo_tokens)


class Overflowing:
    """A tower whose features of one item are not finite from some size of its pseudo-tokens on."""

    shape = (1, small.WIDTH)

    def features(self, pseudo_tokens):
        features = F.normalize(pseudo_tokens[:, 0], dim=-1)
        return torch.where((pseudo_tokens[:, 0].abs().amax(dim=1, keepdim=True) > 0.2), features / 0, features)


def test_a_loss_that_is_not_finite_names_the_item_and_the_remedy():
    with pytest.raises(UserError, match=r"The loss of 'a' and of 6 more is not finite; use --precision fp32 or a lower --learning-rate"):
        invert(Overflowing(), targets(), NAMES, FEW)


def test_a_target_that_is_not_finite_is_refused_before_any_work(tower):
    wrong = targets()
    wrong[3, 5] = math.nan
    with pytest.raises(UserError, match=r"The target of 'a/b.jpg' is not finite"):
        invert(tower, wrong, NAMES, FEW)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_nothing_waits_for_the_device_in_the_loop(monkeypatch):
    model = small.encoder(small.clip(), noise=0).cuda()
    tower = PseudoText(model, n_tokens=2)
    invert(tower, targets().cuda(), NAMES, FEW)
    run = optimise._Descent.run

    def watched(*args):
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(*args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(optimise._Descent, "run", watched)
    found = invert(tower, targets().cuda(), NAMES, InversionOptions(steps=20, snapshots=(3,)), nullcontext)
    exact = invert(PseudoText(small.encoder(small.clip(), noise=0), n_tokens=2), targets(), NAMES, FEW)
    torch.testing.assert_close(found.pseudo_tokens[:, -1], exact.pseudo_tokens[:, -1], rtol=0, atol=1e-3)
