"""Write an encoder in the formats of others: a Hugging Face CLIP folder, or its LoRA as a PEFT adapter.

    python export.py --model-path ckpts/EuroSAT_clip_full-vision_last.safetensors --to huggingface --out exported/eurosat --vision-only
    python export.py --model-path merged.safetensors --model-name clip --to huggingface --out exported/merged
    python export.py --model-path ckpts/Digits_tiny_lora-r16-s0.2_best.safetensors --to peft --out exported/digits-lora
    python export.py --model-name tiny --to huggingface --out exported/tiny

huggingface: config.json, model.safetensors, preprocessor_config.json and the tokenizer's files, spelled as transformers 4 does;
transformers 5 reads them too. With --vision-only a CLIPVisionModel, otherwise a CLIPModel, which is also a --model-name here.
LoRA is folded in; the weights are the encoder's to the bit, there and back.
peft: adapter_config.json and adapter_model.safetensors for CLIPModel (LoRA and L-LoRA checkpoints).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common.cli import Parser, run
from common.errors import UserError


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model-path", type=Path, help="checkpoint of a fine-tuned encoder, or an open_clip state dict of --model-name")
    parser.add_argument("--model-name", help="an encoder (tiny, clip, ARCH/PRETRAINED, ...); a checkpoint knows its own")
    parser.add_argument("--to", choices=("huggingface", "peft"), required=True, help="format")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a folder that is made; it must not exist")
    parser.add_argument("--vision-only", action="store_true", help="huggingface: the vision tower alone, as a CLIPVisionModel")
    return parser.parse_args()


def main() -> None:
    """Export as the command line says."""
    args = parse_arguments()
    if args.model_path is None and args.model_name is None:
        raise UserError("Nothing to export; give a checkpoint with --model-path, or a model with --model-name.")
    if args.vision_only and args.to == "peft":
        raise UserError("--vision-only belongs to --to huggingface; an adapter holds the towers that were tuned.")
    from models.huggingface.export import check_new, export_clip, export_lora
    from models.selection import select_encoder

    check_new(args.out)
    encoder = select_encoder(args.model_name, args.model_path, {}).encoder
    folder = export_lora(encoder, args.out) if args.to == "peft" else export_clip(encoder, args.out, args.vision_only)
    print(f"written: {folder}")


if __name__ == "__main__":
    run(main)
