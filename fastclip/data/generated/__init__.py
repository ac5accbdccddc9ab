"""The generated set: shapes drawn after a grammar of captions, written to shards."""
