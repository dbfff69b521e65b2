"""The main job in a few minutes on a laptop: what does fine-tuning gain on a task, what is forgotten, and what IIMM said before.

    python demo.py            # or: make demo

Fine-tunes the tiny model on Digits (real handwritten digits) and on one drawn task, all of it and with LoRA, tests every
encoder on both and on a third task that none of them was trained on, and measures the zero-shot embeddings. Each command is shown as it
is run, and can be run by hand. Everything is written below --folder.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common.cli import Parser, run
from common.errors import UserError
from common.files import read_csv

TRAINED = ("Digits", "Glyphs-Inverted")
BYSTANDER = "Shapes-Color"
RECIPES = {  # tuning -> arguments of train.py
    "full": ["--model-name", "tiny", "--lr", "3e-4"],
    "lora": ["--model-name", "lora", "--base-model", "tiny", "--lr", "1e-2"],
}
SCHEDULE = ["--optimizer", "AdamW", "--schedule", "cosine", "--warmup", "20", "--bs", "32", "--nepochs", "5"]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("demo"), help="where everything is written; an earlier demo's files are replaced"
    )
    return parser.parse_args()


def call(*command: str | Path) -> str:
    """Show a command, run it with its output shown, and return that output."""
    words = [str(word) for word in command]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise UserError(f"the command above ended with status {process.returncode}.")
    return "".join(lines)


def fine_tune(folder: Path) -> dict[tuple[str, str], Path]:
    """Fine-tune on each task with each recipe; the best checkpoints by (task, tuning)."""
    best = {}
    for task in TRAINED:
        for tuning, recipe in RECIPES.items():
            output = call(
                *("train.py", "--dataset", task, *recipe, *SCHEDULE, "--num-workers", "0", "--model-dir", folder / "ckpts"),
            )
            best[task, tuning] = Path(output.strip().splitlines()[-1].removeprefix("best checkpoint: "))
    return best


def accuracies(folder: Path, label: str, *model: str | Path) -> dict[str, float]:
    """Test one encoder on all tasks; accuracy by task."""
    table = folder / "results" / f"{label}.csv"
    call("test.py", *model, "--eval-datasets", *TRAINED, BYSTANDER, "--num-workers", "0", "--outfile", table)
    return {row["dataset"]: float(row["top1"]) for row in read_csv(table)}


def measure(folder: Path) -> dict[str, float]:
    """Embed the training images of all tasks with the encoder as it was published; IIMM by task."""
    call("get_embeddings.py", "--datasets", *TRAINED, "--model-name", "tiny", "--num-workers", "0", "--outfolder", folder / "embeddings")
    table = folder / "metric_scores.csv"
    files = [folder / "embeddings" / "tiny" / f"{task}_train.safetensors" for task in TRAINED]
    call("get_metric_scores.py", "--embeddings", *files, "--metrics", "iimm", "image_image", "wrong_label", "--outpath", table)
    return {row["data"]: float(row["score"]) for row in read_csv(table) if row["measure"] == "iimm"}


def summarise(zero_shot: dict[str, float], tuned: dict[tuple[str, str], dict[str, float]], iimm: dict[str, float]) -> None:
    """One line per fine-tuned encoder. Gain is the share of the zero-shot error that is gone."""
    print(f"\n{'task':<16} {'IIMM':>6} {'tuning':<6} {'zero-shot':>9} {'after':>6} {'gain':>6}   forgotten: mean change on the other tasks")
    for (task, tuning), after in tuned.items():
        before = zero_shot[task]
        others = [name for name in zero_shot if name != task]
        changes = {name: after[name] - zero_shot[name] for name in others}
        told = ", ".join(f"{name} {change:+.3f}" for name, change in changes.items())
        gain = (after[task] - before) / (1 - before)
        mean = sum(changes.values()) / len(changes)
        print(f"{task:<16} {iimm[task]:>6.3f} {tuning:<6} {before:>9.3f} {after[task]:>6.3f} {gain:>6.3f}   {mean:+.3f} ({told})")


def clear(folder: Path) -> None:
    """Take away what an earlier demo wrote, and nothing else."""
    for name in ("ckpts", "results", "embeddings"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "metric_scores.csv").unlink(missing_ok=True)


def main() -> None:
    """Run the demo."""
    args = parse_arguments()
    started = time.monotonic()
    clear(args.folder)
    zero_shot = accuracies(args.folder, "zero_shot", "--model-name", "tiny")
    iimm = measure(args.folder)
    best = fine_tune(args.folder)
    tuned = {key: accuracies(args.folder, "_".join(key), "--model-path", path) for key, path in best.items()}
    summarise(zero_shot, tuned, iimm)
    print(f"\nEverything is in {args.folder}/ ({time.monotonic() - started:.0f} s).")


if __name__ == "__main__":
    run(main)
