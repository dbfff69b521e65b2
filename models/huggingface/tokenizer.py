"""The tokenizer of a Hugging Face CLIP."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from common.errors import UserError
from common.files import write_json, write_text
from models.encoder import Encoder
from models.huggingface.config import Config
from models.huggingface.files import TOKENIZER, read_object, resolve

STANDARD_VOCABULARY = 49408  # tokens of the vocabulary of OpenAI's CLIP, which open_clip carries with it
SPECIAL = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's spelling, transformers'


def load_tokenizer(folder: Path, model_cfg: Config) -> Callable[..., Tensor]:
    """Prompts to token ids [P, context_length]: open_clip's tokenizer where the vocabulary is CLIP's own, else the folder's.

    What stands behind the end-of-text token does not matter (the mask is causal, the first end-of-text is pooled), so
    padding with 0, as open_clip does, and with end-of-text, as transformers does, give the same features.
    """
    text = model_cfg["text_cfg"]
    vocabulary = _vocabulary(folder)
    if text["vocab_size"] == STANDARD_VOCABULARY and (vocabulary is None or _is_standard(vocabulary)):
        standard = SimpleTokenizer(context_length=text["context_length"])
        _check_tokens(folder, text, standard.eot_token_id, STANDARD_VOCABULARY)
        return standard
    if vocabulary is None:
        raise UserError(
            f"'{folder}' has {text['vocab_size']} tokens instead of CLIP's {STANDARD_VOCABULARY} and no tokenizer; "
            "put its tokenizer.json (or vocab.json and merges.txt) there."
        )
    own = _own_tokenizer(folder, text["context_length"])
    _check_tokens(folder, text, own.tokenizer.eos_token_id, len(own.tokenizer))
    return own


def write_tokenizer(encoder: Encoder, folder: Path) -> bool:
    """Write the files of the tokenizer of ``encoder`` to ``folder``, where they can be had; whether they could.

    A Hugging Face model's own are copied; those of CLIP's own vocabulary are written in the form that every version of transformers reads.
    """
    own = resolve(encoder.source.architecture) if encoder.source.kind == "huggingface" else None
    found = [own / name for name in TOKENIZER if (own / name).is_file()] if own else []
    for path in found:
        shutil.copyfile(path, folder / path.name)
    if found or encoder.model.vocab_size != STANDARD_VOCABULARY:
        return bool(found)
    standard = SimpleTokenizer()
    write_json(folder / "vocab.json", {SPECIAL.get(token, token): number for token, number in standard.encoder.items()})
    write_text(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in standard.bpe_ranks))
    special = {f"{kind}_token": SPECIAL["<end_of_text>"] for kind in ("eos", "pad", "unk")} | {"bos_token": SPECIAL["<start_of_text>"]}
    write_json(folder / "special_tokens_map.json", special)
    own_class = {"tokenizer_class": "CLIPTokenizer", "model_max_length": encoder.model.context_length, "do_lower_case": True}
    write_json(folder / "tokenizer_config.json", {**own_class, "add_prefix_space": False, "errors": "replace", **special})
    return True


def _own_tokenizer(folder: Path, context_length: int) -> HFTokenizer:
    try:
        own = HFTokenizer(str(folder), context_length=context_length, local_files_only=True, trust_remote_code=False, padding_side="right")
    except Exception as error:  # the tokenizer libraries answer damaged files with exceptions of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .")
        raise UserError(f"Cannot read the tokenizer in '{folder}': {reason}.") from error
    own.tokenizer.pad_token = own.tokenizer.eos_token  # never a greater id, which argmax pooling would take
    return own


def _check_tokens(folder: Path, text: Config, end_of_text: int | None, size: int) -> None:
    if size > text["vocab_size"]:
        raise UserError(
            f"The tokenizer of '{folder}' has {size} tokens but the model only {text['vocab_size']}; they do not belong together."
        )
    pooled_at = text.get("eos_id", end_of_text)
    if end_of_text is None or pooled_at != end_of_text:
        raise UserError(
            f"'{folder}' pools its text at token {pooled_at} (eos_token_id) but its tokenizer ends prompts with {end_of_text}; "
            "they do not belong together."
        )


def _vocabulary(folder: Path) -> Config | None:
    """Tokens and their ids from the folder's tokenizer files; None when it has none."""
    whole, plain = folder / "tokenizer.json", folder / "vocab.json"
    if whole.is_file():
        model = read_object(whole).get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        return vocabulary if isinstance(vocabulary, dict) else {}
    return read_object(plain) if plain.is_file() else None


def _is_standard(vocabulary: Config) -> bool:
    """Whether ids and tokens are CLIP's; its merges are its tokens in order, so they need no comparison."""
    return vocabulary == {SPECIAL.get(token, token): number for token, number in SimpleTokenizer().encoder.items()}
