"""All alphas at once, against one argmax for each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fewshot.sweep
from fewshot.sweep import Base, Slope, Sweep, best_in

ALPHAS = torch.linspace(0, 20, 200)


def drawn(images=120, classes=9, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    base = scale * torch.randn(images, classes, generator=generator) + 20
    slope = 4 * torch.rand(images, classes, generator=generator)
    base[torch.arange(images), labels] += scale
    slope[torch.arange(images), labels] += 1
    return base, slope, labels


def counts_on_grid(base, slope, labels, alphas):
    return Sweep(base, slope, labels).counts(alphas.to(base.dtype), torch.zeros_like(labels), 1)[0]


def correct_intervals(base, slope, labels):
    """Between which alphas the label of each image wins, by the quotients where it ties with each other class."""
    own = labels[:, None]
    ahead, faster = base.gather(1, own) - base, slope - slope.gather(1, own)
    quotients = ahead.scatter(1, own, torch.inf) / faster
    return quotients.masked_fill(faster >= 0, -torch.inf).amax(dim=1), quotients.masked_fill(faster < 0, torch.inf).amin(dim=1)


def by_argmax(base, slope, labels, alphas):
    return torch.stack([((base + alpha * slope).argmax(dim=1) == labels).sum() for alpha in alphas])


@pytest.mark.parametrize("classes", [1, 2, 9, 40])
@pytest.mark.parametrize("class_by_class", [False, True])
def test_counts_are_those_of_every_point(classes, class_by_class):
    base, slope, labels = drawn(classes=classes)
    if class_by_class:
        base, slope = base.T.contiguous().T, slope.T.contiguous().T
    assert torch.equal(counts_on_grid(base, slope, labels, ALPHAS), by_argmax(base, slope, labels, ALPHAS))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6), levels=st.sampled_from([1, 2, 4]), offset=st.sampled_from([0.0, 1e3, -1e3]))
def test_counts_are_those_of_every_point_where_logits_tie(seed, classes, levels, offset):
    base, slope, labels = drawn(30, classes, seed)
    base, slope = (base * levels).round() / levels + offset, (slope * levels).round() / levels
    alphas = torch.arange(0, 10, 0.25)
    assert torch.equal(counts_on_grid(base, slope, labels, alphas), by_argmax(base, slope, labels, alphas))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1e6])
def test_counts_for_slopes_of_any_size(size):
    base, slope, labels = drawn()
    assert torch.equal(counts_on_grid(base, slope * size, labels, ALPHAS), by_argmax(base, slope * size, labels, ALPHAS))


def test_counts_where_one_ulp_decides():
    """Two classes whose logits cross exactly at points of the grid, to the last bit."""
    alphas = ALPHAS[1:]
    base = torch.stack([alphas, torch.zeros_like(alphas)], dim=1)
    slope = torch.tensor([[0.0, 1.0]]).expand(len(alphas), 2)
    for label in (0, 1):
        labels = torch.full((len(alphas),), label)
        assert torch.equal(counts_on_grid(base, slope, labels, alphas), by_argmax(base, slope, labels, alphas))


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("of_base, of_slope", [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_counts_where_all_logits_are_the_same(label, of_base, of_slope):
    base, slope = of_base * torch.tensor([[0.0, 1.0], [1.0, 0.0]]), of_slope * torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([label, label])
    assert torch.equal(counts_on_grid(base, slope, labels, ALPHAS), by_argmax(base, slope, labels, ALPHAS))


def test_plain_evaluation_in_parts(monkeypatch):
    monkeypatch.setattr(fewshot.sweep, "PAIRS", 1)
    base, slope, labels = drawn(40)
    base, slope = base.round(), slope.round()
    assert torch.equal(counts_on_grid(base, slope, labels, ALPHAS), by_argmax(base, slope, labels, ALPHAS))


def test_few_points_need_plain_evaluation(monkeypatch):
    """Else the sweep would be a grid."""
    base, slope, labels = drawn(2000, 50)
    evaluated = []
    plain = Sweep._logits
    monkeypatch.setattr(Sweep, "_logits", lambda self, rows, alphas: evaluated.append(len(rows)) or plain(self, rows, alphas))
    counts_on_grid(base, slope, labels, ALPHAS)
    assert 0 < sum(evaluated) < 0.05 * 2000


@pytest.mark.parametrize("gamma", [0.0, 0.7, 30.0])
@pytest.mark.parametrize("levels", [None, 1.0])
def test_decided_images_are_right_at_all_alphas_or_at_none(gamma, levels):
    base, slope, labels = drawn()
    if levels is not None:
        base, slope = base.round(), slope.round()
    shift = -slope.flip(0) / 8
    right, undecided, *logits = Slope(Base(base, labels, shift), slope, 20.0).undecided(gamma)
    at = torch.stack([((base + gamma * shift) + alpha * slope).argmax(dim=1) == labels for alpha in ALPHAS])
    wrong = ~right
    wrong[undecided] = False
    assert at[:, right].all()
    assert not at[:, wrong].any()
    assert right.any() or gamma > 1
    assert wrong.any()
    assert 0 < len(undecided) < 0.75 * len(labels)
    for part, expected in zip(logits, (base + gamma * shift, slope), strict=True):
        assert torch.equal(part, expected[undecided])


def test_lines_are_counted_apart():
    base, slope, labels = drawn()
    line = torch.arange(len(labels)) % 3
    counts = Sweep(base, slope, labels).counts(ALPHAS, line, 4)
    for number in range(4):
        assert torch.equal(counts[number], by_argmax(base[line == number], slope[line == number], labels[line == number], ALPHAS))


def test_intervals_are_where_the_label_wins():
    base, slope, labels = (part.double() if part.is_floating_point() else part for part in drawn(80))
    low, high = correct_intervals(base, slope, labels)
    for alpha in torch.linspace(-5, 25, 301, dtype=torch.float64):
        right = (base + alpha * slope).argmax(dim=1) == labels
        assert torch.equal(right, (low < alpha) & (alpha < high))


def test_certain_lies_in_possible():
    base, slope, labels = drawn()
    sweep = Sweep(base, slope, labels)
    (low, high), (least, greatest) = sweep.certain, sweep.possible
    low, least = low.clamp(min=0), least.clamp(min=0)
    some = low <= high
    assert some.any()
    assert ((least <= low) & (high <= greatest))[some].all()


@pytest.mark.parametrize("seed", range(5))
def test_no_alpha_is_better_than_the_best(seed):
    base, slope, labels = drawn(seed=seed)
    best = best_in(*Sweep(base, slope, labels).certain, 0, 20)
    assert best.correct == int(((base + best.alpha * slope).argmax(dim=1) == labels).sum())
    low, high = correct_intervals(base.double(), slope.double(), labels)
    ends = torch.cat([low, high, torch.tensor([0.0, 20.0])]).clamp(0, 20).unique()
    between = (ends[1:] + ends[:-1])[ends.diff() > 1e-4] / 2
    assert best.correct == int(by_argmax(base, slope, labels, between.float()).max())
    assert best.correct >= int(by_argmax(base, slope, labels, ALPHAS).max())
    assert best.low < best.alpha < best.high


def test_the_middle_of_the_widest_of_the_best_intervals():
    lows, highs = torch.tensor([0.0, 1.0, 5.0, 3.0]), torch.tensor([2.0, 4.0, 9.0, 2.5])
    best = best_in(lows, highs, 0, 20)
    assert best == (1.5, 2, 1.0, 2.0)
    assert best_in(lows, highs, 4.5, 20) == (7.0, 1, 5.0, 9.0)


def test_the_best_where_no_image_is_ever_right():
    best = best_in(torch.tensor([3.0]), torch.tensor([2.0]), 0, 20)
    assert best == (10.0, 0, 0.0, 20.0)
