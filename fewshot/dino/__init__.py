"""The parts of self-distillation with multi-crop (DINO) for adapters; :mod:`fewshot.objectives.dino` puts them together."""
