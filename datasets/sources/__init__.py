"""Data sets with a fixed name: one small file per source."""
