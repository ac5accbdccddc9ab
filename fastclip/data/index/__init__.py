"""Tar archives by their headers: what members a shard has, and where; kept in the cache folder."""
