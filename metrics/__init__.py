"""Measures of embeddings: pure functions from NumPy arrays to one number, one file per measure.

``metrics.table.METRICS`` lists them all. Nothing here reads a file, prints, or imports another package of clipscope.
"""
