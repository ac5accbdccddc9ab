"""How a matrix of logits is cut so that what is held of it fits the workspace.

``cpu_tiles`` cuts for the torch backends, ``gpu_blocks`` for those of a GPU; ``softmax_tiles`` is
the elementwise work on a tile that two-sided softmaxes share.
"""
