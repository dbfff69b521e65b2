"""The image processor of a Hugging Face model as open_clip's preprocessing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from open_clip.transform import PreprocessCfg

from common.errors import UserError
from models.huggingface.config import Config, model_config
from models.huggingface.files import read_object

INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which preprocessor_config.json holds


def preprocess_config(folder: Path) -> Config:
    """All fields of open_clip's ``PreprocessCfg`` for the model in ``folder``.

    Read from ``preprocessor_config.json``, or the ``image_processor`` part of ``processor_config.json``; where there is
    neither, they are those of OpenAI's CLIP at the model's own image size. Raises :class:`UserError` for steps that
    open_clip does not have.
    """
    image_size = model_config(folder)["vision_cfg"]["image_size"]
    path, values = _image_processor(folder)
    if not values:
        return asdict(PreprocessCfg(size=image_size))
    given = {key: value for key, value in values.items() if value is not None}
    return asdict(_preprocess(given, image_size, path))


def _image_processor(folder: Path) -> tuple[Path, Config]:
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_object(path)
    path = folder / "processor_config.json"
    return path, (read_object(path).get("image_processor") or {}) if path.is_file() else {}


def _preprocess(values: Config, image_size: int, path: Path) -> PreprocessCfg:
    for step in ("do_resize", "do_rescale"):
        if not values.get(step, True):
            raise UserError(f"'{path}' turns {step} off; open_clip's preprocessing always does it.")
    if abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f"'{path}' has rescale_factor {values['rescale_factor']}; open_clip's is 1/255.")
    if values.get("resample", 3) not in INTERPOLATIONS:
        raise UserError(f"'{path}' has resample {values['resample']}; open_clip has 2 (bilinear) and 3 (bicubic).")
    normalize = values.get("do_normalize", True)
    return PreprocessCfg(
        size=image_size,
        mean=_three(values, "image_mean", PreprocessCfg.mean, path) if normalize else (0.0, 0.0, 0.0),
        std=_three(values, "image_std", PreprocessCfg.std, path) if normalize else (1.0, 1.0, 1.0),
        interpolation=INTERPOLATIONS[values.get("resample", 3)],
        resize_mode=_resize_mode(values, image_size, path),
    )


def _three(values: Config, key: str, default: tuple[float, ...], path: Path) -> tuple[float, ...]:
    value = values.get(key) or default
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise UserError(f"'{path}' has {key} {value}; expected three numbers.")
    return tuple(map(float, value))


def _resize_mode(values: Config, image_size: int, path: Path) -> str:
    """``shortest`` (shorter side to the size, centre crop) or ``squash`` (both sides to the size); all sizes must be the model's."""
    size = _sides(values.get("size", image_size), "shortest_edge")
    crop = _sides(values.get("crop_size", image_size), "height") if values.get("do_center_crop", True) else {}
    sides = {**size, **{f"crop {key}": side for key, side in crop.items()}}
    mode = {("shortest_edge",): "shortest", ("height", "width"): "squash"}.get(tuple(sorted(size)))
    if mode is None or (mode == "shortest" and not crop) or any(side != image_size for side in sides.values()):
        told = ", ".join(f"{key} {side}" for key, side in sides.items())
        raise UserError(f"'{path}' does not end in the model's {image_size} x {image_size} pixels by one resize and crop ({told}).")
    return mode


def _sides(value: Any, only: str) -> Config:
    """``{name: pixels}``; old files have one number, which is that of ``only``."""
    return dict(value) if isinstance(value, dict) else {only: value}
