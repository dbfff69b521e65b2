"""Speed and memory, side by side with the plain way in one run."""
