"""OVI, optimisation-based visual inversion: what would have to be seen for the image encoder to say what a text says.

    python ovi.py --model-name tiny --dataset-name Digits --use-class-names --ovi-steps 200
    python ovi.py --config configs/ovi/clip_vitb32.toml --dataset-name coco_text --dataroot data --validate
    torchrun --nproc_per_node=4 ovi.py --config configs/ovi/siglip_vitb16.toml --dataset-name Flickr30k --side gallery

For every text, P pseudo-patches are learnt which, spread over the patches of an image, have cosine 1 between the image encoder's
feature and the text's (Mistretta et al., "Cross the Gap", ICLR 2025). The encoder stays frozen, the loss is 1 - cosine, texts do not
depend on each other. Writes shards into OUTFOLDER/ovi/EXP_NAME/DATASET_SPLIT_SIDE as they are finished; a run that was stopped goes
on when the same command is given again. With --use-class-names the texts are the names of the classes of a classification data set.
"""

from __future__ import annotations

from common.cli import Parser, run
from common.configs import parse_with_config
from inversion.arguments import add_inversion_arguments


def main() -> None:
    """Invert texts as the command line says."""
    parser = Parser(__doc__)
    add_inversion_arguments(parser, "ovi")
    args = parse_with_config(parser)
    from inversion.command import run_command

    run_command("ovi", args)


if __name__ == "__main__":
    run(main)
