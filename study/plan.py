"""What a plan says: the models, tasks, tunings with their grids, seeds and measures of one study. Read by study.plan_file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.files import exact
from models.tuning_options import TuningOptions
from study.plan_inversion import InversionPlan
from study.plan_merging import MergingPlan

BETA2 = 0.99  # engine.fit's, which needs torch
LATER = ("steps", "beta2")


@dataclass(frozen=True)
class FitSetting:
    """How one training run goes, as train.py's options of the same names; ``dict(setting)`` gives all of it.

    What came later is left out of that where it is the default, so what was computed before keeps its name.
    """

    epochs: int = 30
    steps: int | None = None  # optimizer steps in all, instead of epochs
    lr: float = 1e-6
    wd: float = 1e-4
    optimizer: str = "SGD"
    beta2: float = BETA2  # of Adam and AdamW
    schedule: str = "constant"
    warmup: int = 0  # optimizer steps
    clip_norm: float | None = None
    batch_size: int = 128
    accumulate: int = 1
    augment: str = "none"

    def keys(self) -> Iterator[str]:
        """The names of the values, in the order of the fields."""
        names = (item.name for item in fields(self) if item.name not in LATER or self[item.name] != item.default)
        return (name for name in names if not (name == "epochs" and self.steps))

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass(frozen=True)
class Setting:
    """One point of a tuning's grid."""

    options: TuningOptions
    fit: FitSetting
    varies: tuple[str, ...] = ()  # the keys that have several values in the grid

    @property
    def label(self) -> str:
        """What tells it from the other points, e.g. ``lr0.001 wd0.0001 r4``; the learning rate where there is no other."""
        return " ".join(_LABELS[name](self.value(name)) for name in self.varies or ("lr",))

    def value(self, name: str) -> Any:
        """Any of its values by name, of the training or of the tuning."""
        return getattr(self.options if hasattr(self.options, name) else self.fit, name)

    def values(self, tuning: str) -> dict[str, Any]:
        """Everything that decides the run: the training's values and the hyper-parameters that ``tuning`` reads."""
        return {**dict(self.fit), **self.options.read_by(tuning)}


@dataclass(frozen=True)
class TuningPlan:
    """One way to fine-tune, with all the settings to try; the one with the best validation accuracy is tested."""

    name: str  # its label in tables: the name of the TOML table, e.g. "lora" or "lora_small"
    tuning: str  # one of models.tuning_options.TUNING_OPTIONS
    grid: tuple[Setting, ...]  # the product of all lists, in the file's order, the last one running fastest


@dataclass(frozen=True)
class Plan:
    """A whole study; everything in it has been checked."""

    path: Path
    title: str
    about: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]  # trained on and measured; none, nor measures, in a plan of inversion or merging alone
    eval_tasks: tuple[str, ...]  # tested on, for what is forgotten
    tunings: tuple[TuningPlan, ...]  # none: measures without any training
    tuned_models: tuple[str, ...]  # the models that tunings other than "full" are applied to
    measures: tuple[str, ...]  # names of metrics.table.METRICS
    components: tuple[str, ...]  # measures that the report fits one by one beside the predictor
    data_dir: Path
    prompts: str | None  # prompt set or template file; None: each data set's own
    val_p: float
    published: str | None  # key of study.published, published_inversion or published_merging: what the report compares with
    seeds: tuple[int, ...] = field(default=(0,))
    predictor: str = "iimm"  # the measure of the report's main fit
    inversion: InversionPlan | None = None  # modality inversion, retrieval and zero-shot classification with it
    merging: MergingPlan | None = None  # merging of fine-tuned models

    def tunings_of(self, model: str) -> tuple[TuningPlan, ...]:
        """The tunings that are applied to ``model``."""
        return tuple(plan for plan in self.tunings if plan.tuning == "full" or model in self.tuned_models)


_LABELS: dict[str, Callable[[Any], str]] = {
    "epochs": "ep{}".format,
    "steps": "steps{}".format,
    "lr": lambda value: f"lr{exact(value)}",
    "wd": lambda value: f"wd{exact(value)}",
    "optimizer": str,
    "beta2": lambda value: f"beta2-{exact(value)}",
    "schedule": str,
    "warmup": "warmup{}".format,
    "clip_norm": lambda value: f"clip{exact(value)}",
    "batch_size": "bs{}".format,
    "accumulate": "acc{}".format,
    "augment": "augment-{}".format,
    "rank": "r{}".format,
    "lora_scale": lambda value: f"s{exact(value)}",
    "lora_mlp": lambda value: "mlp" if value else "no-mlp",
    "lora_targets": lambda value: value.replace(",", "") or "mlp-only",
    "towers": str,
    "train_blocks": "b{}".format,
    "reduction": "r{}".format,
    "adapter_ratio": lambda value: f"a{exact(value)}",
    "bottleneck": "b{}".format,
    "adapter_scale": lambda value: f"s{exact(value)}",
    "adapter_dropout": lambda value: f"d{exact(value)}",
    "probe_init": "{}-init".format,
}
