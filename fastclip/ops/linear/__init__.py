"""Losses of a linear layer's output that never hold it whole: a folder each, and what they share.

``layer`` holds checks, reductions and the backward pass, ``csr`` and ``entries`` sparse targets,
``row_chunks`` what the torch backends share, ``softmax_rows`` and ``gpu_plan`` what Triton's do.
"""
