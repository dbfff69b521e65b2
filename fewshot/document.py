"""The documentation's table of few-shot methods, made from METHODS, with the published grids and values.

python -m fewshot.document > docs/few_shot.md
"""

from __future__ import annotations

from fewshot.method import Method
from fewshot.published import APE, OTHER_APE, OTHER_TIP, TIP, ApeScale, TipScale
from fewshot.table import METHODS

HEAD = """# Few-shot methods

Made from `fewshot/table.py` by `python -m fewshot.document > docs/few_shot.md`. The formula of each method, with its source, stands in
its file in `fewshot/methods/`. Methods that end in `_corrected` compare images by the features of an adapter that `train_adapter.py`
made; their zero-shot logits are those of the original features, since an adapter breaks the alignment with the texts.

| name | what it is | trains | needs an adapter | source |
|---|---|---|---|---|
"""

SEARCH = """
## Hyper-parameters

Logits are zero-shot logits plus alpha times the similarities to the labelled images, which fall off with beta; gamma weighs the
divergences of Tip-X and the surprise of APE. All are chosen on validation images, never on those of the test.

- `--search exact` (default): the best alpha of all real numbers for each beta (and gamma) of the grid, then gamma, beta and alpha in turn
  from the best of these. On validation images it is never worse than the grid. Of equally good intervals of alpha, the
  middle of the one that is widest in units of logits; with few validation images there are many.
- `--search grid`: the first best point of a released grid, in its order, with the counts that evaluating every point gives.
- `--search fixed`: the values below, beta 1, gamma 0.1 for APE and 1 for Tip-X (of which none is published). They are also used where
  there is no validation image.
- `--grid overlap` (default): 200 alphas from 0 to 20, 20 betas from 0 to 20, for Tip-X 50 gammas from 0 to 30, alpha outside.
  `--grid own`: 20 alphas and 200 betas from 0.1 towards the ends below, beta outside; for Tip-X 20 alphas from 0.1 towards 50, 200 betas
  from 1 towards 50, 50 gammas from 0.1 towards 30. APE and APE-T always have their own, APE with 20 gammas from 0 (ImageNet: 5).
- `--as-released`: Tip-X brings divergences to the range of similarities by the images it is tested on, so that predictions depend on
  them (by default by the validation images); APE smooths probabilities by 1e-6.

| data set | Tip-Adapter: beta, alpha to | alpha | APE: beta, alpha, gamma to | alpha | channels of 1024 | w |
|---|---|---|---|---|---|---|
"""

TRAINING = """
## Training

Methods that train take the recipes of their released code. What is learnt after the last step is used; no epoch is chosen. Those that
train on features see the features of the cache in every epoch, where released code crops the images anew.

- `tip_adapter_f`: AdamW, 1e-3 along half a cosine, eps 1e-4, batches of 256, 20 epochs (EuroSAT 100), at the alpha of `--search fixed`
  and beta 1; then the search.
- `ape_t`: AdamW, weight decay 0.1, eps 1e-3, batches of 256; channels, rate and epochs of each data set in `fewshot/methods/ape_t.py`
  (others: 900 of 1024, 1e-3, 30); then the search, without gamma.
- `linear_probe`: L-BFGS, at most 1000 steps; the penalty is searched between 1e-6 and 1e6, to an eighth of a decade (`--search fixed`:
  1 / 0.316).
- `clip_adapter`: SGD with CoOp's rates (2e-3, batches of 32; 50, 100 or 200 epochs for 1, 2 to 7, 8 or more shots); ratio 0.2; nothing
  is searched.
- `clip_lora`: rank 2, scale 1 / sqrt(2), Q, K and V of both towers; AdamW, 2e-4 to 1e-6 along half a cosine, 500 steps of 32 images for
  each shot, no dropout in the updates; one process; nothing is searched. Costly without a GPU.
"""


def _row(method: Method) -> str:
    cells = (f"`{method.name}`", method.description, _yes(method.trains), _yes(method.needs_adapter), method.paper)
    return f"| {' | '.join(cells)} |\n"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else ""


def _values(dataset: str, tip: TipScale, ape: ApeScale) -> str:
    ends = f"{ape.beta:g}, {ape.alpha:g}, {ape.gamma:g}"
    weights = ", ".join(f"{weight:g}" for weight in ape.weights)
    return f"| {dataset} | {tip.beta:g}, {tip.alpha:g} | {tip.init_alpha:g} | {ends} | {ape.init_alpha:g} | {ape.channels} | {weights} |\n"


def document() -> str:
    """The page as Markdown."""
    values = [_values(dataset, tip, APE[dataset]) for dataset, tip in TIP.items()]
    return HEAD + "".join(map(_row, METHODS.values())) + SEARCH + "".join(values) + _values("others", OTHER_TIP, OTHER_APE) + TRAINING


if __name__ == "__main__":
    print(document(), end="")
