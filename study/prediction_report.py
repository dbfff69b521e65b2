"""What a fit and a prediction look like on the screen and in JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from study.prediction import CHANGE, GAIN, WORDS, Errors, Estimate, Fit, Prediction


def fit_lines(fit: Fit) -> list[str]:
    """The fit: slope, intercept, R2, p, leave-one-out error, warnings."""
    line, known = fit.line, fit.known[0]
    return [
        f"{fit.measure} -> {WORDS[fit.outcome]} ({known.model}, {known.tuning}; n = {line.n} tasks)",
        f"  slope          {line.slope:.4g} +- {line.slope_stderr:.2g}",
        f"  intercept      {line.intercept:.4g} +- {line.intercept_stderr:.2g}",
        f"  R2             {line.r2:.3f}, p = {line.p:.2g}",
        *_leave_one_out_lines(fit),
        *_warning_lines(fit.warnings),
    ]


def _leave_one_out_lines(fit: Fit) -> list[str]:
    if fit.leave_one_out is None:
        return []
    lines = [f"  leave-one-out  {_errors(fit.leave_one_out)}", f"    by the mean  {_errors(fit.leave_one_out_of_mean)} (without any score)"]
    if fit.leave_one_out_accuracy is not None:
        lines.append(f"    as accuracy  {_errors(fit.leave_one_out_accuracy)}")
    return lines


def _errors(errors: Errors) -> str:
    return f"mean absolute error {errors.mean_absolute:.3f}, RMSE {errors.rms:.3f}"


def prediction_lines(prediction: Prediction, measure: str, level: float) -> list[str]:
    """One new task: score, the predictions with their intervals, warnings."""
    task = prediction.task
    return [
        f"{task.name or 'new task'} ({task.file})",
        f"  {measure:28}{task.score:.4f}",
        f"  {'zero-shot accuracy':28}{task.zero_shot_accuracy:.3f}",
        *(f"  {WORDS[name]:28}{_estimate(estimate, level)}" for name, estimate in _estimates(prediction).items()),
        *_warning_lines(prediction.warnings),
    ]


def _estimates(prediction: Prediction) -> dict[str, Estimate]:
    known = {GAIN: prediction.gain, "accuracy_after": prediction.accuracy_after, CHANGE: prediction.mean_change_elsewhere}
    return {name: estimate for name, estimate in known.items() if estimate is not None}


def _estimate(estimate: Estimate, level: float) -> str:
    cut = " (cut to [0, 1])" if estimate.clipped else ""
    return f"{estimate.value:.3f}  {100 * level:g} % interval [{estimate.low:.3f}, {estimate.high:.3f}]{cut}"


def _warning_lines(warnings: Iterable[str]) -> list[str]:
    return [f"  ! {warning}" for warning in warnings]


def fit_record(fit: Fit) -> dict[str, Any]:
    """The fit as JSON takes it, with the points it went through."""
    line, left_out = fit.line, fit.leave_one_out_residuals
    return {
        "n": line.n,
        **{name: getattr(line, name) for name in ("slope", "slope_stderr", "intercept", "intercept_stderr", "r2", "p", "residual_stderr")},
        "score_range": [float(line.x.min()), float(line.x.max())],
        "leave_one_out": _record(fit.leave_one_out),
        "leave_one_out_of_mean": _record(fit.leave_one_out_of_mean),
        "leave_one_out_accuracy": _record(fit.leave_one_out_accuracy),
        "points": [
            {"task": of.task, "score": x, "outcome": y, "leave_one_out_residual": residual}
            for of, x, y, residual in zip(
                fit.known,
                line.x.tolist(),
                line.y.tolist(),
                [None] * line.n if left_out is None else left_out.tolist(),
                strict=True,
            )
        ],
        "warnings": list(fit.warnings),
    }


def _record(errors: Errors | None) -> dict[str, float] | None:
    return None if errors is None else asdict(errors)
