"""How time and memory grow with the size of the work: measured, fitted, written to docs/scaling.md."""
