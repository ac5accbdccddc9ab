"""Losses of ours and of others on the same inputs, and the exact answer."""
