"""The merging methods: one file per method or family, each ending with its entries of ``merging.table.METHODS``."""
