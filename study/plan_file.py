"""Read a plan from a TOML file, and find every mistake in it before anything runs.

Above the first table stand title, about, models, tasks, eval_tasks, tuned_models, seeds, measures, predictor, components,
data_dir, prompts, val_p and published: the fields of :class:`~study.plan.Plan`. ``[training]`` says how every tuning trains,
``[tunings.NAME]`` what is different for one, and its hyper-parameters. ``[inversion]`` is told of in
:mod:`study.plan_inversion_tables`, ``[merging]`` in :mod:`study.plan_merging_tables`; a plan that has one of them needs no tasks
and measures. A list in [training] and below [tunings] means that all its values are tried::

    title = "LoRA and a probe on textures"
    models = ["clip"]
    tasks = ["DTD", "EuroSAT"]
    measures = ["iimm", "gbc_diagonal"]

    [training]
    epochs = 30
    lr = [1e-2, 1e-3]

    [tunings.lora]
    rank = [4, 16]  # with lr: four settings

    [tunings.text_probe]
    tuning = "probe"  # where the table is not called after its tuning
    probe_init = "text"
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.errors import UserError, nearest
from study.plan import Plan, TuningPlan
from study.plan_inversion_tables import read_inversion
from study.plan_keys import NAME, REQUIRED_KEYS, SEED, SHARE, TEXT, TOP_KEYS, check_keys, elements
from study.plan_merging_tables import read_merging
from study.plan_names import check_prompts, measure_name, model_name, published_name, task_name
from study.plan_tunings import read_tunings
from study.published_inversion import PUBLISHED_INVERSION
from study.published_merging import PUBLISHED_MERGING
from study.toml_lines import TomlFile, read_toml

MAIN_MEASURE = "iimm"
MAIN_COMPONENTS = ("image_image", "wrong_label", "alignment", "text_text")  # what IIMM is made of, and what it leaves out


def read_plan(path: Path) -> Plan:
    """The plan in the file ``path``; a :class:`UserError` that names file, line and the nearest valid name when it has a mistake."""
    if not path.exists() and (other := _other_plan(path)):
        raise UserError(f"There is no plan '{path}'; did you mean '{other}'?")
    file = read_toml(path)
    check_keys(file, (), file.data, TOP_KEYS)
    _check_required(file)
    plan = _plan(file)
    if plan.prompts is not None:
        with file.at("prompts"):
            zero_shot = plan.inversion.zero_shot_tasks if plan.inversion else ()
            for task in (*plan.eval_tasks, *zero_shot, *(plan.merging.evaluated() if plan.merging else ())):
                check_prompts(task, plan.prompts)
    return plan


def _check_required(file: TomlFile) -> None:
    """Tasks and measures may be missing together, where there is inversion or merging to be done and no tuning to be tried."""
    other_work = {"inversion", "merging"} & file.data.keys()
    spared = ("tasks", "measures") if other_work and not {"tasks", "measures", "tunings"} & file.data.keys() else ()
    for key in REQUIRED_KEYS:
        if key not in file.data and key not in spared:
            raise UserError(f"{file.path}: '{key}' is missing; a plan has {', '.join(REQUIRED_KEYS)}.")


def _other_plan(path: Path) -> Path | None:
    """The plan beside ``path`` with the nearest name."""
    beside = {plan.stem: plan for plan in path.parent.glob("*.toml")}
    guess = nearest(path.stem, beside)
    return beside[guess] if guess else None


def _plan(file: TomlFile) -> Plan:
    models, tasks, measures = _names(file, "models", model_name), _names(file, "tasks", task_name), _names(file, "measures", measure_name)
    tunings = read_tunings(file)
    return Plan(
        path=file.path,
        title=_one(file, "title", TEXT.check),
        about=_one(file, "about", TEXT.check, ""),
        models=models,
        tasks=tasks,
        eval_tasks=tuple(dict.fromkeys((*tasks, *_names(file, "eval_tasks", task_name)))),
        tunings=tunings,
        tuned_models=_tuned_models(file, models, tunings),
        seeds=elements(file, ("seeds",), file.data.get("seeds", [0]), SEED.check),
        measures=measures,
        predictor=_predictor(file, measures),
        components=_components(file, measures),
        data_dir=Path(_one(file, "data_dir", NAME.check, "data")).expanduser(),
        prompts=_one(file, "prompts", NAME.check),
        val_p=_one(file, "val_p", SHARE.check, 0.1),
        published=_published(file),
        inversion=read_inversion(file, models),
        merging=read_merging(file, models),
    )


def _published(file: TomlFile) -> str | None:
    """What to compare with; numbers of inversion or merging only where something is inverted or merged."""
    name: str | None = _one(file, "published", _named(published_name))
    for table, known in (("inversion", PUBLISHED_INVERSION), ("merging", PUBLISHED_MERGING)):
        if name in known and table not in file.data:
            with file.at("published"):
                raise UserError(f"The numbers '{name}' are of {table}, of which this plan has none; add a table [{table}].")
    return name


def _one(file: TomlFile, key: str, check: Callable[[str, Any], Any], default: Any = None) -> Any:
    """The checked value of a key above the first table."""
    if key not in file.data:
        return default
    with file.at(key):
        return check(key, file.data[key])


def _names(file: TomlFile, key: str, look_up: Callable[[str], str]) -> tuple[str, ...]:
    """The checked names in a list above the first table; none where it is left out."""
    return elements(file, (key,), file.data[key], _named(look_up)) if key in file.data else ()


def _named(look_up: Callable[[str], str]) -> Callable[[str, Any], str]:
    return lambda key, value: look_up(NAME.check(key, value))


def _among(look_up: Callable[[str], str], whole: tuple[str, ...], of: str) -> Callable[[str], str]:
    """Looks a name up that must be one of ``whole``, which the key ``of`` lists."""

    def look_up_among(text: str) -> str:
        if (name := look_up(text)) not in whole:
            raise UserError(f"'{name}' is not among the {of} of this plan; add it there, or name one of {', '.join(whole)}.")
        return name

    return look_up_among


def _tuned_models(file: TomlFile, models: tuple[str, ...], tunings: tuple[TuningPlan, ...]) -> tuple[str, ...]:
    """The models that tunings other than "full" are applied to; all, unless the plan names some."""
    if "tuned_models" in file.data and all(plan.tuning == "full" for plan in tunings):
        with file.at("tuned_models"):
            raise UserError("'tuned_models' is for tunings other than 'full', of which there are none.")
    return _names(file, "tuned_models", _among(model_name, models, "models")) or models


def _predictor(file: TomlFile, measures: tuple[str, ...]) -> str:
    """The measure of the main fit: the one named, or IIMM where it is measured, or else the first."""
    default = MAIN_MEASURE if MAIN_MEASURE in measures or not measures else measures[0]
    return str(_one(file, "predictor", _named(_among(measure_name, measures, "measures")), default))


def _components(file: TomlFile, measures: tuple[str, ...]) -> tuple[str, ...]:
    if "components" in file.data:
        return _names(file, "components", _among(measure_name, measures, "measures"))
    return tuple(name for name in MAIN_COMPONENTS if name in measures)
