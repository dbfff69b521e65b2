"""Small models, small folders of images, and two ways to run a script: in this process and as a user does."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
COLORS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 20)}  # sorted, as folders of classes are
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def write_model(folder: Path, seed: int = 0, embed_dim: int = 32) -> Path:
    """A CLIP of two small towers with random weights, as an open_clip local-dir."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {"embed_dim": embed_dim, "vision_cfg": VISION, "text_cfg": TEXT}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def write_images(folder: Path, per_class: int, seed: int = 0, colors: Sequence[str] = tuple(COLORS)) -> None:
    """``folder/<colour>/<number>``: noisy images of one colour each, of several sizes and two formats."""
    generator = np.random.default_rng(seed)
    for color in colors:
        (folder / color).mkdir(parents=True)
        for number in range(per_class):
            shape = (32 + 4 * (number % 3), 40, 3)
            pixels = np.clip(np.asarray(COLORS[color]) + generator.normal(0, 60, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / color / f"{number:02d}.{'png' if number % 2 else 'jpg'}")


@dataclass(frozen=True)
class Ended:
    """How a script ended."""

    status: int
    stdout: str
    stderr: str

    def succeeded(self) -> Ended:
        """Itself, after making sure that all went well."""
        assert self.status == 0, self.stderr
        return self

    def refused(self, *words: object) -> str:
        """The one sentence of a refusal, after making sure that it is one and names ``words``."""
        assert self.status == 2, (self.status, self.stdout, self.stderr)
        assert self.stderr.count("\n") == 1
        assert self.stderr.endswith("\n")
        assert ": error: " in self.stderr
        assert "Traceback" not in self.stderr
        for word in words:
            assert str(word) in self.stderr
        return self.stderr


def load_script(name: str) -> ModuleType:
    """The script ``name`` as a module, by its file: ``test`` is also a package of the standard library."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget_accelerator() -> None:
    """Let the next Accelerator of this process choose its precision anew; a user's process has only one."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run_here(name: str, *arguments: object) -> Ended:
    """Run a script's main in this process, as its last lines do, with one thread, on the CPU."""
    import torch

    from common.cli import run

    script, earlier, threads = load_script(name), sys.argv, torch.get_num_threads()
    out, err = io.StringIO(), io.StringIO()
    sys.argv = [f"{name}.py", *map(str, arguments)]
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run(script.main)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return Ended(end.code, out.getvalue(), err.getvalue())
    finally:
        sys.argv = earlier
        torch.set_num_threads(threads)
        forget_accelerator()
    raise AssertionError("run returns by SystemExit only")


def start_script(name: str, *arguments: object, processes: int = 1) -> subprocess.Popen[str]:
    """Start a script in a process of its own; with more than one of ``processes``, through torchrun."""
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port=0", "--rdzv_backend=c10d"]
    launcher += ["--rdzv_endpoint=localhost:0"]
    command = [sys.executable, *(launcher if processes > 1 else []), str(ROOT / f"{name}.py"), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **QUIET}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_script(name: str, *arguments: object, processes: int = 1) -> Ended:
    """Run a script in a process of its own to its end."""
    process = start_script(name, *arguments, processes=processes)
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, out, err)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
