"""OTI, optimisation-based textual inversion: what would have to be written for the text encoder to say what an image says.

    python oti.py --model-name tiny --dataset-name Digits --split test
    python oti.py --config configs/oti/clip_vitb32.toml --dataset-name cub2011 --dataroot data --validate
    torchrun --nproc_per_node=4 oti.py --config configs/oti/siglip_vitb16.toml --dataset-name SOP --snapshots 10,20,50,100,150

For every image, R pseudo-tokens are learnt so that the text encoder's feature of "a photo of v*" has cosine 1 with the image's
(Mistretta et al., "Cross the Gap", ICLR 2025). The encoder stays frozen, the loss is 1 - cosine, images do not depend on each
other. Writes shards into OUTFOLDER/oti/EXP_NAME/DATASET_SPLIT_SIDE as they are finished; a run that was stopped goes on when the same
command is given again. retrieval.py and test.py take them from there.
"""

from __future__ import annotations

from common.cli import Parser, run
from common.configs import parse_with_config
from inversion.arguments import add_inversion_arguments


def main() -> None:
    """Invert images as the command line says."""
    parser = Parser(__doc__)
    add_inversion_arguments(parser, "oti")
    args = parse_with_config(parser)
    from inversion.command import run_command

    run_command("oti", args)


if __name__ == "__main__":
    run(main)
