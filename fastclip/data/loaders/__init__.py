"""Batches for training: who reads which records, in which order, in which process."""
