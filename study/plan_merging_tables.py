"""The table [merging] of a plan and those below it::

[merging]
tasks = ["TA8"]                             # a fine-tuned model of each is merged, in this order; names as merge.py --evaluate takes them
eval_tasks = ["stl10"]                      # further ones that all is evaluated on
corruptions = ["motion_blur-3"]             # of the test images; "hub-motion_blur": as the hub keeps them
fine_tunes = "tanganke/clip-vit-base-patch32_{task}"

[merging.models."openai/clip-vit-base-patch16"]    # where the fine-tuned models of one model lie
fine_tunes = "tanganke/clip-vit-base-patch16_{task}"

[merging.train]                             # or how they are trained here: the values of a tuning, "full" where none is named
towers = "vision"
lr = 1e-5

[merging.methods.ties]                      # where the table is not called after its method: method = "ties"
scaling = [0.3, 0.4]                        # options of merge.py; a list is a grid

[merging.methods.emr]
per_model = true                            # an encoder for each task, as --per-model gives it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.errors import UserError
from datasets.naming import CONVENTIONS
from study.plan import Setting
from study.plan_keys import FIT_KEYS, MERGING_KEYS, NAME, TUNING, check_keys, elements
from study.plan_merging import HUB, TASK, MergingPlan, corrupted
from study.plan_merging_methods import read_methods
from study.plan_names import model_name, task_name
from study.plan_tunings import grid_of, settings
from study.toml_lines import Place, TomlFile

PLACE = ("merging",)


def read_merging(file: TomlFile, models: tuple[str, ...]) -> MergingPlan | None:
    """What the file says of merging; None where it says nothing."""
    if "merging" not in file.data:
        return None
    table = file.table(*PLACE)
    check_keys(file, PLACE, table, MERGING_KEYS)
    for key in ("tasks", "methods"):
        if key not in table:
            with file.at(*PLACE):
                raise UserError(f"[merging] has no '{key}'; it takes tasks, whose models are merged, and tables [merging.methods.NAME].")
    tasks = _tasks(file, "tasks", {})
    train, tuning = _train(file)
    found = MergingPlan(
        tasks=tasks,
        methods=read_methods(file, tuple(tasks)),
        eval_tasks=_tasks(file, "eval_tasks", tasks),
        corruptions=_corruptions(file),
        fine_tunes=_fine_tunes(file, models, trained=train is not None),
        train=train,
        tuning=tuning,
    )
    _check_corrupted(file, found)
    return found


def _listed(file: TomlFile, key: str, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    table = file.table(*PLACE)
    return elements(file, (*PLACE, key), table[key], check) if key in table else ()


def _tasks(file: TomlFile, key: str, known: Mapping[str, str]) -> dict[str, str]:
    """{what reports call it: data set} of a list of names, groups and published names; none of them twice, nor among the ``known``."""
    from merging.task_names import PUBLISHED, expand

    def check(at: str, value: Any) -> dict[str, str]:
        named = expand([NAME.check(at, value)])
        return {name: data if name.partition("@")[0] in PUBLISHED else task_name(data) for name, data in named.items()}

    found: dict[str, str] = {}
    for number, named in enumerate(_listed(file, key, check)):
        for name, data in named.items():
            if data in (*found.values(), *known.values()):
                with file.at(*PLACE, key, number):
                    raise UserError(f"'{name}' is the data set '{data}', which [merging] has already; name it once.")
            found[name] = data
    return found


def _corruptions(file: TomlFile) -> tuple[str, ...]:
    def check(key: str, value: Any) -> str:
        if NAME.check(key, value).startswith(HUB):
            if value not in CONVENTIONS:
                raise UserError(f"The hub keeps no '{value}'; it has {', '.join(name for name in CONVENTIONS if name.startswith(HUB))}.")
            return str(value)
        name = corrupted("Digits", value)
        if name == "Digits":
            raise UserError(f"'{value}' is no corruption; write KIND-SEVERITY, such as motion_blur-3, or hub-KIND.")
        return name.partition("+")[2]

    return _listed(file, "corruptions", check)


def _check_corrupted(file: TomlFile, plan: MergingPlan) -> None:
    """Every data set must have every corruption: the hub keeps those of some sets only."""
    for number, kind in enumerate(plan.corruptions):
        with file.at(*PLACE, "corruptions", number):
            for name in plan.evaluated(kind):
                task_name(name)


def _fine_tunes(file: TomlFile, models: tuple[str, ...], *, trained: bool) -> dict[str, str]:
    """By model the source of its fine-tuned models, from its own table or else from [merging]; none where they are trained here."""
    place, table = (*PLACE, "models"), file.table(*PLACE)
    own = {_model(file, (*place, key), key, models): key for key in file.table(*place)}
    if trained:
        for key in ("fine_tunes", "models"):
            if key in table:
                with file.at(*PLACE, key):
                    raise UserError(f"'{key}' says where fine-tuned models lie, [merging.train] that they are trained here; leave one out.")
        return {}
    return {model: _source(file, model, own.get(model)) for model in models}


def _model(file: TomlFile, place: Place, key: str, models: tuple[str, ...]) -> str:
    with file.at(*place):
        if (name := model_name(key)) not in models:
            raise UserError(f"'{name}' is not among the models of this plan; add it there, or name one of {', '.join(models)}.")
        return name


def _source(file: TomlFile, model: str, key: str | None) -> str:
    """Of one model."""
    places: list[tuple[str, ...]] = [PLACE] if key is None else [(*PLACE, "models", key), PLACE]
    check_keys(file, places[0], file.table(*places[0]), ("fine_tunes",) if key is not None else MERGING_KEYS)
    for place in places:
        table = file.table(*place)
        if "fine_tunes" in table:
            with file.at(*place, "fine_tunes"):
                if TASK not in (source := str(NAME.check("fine_tunes", table["fine_tunes"]))):
                    raise UserError(f"'fine_tunes' is one text for all tasks, in which {TASK} stands for their names; '{source}' lacks it.")
                return source
    with file.at(*PLACE):
        raise UserError(
            f"Nothing says where the fine-tuned models of '{model}' lie; give 'fine_tunes' with {TASK} in it, or have them trained by a "
            "table [merging.train]."
        )


def _train(file: TomlFile) -> tuple[Setting | None, str]:
    """How the fine-tuned models are trained, one setting, and by which tuning; None where they are not."""
    from models.tuning_options import all_options_of

    place, table = (*PLACE, "train"), file.table(*PLACE, "train")
    if "train" not in file.table(*PLACE):
        return None, "full"
    with file.at(*place, "tuning"):
        tuning = str(TUNING.check("tuning", table.get("tuning", "full")))
        if tuning in ("adapter", "parallel-adapter", "probe"):
            raise UserError(f"The tuning '{tuning}' leaves the encoder as it is, so there is nothing to merge; use full or lora.")
    check_keys(file, place, table, ("tuning", *FIT_KEYS, *all_options_of(tuning)))
    grid = grid_of(file, place, {key: value for key, value in table.items() if key != "tuning"})
    for key, values in grid.items():
        if len(values) > 1:
            with file.at(*place, key):
                raise UserError(f"'{key}' has several values; the models that are merged are trained one way, so give it one.")
    return settings(grid)[0], tuning
