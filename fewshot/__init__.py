"""Few-shot classification with and without training, and adapters that reduce the overlap of image similarities."""
