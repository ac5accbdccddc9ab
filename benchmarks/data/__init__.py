"""Pictures a core-second: crops, loaders and cached epochs, ours and others'."""
