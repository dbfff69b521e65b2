"""Zero-shot accuracy of the tiny model on every task that needs no download.

python -m models.tiny.zero_shot --model models/tiny
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE, help="open_clip local-dir folder")
    for name, accuracy in zero_shot_accuracies(parser.parse_args().model).items():
        print(f"{name:20s} {accuracy:6.1%}")


def zero_shot_accuracies(folder: Path, split: str = "test") -> dict[str, float]:
    """Fraction of images of each task whose nearest prompt is that of their class."""
    import open_clip

    from datasets.sources.digits import digits_task
    from datasets.sources.drawn import DRAWN_TASKS, drawn_task

    name = f"local-dir:{folder}"
    logging.disable(logging.WARNING)
    model, preprocess = open_clip.create_model_from_pretrained(name)
    logging.disable(logging.NOTSET)
    tokenizer = open_clip.get_tokenizer(name)
    tasks = [*(drawn_task(task, split) for task in DRAWN_TASKS), digits_task(split)]
    return {task.name: accuracy(model.eval(), preprocess, tokenizer, task) for task in tasks}


def accuracy(model: Any, preprocess: Any, tokenizer: Any, task: Any) -> float:
    """Zero-shot accuracy on one task: a class's vector is the mean of its prompts' unit vectors, at unit length again."""
    import torch
    from torch.nn import functional as F

    with torch.inference_mode():
        prompts = [model.encode_text(tokenizer(texts), normalize=True).mean(dim=0) for texts in task.prompts()]
        text_embeddings = F.normalize(torch.stack(prompts), dim=1)
        images = torch.stack([preprocess(task.samples.image(index)) for index in range(len(task))])
        logits = model.encode_image(images) @ text_embeddings.T
    return float((logits.argmax(dim=1) == torch.from_numpy(task.labels)).double().mean())


if __name__ == "__main__":
    main()
