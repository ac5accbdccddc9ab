"""Data: where records come from, how they become batches, and the set that fastclip generates."""
