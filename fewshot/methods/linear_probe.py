"""A linear probe: logistic regression on the image features, without texts, as CLIP's authors fit it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.data import Features, FewShotData
from fewshot.logistic import Linear, at_zero, logistic_regression
from fewshot.method import Fitted, Method
from fewshot.options import FewShotOptions
from metrics.linear_probe import INVERSE_PENALTY, LENGTH, STEPS

PER_DECADE, LAST = 8, 48  # penalties are 10^(i/8) for i from -48 to 48: 1e-6 to 1e6
COARSE = 2 * PER_DECADE  # every second decade to begin with


def linear_probe(data: FewShotData, options: FewShotOptions) -> Fitted:
    """Logits W x + b of the image features x, by logistic regression with an L2 penalty that validation images choose.

    With ``fixed`` search or without validation images the penalty is that of CLIP's published example, 1 / 0.316. L-BFGS takes at
    most 1000 steps; features are brought to length 10, about that of what CLIP's towers give. Source: Radford et al., CLIP, ICML
    2021, appendix A.3.
    """
    fit, val = ProbeFit(data), data.val
    if val is None or len(val) == 0 or options.search == "fixed":
        search, penalty, probe = "fixed", 1 / INVERSE_PENALTY, fit.at(1 / INVERSE_PENALTY)
    else:
        search, (penalty, probe) = "halving", searched(fit, val)
    return Fitted({"penalty": penalty}, probe.logits, None if val is None else probe.correct(val), {"search": search})


@dataclass(frozen=True, eq=False)
class Probe:
    """A classifier of C ``classes``: ``linear`` takes rows less ``mean`` [D], and knows only the classes ``present``."""

    linear: Linear
    mean: Tensor
    present: Tensor
    classes: int

    def logits(self, images: Features) -> Tensor:
        """Logits [N, C]; those of a class without labelled images are below all others."""
        known = self.linear.logits(lengthened(images) - self.mean).float()
        others = (known.amin(dim=1, keepdim=True) - 1).repeat(1, self.classes)
        return others.index_copy(1, self.present, known)

    def correct(self, images: Features) -> int:
        """How many images it classifies right."""
        return int((self.logits(images).argmax(dim=1) == images.labels).sum())


class ProbeFit:
    """Fits probes to the labelled images of ``data``."""

    def __init__(self, data: FewShotData) -> None:
        self.classes = data.classes
        self.present, self.labels = data.cache.labels.unique(return_inverse=True)
        rows = lengthened(data.cache)
        self.mean = rows.mean(dim=0)
        self.rows = rows - self.mean  # the intercept makes up for it, and the minimum is found in far fewer steps

    def at(self, penalty: float, start: Probe | None = None) -> Probe:
        """The probe for a penalty, looked for from ``start`` on."""
        first = at_zero(len(self.present), self.rows) if start is None else start.linear
        linear = logistic_regression(self.rows, self.labels, penalty, STEPS, first)
        return Probe(linear, self.mean, self.present, self.classes)


def searched(fit: ProbeFit, val: Features) -> tuple[float, Probe]:
    """The best penalty of 97 between 1e-6 and 1e6 and its probe, as CLIP's authors look for it; of equals, the greatest.

    First every second decade is tried, then neighbours of the best at half the distance, and so on to an eighth of a decade: at
    most 15 fits, each from the one beside it.
    """
    probe = None
    probes, correct = dict[int, Probe](), dict[int, int]()
    for place in range(LAST, -LAST - 1, -COARSE):
        probes[place] = probe = fit.at(penalty_at(place), probe)
        correct[place] = probe.correct(val)
    step = COARSE
    while step > 1:
        step //= 2
        best = max(probes, key=lambda place: (correct[place], place))
        for place in (best - step, best + step):
            if place not in probes and abs(place) <= LAST:
                probes[place] = fit.at(penalty_at(place), probes[best])
                correct[place] = probes[place].correct(val)
    best = max(probes, key=lambda place: (correct[place], place))
    return penalty_at(best), probes[best]


def penalty_at(place: int) -> float:
    """10^(place / 8)."""
    return float(10.0 ** (place / PER_DECADE))


def lengthened(images: Features) -> Tensor:
    """Original features of length 10 [N, D], in float64 where the device has it."""
    rows = images.original
    return LENGTH * rows.to(torch.float32 if rows.device.type == "mps" else torch.float64)


METHOD = Method(
    "linear_probe",
    "logistic regression on the image features, without texts",
    "Radford et al., ICML 2021 (arXiv:2103.00020)",
    needs_adapter=False,
    trains=True,
    fit=linear_probe,
)
