"""Code that hides in a file that somebody has sent is never executed, whatever command is given the file, and under whatever name."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults.scale import count
from tests.helpers import run_here, write_model

ON_CPU = ["--num-workers", 0, "--device", "cpu"]


class Payload:
    """Unpickled, it makes the file that says that code was executed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def zipped(path: Path, marker: Path) -> None:
    torch.save({"visual.proj": Payload(marker)}, path)


def bare(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps({"visual.proj": Payload(marker)}))


def in_an_array(path: Path, marker: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.array([Payload(marker)], dtype=object), allow_pickle=True)


def in_arrays(path: Path, marker: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, image_embeddings=np.array([Payload(marker)], dtype=object))


KINDS = {"zipped": zipped, "bare": bare, "npy": in_an_array, "npz": in_arrays}
SUFFIXES = {"zipped": ".pt", "bare": ".bin", "npy": ".npy", "npz": ".npz"}
COMMANDS: dict[str, Callable[[Path, Path, str], list[object]]] = {
    "test --model-path": lambda evil, model, data: ["--model-path", evil, "--eval-datasets", data],
    "test --model-path --model-name": lambda evil, model, data: ["--model-name", model, "--model-path", evil, "--eval-datasets", data],
    "test --model-name": lambda evil, model, data: ["--model-name", evil, "--eval-datasets", data],
    "get_embeddings --model-path": lambda evil, model, data: ["--model-path", evil, "--datasets", data],
    "export --model-path": lambda evil, model, data: ["--model-path", evil, "--to", "huggingface", "--out", "out"],
    "train --base-model": lambda evil, model, data: ["--model-name", "lora", "--base-model", evil, "--dataset", data],
    "few_shot --adapter": lambda evil, model, data: ["--dataset", data, "--adapter", evil],
    "merge --models": lambda evil, model, data: ["--method", "ties", "--base", model, "--models", evil, "--out", "out.safetensors"],
    "merge --base": lambda evil, model, data: ["--method", "ties", "--base", evil, "--models", model, "--out", "out.safetensors"],
    "oti --model-path": lambda evil, model, data: ["--model-path", evil, "--dataset-name", data],
    "retrieval --model-path": lambda evil, model, data: [
        *["--model-path", evil, "--dataset-name", data, "--query", "image", "--gallery", "image"]
    ],
    "get_metric_scores --embeddings": lambda evil, model, data: ["--embeddings", evil],
    "predict --outcomes": lambda evil, model, data: ["--outcomes", evil],
    "get_transfer_scores --label-features": lambda evil, model, data: [
        *["--dataset", data, "--eval-models", model, "--metrics", "emms", "--label-features", evil]
    ],
}
HAS_NO_DEVICE = ("export", "merge", "get_metric_scores", "predict")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_executes_what_is_in_a_file(
    command: str, kind: str, tmp_path: Path, small_model: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name that it would have, and as one that claims to be safetensors."""
    monkeypatch.chdir(tmp_path)
    script = command.split(maxsplit=1)[0]
    for suffix in (SUFFIXES[kind], ".safetensors"):
        evil = tmp_path / f"evil{suffix}"
        KINDS[kind](evil, tmp_path / "executed")
        words = [*COMMANDS[command](evil, small_model, f"imagefolder:{image_folder}"), *([] if script in HAS_NO_DEVICE else ON_CPU)]
        run_here(script, *words).refused()
        assert not (tmp_path / "executed").exists()
        count("files with code inside")


def test_the_payload_works(tmp_path: Path) -> None:
    """Else the tests above would pass whatever the commands do."""
    bare(tmp_path / "evil.bin", tmp_path / "executed")
    pickle.loads((tmp_path / "evil.bin").read_bytes())
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_no_model_folder_brings_code(prefix: str, tmp_path: Path, image_folder: Path) -> None:
    """A configuration that names a module beside it, and weights that are a pickle."""
    folder, marker = write_model(tmp_path / "model"), tmp_path / "executed"
    (folder / "open_clip_model.safetensors").unlink()
    for name in ("open_clip_pytorch_model.bin", "pytorch_model.bin"):
        zipped(folder / name, marker)
    (folder / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Model: ...\n")
    told = {"auto_map": dict.fromkeys(("AutoModel", "AutoConfig", "AutoProcessor", "AutoTokenizer"), "evil.Model")}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "architectures": ["CLIPModel"], **told}))
    out = ["--outfile", tmp_path / "results.csv"]
    run_here("test", "--model-name", f"{prefix}{folder}", "--eval-datasets", f"imagefolder:{image_folder}", *out, *ON_CPU).refused()
    assert not marker.exists()
    count("files with code inside")


def test_no_shard_of_images_brings_code(tmp_path: Path, small_model: Path) -> None:
    """Shards may have pickles among the files of a sample, which other readers decode."""
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "test-0.tar", "w") as shard:
        for suffix in ("pyd", "pkl", "pickle", "pth", "jpg", "cls"):
            content = b"0" if suffix == "cls" else pickle.dumps(Payload(tmp_path / "executed"))
            member = tarfile.TarInfo(f"sample.{suffix}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    words = ["--model-name", small_model, "--eval-datasets", f"wds:{tmp_path}/shards/{{split}}-0.tar", "--outfile", tmp_path / "r.csv"]
    run_here("test", *words, *ON_CPU).refused()
    assert not (tmp_path / "executed").exists()
    count("files with code inside")
