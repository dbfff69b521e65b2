"""The entries of WEMoE and its efficient version in the METHODS table, and the options that a command line gives them.

Neither gives tensors for a file of the base's form, so ``start`` refuses: :func:`merging.wemoe.merge.merge_routed` writes their result.
"""

from __future__ import annotations

from dataclasses import fields, replace

from merging.method import Method
from merging.methods.images import needs_images
from merging.options import MergeOptions
from merging.wemoe.options import E_WEMOE, WemoeOptions

PUBLISHED = {"wemoe": WemoeOptions(), "e_wemoe": E_WEMOE}
READS = tuple(field.name for field in fields(WemoeOptions))  # each has the same name in MergeOptions


def options_for(method: str, options: MergeOptions) -> WemoeOptions:
    """What ``options`` say to ``method``; None is the published value. Raises UserError for those that do not go together."""
    given = {name: getattr(options, name) for name in READS}
    return replace(PUBLISHED[method], **{name: value for name, value in given.items() if value is not None})


def _method(name: str, description: str, paper: str) -> Method:
    return Method(
        name,
        description,
        paper,
        reads=READS,
        default_scaling=PUBLISHED[name].scaling,
        start=needs_images(name),
        data="unlabelled images of every task",
        transductive=True,
        routed=True,
    )


METHODS = (
    _method(
        "wemoe",
        "an encoder that merges its MLPs anew for every image, by routers learnt on images without labels",
        "Tang et al., ICML 2024 (arXiv:2402.00433)",
    ),
    _method(
        "e_wemoe",
        "wemoe with pruned task vectors and one router for all blocks",
        "Shen et al., 2024 (arXiv:2410.21804)",
    ),
)
