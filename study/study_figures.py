"""All figures of a study, each as PDF and PNG; those that there are no numbers for are left out."""

from __future__ import annotations

from pathlib import Path

from common.figures import Drawn
from study.analysis import Analysis
from study.collected import Collected
from study.plan import Plan
from study.plots.bars import draw_tau
from study.plots.cost import draw_cost
from study.plots.geometry import draw_geometry
from study.plots.matrix import draw_forgetting
from study.plots.scatter import draw_components, draw_scatter
from study.prediction import CHANGE, GAIN


def draw_all(analysis: Analysis, collected: Collected, plan: Plan, folder: Path) -> list[Drawn]:
    """Write every figure to ``folder``; a figure that is too tall for a page goes on in NAME_2, NAME_3 and so on."""
    inversion = []
    if plan.inversion is not None:
        from study.plots.inversion import draw_inversion

        inversion = draw_inversion(collected, plan, folder)
    merging = []
    if plan.merging is not None:
        from study.plots.merging import draw_merging

        merging = draw_merging(collected, plan, folder)
    if not plan.tasks:
        return [*inversion, *merging]
    return [
        *inversion,
        *merging,
        *draw_scatter(analysis, folder, GAIN, f"gain_vs_{plan.predictor}"),
        *draw_components(analysis, folder, plan.components),
        *draw_scatter(analysis, folder, CHANGE, f"forgetting_vs_{plan.predictor}"),
        *draw_forgetting(analysis.forgetting, folder),
        *draw_tau(analysis, folder),
        *draw_cost(analysis, folder),
        *draw_geometry(collected, plan.models, folder),
    ]
