"""What ``fastclip.loss`` computes: one file a loss, over one process or the ranks of a group."""
