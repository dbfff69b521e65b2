"""The straight line through a few points, and all that can honestly be said from it: errors, bands, intervals, R2, p.

Ordinary least squares in closed form, with Student's t for every statement about uncertainty: with the handful of tasks
that people have fine-tuned on, the normal distribution would be far too sure. Source: Draper and Smith, "Applied Regression
Analysis" (3rd edition), chapters 1, 3 and 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Float64 = NDArray[np.float64]

SAME = 1e-12  # a spread of less than this share of the values is rounding, not spread


class UndefinedError(ValueError):
    """A quantity that these numbers do not define, told in one sentence."""


@dataclass(frozen=True, eq=False)
class Line:
    """y = intercept + slope x, fitted to the n points (x, y); made by :func:`fit`. All levels are shares, as 0.95."""

    x: Float64
    y: Float64
    slope: float
    intercept: float

    @property
    def n(self) -> int:
        """How many points."""
        return len(self.x)

    @property
    def degrees_of_freedom(self) -> int:
        """n - 2: two numbers were fitted."""
        return self.n - 2

    @cached_property
    def residuals(self) -> Float64:
        """e_i = y_i - (intercept + slope x_i), [n]."""
        return self.y - self.at(self.x)

    @cached_property
    def residual_stderr(self) -> float:
        """s = sqrt(sum e_i^2 / (n - 2)): how far points lie from the line."""
        return float(np.sqrt(self.residuals @ self.residuals / self.degrees_of_freedom))

    @property
    def slope_stderr(self) -> float:
        """s / sqrt(Sxx), Sxx = sum (x_i - mean x)^2."""
        return self.residual_stderr / float(np.sqrt(_squares(self.x)))

    @property
    def intercept_stderr(self) -> float:
        """s sqrt(1/n + (mean x)^2 / Sxx)."""
        return float(self.line_stderr(0.0))

    @property
    def r2(self) -> float:
        """The share of the variance of y that the line explains, 1 - sum e_i^2 / sum (y_i - mean y)^2."""
        return max(0.0, 1 - float(self.residuals @ self.residuals) / _squares(self.y))

    @property
    def p(self) -> float:
        """Two-sided p-value of "the slope is 0": t = slope / stderr with n - 2 degrees of freedom."""
        if self.slope_stderr == 0:
            return 0.0  # the points lie on the line exactly, and the line is not level (fit refuses a constant y)
        return float(2 * stats.t.sf(abs(self.slope) / self.slope_stderr, self.degrees_of_freedom))

    def at(self, x: ArrayLike) -> Float64:
        """The line's height at ``x``."""
        return self.intercept + self.slope * np.asarray(x, np.float64)

    def line_stderr(self, x: ArrayLike) -> Float64:
        """Standard error of the line's height, s sqrt(1/n + (x - mean x)^2 / Sxx)."""
        return self.residual_stderr * np.sqrt(self._leverage(x))

    def confidence_band(self, x: ArrayLike, level: float = 0.95) -> tuple[Float64, Float64]:
        """Lower and upper end at ``x`` between which the true line lies with probability ``level`` (at each x by itself)."""
        return self._around(x, self.line_stderr(x), level)

    def prediction_interval(self, x: ArrayLike, level: float = 0.95) -> tuple[Float64, Float64]:
        """Lower and upper end of where a NEW point at ``x`` falls with probability ``level``.

        intercept + slope x -+ t s sqrt(1 + 1/n + (x - mean x)^2 / Sxx), t the quantile for n - 2 degrees of freedom.
        """
        return self._around(x, self.residual_stderr * np.sqrt(1 + self._leverage(x)), level)

    def leave_one_out_residuals(self) -> Float64:
        """y_i minus what the line through the OTHER points says at x_i, for each i, [n]; e_i / (1 - h_i).

        h_i = 1/n + (x_i - mean x)^2 / Sxx is the diagonal of the hat matrix (Allen, PRESS, 1974). Raises UndefinedError when
        all points but one have the same x: without that one there is no line.
        """
        kept = 1 - self._leverage(self.x)
        if kept.min() < 1e-10:
            alone = float(self.x[np.argmin(kept)])
            raise UndefinedError(f"The leave-one-out error is undefined: all points but the one at {alone:.6g} have the same score")
        return self.residuals / kept

    def _leverage(self, x: ArrayLike) -> Float64:
        return 1 / self.n + (np.asarray(x, np.float64) - self.x.mean()) ** 2 / _squares(self.x)

    def _around(self, x: ArrayLike, stderr: Float64, level: float) -> tuple[Float64, Float64]:
        reach = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom) * stderr
        return self.at(x) - reach, self.at(x) + reach


def fit(x: ArrayLike, y: ArrayLike) -> Line:
    """The line of least squares through the points (x_i, y_i), with slope Sxy / Sxx.

    Raises UndefinedError for fewer than 3 points (2 leave nothing to tell the error from), for values that are not finite, and
    when all x or all y are the same.

    >>> line = fit([1, 2, 3, 4], [2, 4, 5, 8])
    >>> round(line.slope, 6), round(line.at(5).item(), 6), round(line.r2, 6)
    (1.9, 9.5, 0.962667)
    """
    x, y = checked_pair(x, y, least=3)
    slope = float((x - x.mean()) @ (y - y.mean())) / _squares(x)
    return Line(x, y, slope, float(y.mean() - slope * x.mean()))


def leave_one_out_of_mean(y: ArrayLike) -> Float64:
    """y_i minus the mean of the others, (y_i - mean y) n / (n - 1), [n]: what to beat, for it needs no score at all."""
    values = np.asarray(y, np.float64)
    return (values - values.mean()) * len(values) / (len(values) - 1)


def checked_pair(x: ArrayLike, y: ArrayLike, least: int) -> tuple[Float64, Float64]:
    """Both as float64 [n]; UndefinedError unless n >= ``least``, all values are finite and neither is constant."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected two vectors of one length, not shapes {x.shape} and {y.shape}")
    if len(x) < least:
        raise UndefinedError(f"only {len(x)} point{'' if len(x) == 1 else 's'}, at least {least} are needed")
    for name, values in (("scores", x), ("outcomes", y)):
        if not np.isfinite(values).all():
            raise UndefinedError(f"{name} are not all finite numbers")
        if is_constant(values):
            raise UndefinedError(f"all {name} are the same ({values[0]:.6g})")
    return x, y


def is_constant(values: Float64) -> bool:
    """Whether all values are the same, up to rounding."""
    return bool(np.ptp(values) <= SAME * np.abs(values).max())


def _squares(values: Float64) -> float:
    centred = values - values.mean()
    return float(centred @ centred)
