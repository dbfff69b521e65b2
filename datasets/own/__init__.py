"""A user's own data: folders, tables, shards, sets on the hub."""
