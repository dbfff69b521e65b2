"""Build an :class:`~models.encoder.Encoder` from a model's name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import PickleError, UnpicklingError
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg
from safetensors import SafetensorError
from torch import Tensor, nn

from common.errors import UserError
from common.stages import staged
from models.encoder import Encoder
from models.preprocess import Preprocess
from models.zoo import RANDOM, ModelSource, resolve

# What open_clip and the libraries below it raise on configurations and weights that are damaged, or of another kind.
DAMAGED = (
    *(OSError, RuntimeError, ValueError, EOFError, PickleError),
    *(TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
)
RANDOM_SEED = 0  # of the weights of ARCH/random


@staged("model")
def load_encoder(name: str) -> Encoder:
    """The encoder called ``name`` (see :mod:`models.zoo`), in float32 on the CPU, every parameter frozen."""
    source = resolve(name)
    model, tokenizer = _BUILDERS[source.kind](source)
    _drop_caption_decoder(model)
    model.requires_grad_(False)
    visual: Any = model.visual
    return Encoder(source, model, Preprocess(PreprocessCfg(**visual.preprocess_cfg)), tokenizer)


def _open_clip(source: ModelSource) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    with _told_plainly(source.name):
        if source.pretrained == RANDOM:
            model = _random(source.architecture)
        else:
            model = open_clip.create_model(source.architecture, pretrained=source.pretrained)
    with _told_plainly(f"the tokenizer of {source.name}"):
        return model, open_clip.get_tokenizer(source.architecture)


def _random(architecture: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return open_clip.create_model(architecture, pretrained=None, pretrained_text=False)


def _slip(source: ModelSource) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    from models.slip import load_slip, random_slip

    weights, tokenizer = str(source.pretrained), open_clip.get_tokenizer("ViT-B-16")  # CLIP's own vocabulary and context
    if weights == RANDOM:
        return random_slip(source.architecture, RANDOM_SEED), tokenizer
    return load_slip(source.architecture, Path(weights)), tokenizer


def _local_dir(source: ModelSource) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    if not any(Path(source.architecture).glob("*.safetensors")) and not any(Path(source.architecture).glob("*.[bp]*[nth]")):
        raise UserError(f"The model folder '{source.architecture}' has no weights; open_clip_model.safetensors is expected.")
    name = f"local-dir:{source.architecture}"
    with _told_plainly(name):
        return open_clip.create_model(name, require_pretrained=True), open_clip.get_tokenizer(name)


def _hf_hub(source: ModelSource) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    name = f"hf-hub:{source.architecture}"
    with _told_plainly(name):
        if _lacks_open_clip_config(source.architecture):
            return _huggingface(source)
        return open_clip.create_model(name, require_pretrained=True), open_clip.get_tokenizer(name)


def _lacks_open_clip_config(repository: str) -> bool:
    """Whether a repository is not one of open_clip's; it may hold a Hugging Face CLIP then. OSError when it is not reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(repository, "open_clip_config.json")
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return True
    return False


def _huggingface(source: ModelSource) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    from models.huggingface import load_huggingface_clip

    loaded = load_huggingface_clip(source.architecture)
    return loaded.model, loaded.tokenizer


_BUILDERS: dict[str, Callable[[ModelSource], tuple[nn.Module, Callable[[list[str]], Tensor]]]] = {
    "open_clip": _open_clip,
    "slip": _slip,
    "local-dir": _local_dir,
    "hf-hub": _hf_hub,
    "huggingface": _huggingface,
}


@contextmanager
def _told_plainly(name: str) -> Iterator[None]:
    """Turn what goes wrong while weights are fetched and read into one sentence, and keep open_clip's log out of the way."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="huggingface_hub")
            yield
    except SafetensorError as error:
        raise UserError(f"The weights of '{name}' are damaged or not safetensors: {error}.") from error
    except UnpicklingError as error:  # torch says many sentences, and how to execute it all the same
        told = "are a pickle that is damaged or holds more than tensors, which would be executed"
        raise UserError(f"The weights of '{name}' {told}; save its tensors with safetensors.torch.save_file.") from error
    except DAMAGED as error:
        raise UserError(f"Cannot load '{name}': {_reason(error)}") from error
    finally:
        logging.disable(logging.NOTSET)


def _reason(error: BaseException) -> str:
    """Why something could not be loaded, as the end of a sentence."""
    text = str(error)
    if "local cache" in text or "connection" in text.lower():
        return "the hub is not reached and the files are not in the local cache; connect, or use a local folder or 'tiny'."
    lines = text.strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip(' .:')}."


def _drop_caption_decoder(model: nn.Module) -> None:
    """CoCa's caption decoder takes no part in embeddings; without it memory, hashes and full fine-tuning concern the encoder."""
    if hasattr(model, "text_decoder"):
        del model.text_decoder
