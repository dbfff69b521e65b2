"""The tiny model: its configuration and weights, and how they were made."""
