"""What a task is: images with labels, class names, prompts, a split and a fingerprint."""
