"""The few-shot methods, one file each."""
