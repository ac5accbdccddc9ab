"""Turns any source into webdataset shards."""
