"""Losses of a linear layer's output that never hold it whole: a folder each, and what they share.

``layer`` holds checks and reductions, ``registration`` the ops and their backward pass, ``columns``
softmaxes over some of the columns, ``csr``, ``entries`` and ``sparse_targets`` targets for some of
them. The torch backends share ``row_chunks`` and, with such targets, ``sparse_chunks``, Triton's
``softmax_rows``, ``sparse_softmax`` and ``gpu_plan``.
"""
