"""Records of runs as plain values, their tables and plots, and the README's copy of them."""
