"""Decoded pictures on disk: written in the first epoch, memory-mapped after."""
