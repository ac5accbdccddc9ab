"""The engine: one file per operation, each a ``torch.library`` custom op with fake and autograd.

``infonce``, ``sigmoid``, ``distill``, ``linear_cross_entropy``, ``multi_target_cross_entropy`` and
``linear_sigmoid_cross_entropy`` hold the operations, ``*_torch`` their tiled torch backend,
``reference`` the textbook twin of each, ``dispatch`` the choice of a backend. Importing any of them
needs only torch.

``*_triton`` are the Triton backends, on the kernels of ``fastclip.kernels``.
``infonce_cuda`` is InfoNCE's CUDA backend, on the library that ``cuda_library`` finds or builds.
``infonce_gpu`` drives both of InfoNCE's over the blocks of logits that ``blocks`` plans.

Rows ``x [n, D]`` meet columns ``y [m, D]`` in logits ``z = scale * x @ y.T`` that never exist
whole beyond ``workspace_bytes``. Products accumulate in the *accumulation dtype* (float64 for
float64 features, float32 otherwise), log-sum-exps are float64 vectors.
"""
