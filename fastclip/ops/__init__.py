"""The operations that losses are made of: a folder each, of ``torch.library`` custom ops.

``infonce``, ``sigmoid``, ``distill`` and, in ``linear``, ``cross_entropy``, ``multi_target``,
``ngram`` and ``sigmoid`` hold an ``operation`` with fakes and autograd, and a ``*_backend`` for
each backend that it has: ``torch``, which runs everywhere, ``triton`` on the kernels of
``fastclip.kernels``, ``cuda`` on the library that ``cuda_library`` finds or builds. ``tiling`` cuts
logits to fit the workspace, ``reference`` has the textbook twin of each operation, ``dispatch``
chooses a backend. Importing an operation needs only torch.

Rows ``x [n, D]`` meet columns ``y [m, D]`` in logits ``z = scale * x @ y.T`` that never exist
whole beyond ``workspace_bytes``. Products accumulate in the *accumulation dtype* (float64 for
float64 features, float32 otherwise), log-sum-exps are float64 vectors.
"""
