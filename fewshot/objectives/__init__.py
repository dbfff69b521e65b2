"""What adapters can be trained for, one file each; see :mod:`fewshot.objective`."""
