"""The documentation's table of merging methods, made from METHODS.

python -m merging.document > docs/merging.md
"""

from __future__ import annotations

from merging.arguments import flag_of
from merging.method import Method
from merging.table import METHODS

HEAD = """# Merging methods

Made from `merging/table.py` by `python -m merging.document > docs/merging.md`. The formula of each method, with its source, stands in
its file in `merging/methods/`. θ_0 is the base, θ_k the k-th of K models, τ_k = θ_k - θ_0 its task vector; what is merged is
θ = θ_0 + scaling * τ, tensor by tensor.

| name | what is merged | scaling | reads | data | per task | source |
|---|---|---|---|---|---|---|
"""

NOTES = """
- **reads**: the other options of `merge.py` that matter to the method; defaults are the published ones.
- **data**, transductive: by default the images that the merge is then tested on, without their labels.
- **per task**: `--per-model` gives one encoder for each task, with this default scaling.
- Averages and SLERP merge the weights themselves and need no base, unless a scaling other than 1 asks for one.
- A negative scaling forgets: `--method task_arithmetic --scaling -0.5` moves away from what the models learnt.
"""


def _row(method: Method) -> str:
    options = ", ".join(f"`{flag_of(option)}`" for option in method.reads if option != "scaling")
    scaling = "" if method.default_scaling is None else f"{method.default_scaling:g}"
    per_task = f"yes, scaling {method.per_model_scaling:g}" if method.per_model else ""
    data = f"{method.data}, transductive" if method.transductive else method.data
    cells = (f"`{method.name}`", method.description, scaling, options, data, per_task, method.paper)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


def document() -> str:
    """The page as Markdown."""
    return HEAD + "".join(_row(method) for method in METHODS.values()) + NOTES


if __name__ == "__main__":
    print(document(), end="")
