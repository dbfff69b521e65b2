"""Modality inversion: what an image is in words (OTI), what a text is in patches (OVI), and whether it helps retrieval."""
