"""Task arithmetic: task vectors are added, or taken away."""

from __future__ import annotations

from merging.method import MergeTensor, each_task_vector, of_task_vector, total
from merging.options import MergeOptions
from merging.weights import Pool


def total_task_vector(pool: Pool, options: MergeOptions) -> MergeTensor:
    """τ = Σ_k τ_k, so that θ = θ_0 + scaling * Σ_k τ_k.

    A negative scaling forgets: with one model, ``--scaling -0.5`` moves the base away from what that model learnt. Source:
    Ilharco et al., ICLR 2023, section 2 (addition and negation).
    """
    return lambda name: pool.by_parts(name, lambda part: total(each_task_vector(pool, name, part)))


METHOD = of_task_vector(
    "task_arithmetic",
    "the sum of the task vectors; a negative scaling forgets",
    "Ilharco et al., ICLR 2023 (arXiv:2212.04089)",
    task_vector=total_task_vector,
    default_scaling=0.3,
)
