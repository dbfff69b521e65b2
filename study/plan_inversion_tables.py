"""The table [inversion] of a plan and those below it, [inversion.oti], [inversion.ovi] and [inversion.models.NAME]::

[inversion]
image_tasks = ["Cars@coop", "ROxford5k"]    # image -> image, OTI -> image
text_tasks = ["COCO"]                       # text -> text, OVI -> text
zero_shot_tasks = ["Cars@coop"]             # natively, OTI -> class texts, image -> OVI of the class names
misalignment = ["Cars@coop"]                # histograms of cosines
project = ["pca", "iso"]                    # baselines: the native features, projected
fuse = [0.5]                                # inverted and native similarity together
seeds = [42]

[inversion.oti]
num_pseudo_tokens = [1, 4]                  # each a run of its own
steps = 150
snapshots = [10, 20, 50, 100]               # kept from the same run

[inversion.models.clip]                     # what differs for one model
ovi_pseudo_tokens = 1                       # where nothing says it: OTI 1, OVI as published for the model
iso_image = [150, 50]                       # the largest and smallest singular directions that IsoCLIP drops; also iso_text
"""

from __future__ import annotations

from typing import Any

from common.errors import UserError
from inversion.published import STEPS, pseudo_patches
from inversion.subspaces import DROPPED
from models.zoo import ZOO
from study.plan_inversion import ISO, MODALITY, OTI, OVI, InversionPlan, InversionSetting, ModelInversion
from study.plan_keys import (
    DIRECTIONS,
    INVERSION_KEYS,
    MODEL_KEYS,
    NAME,
    PROJECTION,
    PSEUDO_TOKENS,
    SEED,
    SETTING_KEYS,
    SHARE,
    check_keys,
    elements,
)  # fmt: skip
from study.plan_names import classification_name, image_task_name, model_name, text_task_name
from study.toml_lines import Place, TomlFile

PLACE = ("inversion",)
TASKS = {"image_tasks": image_task_name, "text_tasks": text_task_name, "zero_shot_tasks": classification_name}


def read_inversion(file: TomlFile, models: tuple[str, ...]) -> InversionPlan | None:
    """What the file says of inversion; None where it says nothing."""
    if "inversion" not in file.data:
        return None
    table = file.table(*PLACE)
    check_keys(file, PLACE, table, INVERSION_KEYS)
    tasks = {key: _listed(file, key, lambda at, value, key=key: TASKS[key](NAME.check(at, value))) for key in TASKS}
    if not any(tasks.values()):
        with file.at(*PLACE):
            raise UserError(f"[inversion] has nothing to do; name data sets in {', '.join(TASKS)}.")
    found = InversionPlan(
        **tasks,
        misalignment=_misaligned(file, tasks["image_tasks"]),
        project=_listed(file, "project", PROJECTION.check),
        fuse=_listed(file, "fuse", SHARE.check),
        seeds=_listed(file, "seeds", SEED.check) or InversionPlan.seeds,
        oti=_setting(file, OTI),
        ovi=_setting(file, OVI),
        models=_models(file, models),
    )
    _check_iso(file, found)
    return found


def _listed(file: TomlFile, key: str, check: Any) -> tuple[Any, ...]:
    """The checked elements of a list in [inversion]; none where it is left out."""
    table = file.table(*PLACE)
    return elements(file, (*PLACE, key), table[key], check) if key in table else ()


def _misaligned(file: TomlFile, tasks: tuple[str, ...]) -> tuple[str, ...]:
    def check(key: str, value: Any) -> str:
        if (name := image_task_name(NAME.check(key, value))) not in tasks:
            raise UserError(f"'{name}' is not among the image_tasks of this plan; its histograms are of what is inverted there.")
        return name

    return _listed(file, "misalignment", check)


def _setting(file: TomlFile, kind: str) -> InversionSetting:
    """How pseudo-tokens of this kind are learnt; their number and the seed come later."""
    place, table = (*PLACE, kind), file.table(*PLACE, kind)
    check_keys(file, place, table, ("num_pseudo_tokens", *SETTING_KEYS))
    values: dict[str, Any] = {"steps": STEPS[kind]}
    for key in (key for key in table if key not in ("num_pseudo_tokens", "snapshots")):
        with file.at(*place, key):
            values[key] = SETTING_KEYS[key].check(key, table[key])
    if "snapshots" in table:
        values["snapshots"] = _snapshots(file, (*place, "snapshots"), table["snapshots"], values["steps"])
    return InversionSetting(kind, **values)


def _snapshots(file: TomlFile, place: Place, values: Any, steps: int) -> tuple[int, ...]:
    """Steps in ascending order, all of them before the last, which is kept anyway."""

    def check(key: str, value: Any) -> int:
        step = int(SETTING_KEYS[key].check(key, value))
        if step > steps:
            raise UserError(f"A snapshot after step {step} is beyond the last of {steps} steps; take fewer, or raise 'steps'.")
        return step

    return tuple(step for step in sorted(elements(file, place, values, check)) if step < steps)


def _models(file: TomlFile, models: tuple[str, ...]) -> dict[str, ModelInversion]:
    """Of every model of the plan, from [inversion.oti], [inversion.ovi] and its own table."""
    place, own = (*PLACE, "models"), dict[str, str]()
    for key in file.table(*place):
        with file.at(*place, key):
            if (name := model_name(key)) not in models:
                raise UserError(f"'{name}' is not among the models of this plan; add it there, or name one of {', '.join(models)}.")
            own[name] = key
    return {model: _model(file, model, own.get(model)) for model in models}


def _model(file: TomlFile, model: str, key: str | None) -> ModelInversion:
    place: Place = (*PLACE, "models", *([] if key is None else [key]))
    table = {} if key is None else file.table(*map(str, place))
    check_keys(file, place, table, MODEL_KEYS)
    counts = {}
    for kind in MODALITY:
        if f"{kind}_pseudo_tokens" in table:
            counts[kind] = _counts(file, (*place, f"{kind}_pseudo_tokens"), table[f"{kind}_pseudo_tokens"])
        elif "num_pseudo_tokens" in (shared := file.table(*PLACE, kind)):
            counts[kind] = _counts(file, (*PLACE, kind, "num_pseudo_tokens"), shared["num_pseudo_tokens"])
        elif kind == OVI:
            counts[kind] = (pseudo_patches(ZOO.get(model, model)),)
    said = {of: _dropped(file, (*place, f"iso_{of}"), table[f"iso_{of}"]) for of in MODALITY.values() if f"iso_{of}" in table}
    return ModelInversion(counts, {**_published_drops(model), **said})


def _published_drops(model: str) -> dict[str, tuple[int, int]]:
    """What IsoCLIP's authors drop for this model, by modality; nothing where they did not try it."""
    architecture, _, weights = ZOO.get(model, model).partition("/")
    return {of: (numbers.top, numbers.bottom) for of, numbers in DROPPED.get((architecture, weights), {}).items()}


def _counts(file: TomlFile, place: Place, value: Any) -> tuple[int, ...]:
    """One number of pseudo-tokens, or a list of them."""
    if isinstance(value, list):
        return elements(file, place, value, PSEUDO_TOKENS.check)
    with file.at(*place):
        return (int(PSEUDO_TOKENS.check(str(place[-1]), value)),)


def _dropped(file: TomlFile, place: Place, value: Any) -> tuple[int, int]:
    with file.at(*place):
        if not isinstance(value, list) or len(value) != 2:
            raise UserError(f"'{place[-1]}' must be a list of two: how many of the largest and of the smallest directions are dropped.")
        largest, smallest = (int(DIRECTIONS.check(str(place[-1]), each)) for each in value)
        return largest, smallest


def _check_iso(file: TomlFile, plan: InversionPlan) -> None:
    """IsoCLIP's numbers must be known of one model at least, and are not to be given for nothing."""
    if ISO in plan.project and not any(of.iso for of in plan.models.values()):
        with file.at(*PLACE, "project", plan.project.index(ISO)):
            raise UserError("IsoCLIP has no published numbers for these models; say in [inversion.models.NAME] what 'iso_image' drops.")
    for key, table in file.table(*PLACE, "models").items():
        for name in (name for name in ("iso_image", "iso_text") if name in table and ISO not in plan.project):
            with file.at(*PLACE, "models", key, name):
                raise UserError(f"'{name}' means nothing while 'iso' is not in the list 'project' of [inversion].")
