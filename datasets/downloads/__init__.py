"""How data sets get onto the disk: what there is to fetch, fetching it, unpacking it, and saying what is there."""
