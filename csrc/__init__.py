"""CUDA backend of infonce: sources that ``fastclip.ops.cuda_library`` compiles.

``ops.cpp`` holds the schemas, checks and launches on torch's stable ABI (one binary for torch 2.11
and later, and for every Python); ``cuda/`` the kernels. ``infonce_sm90.cu`` is the product with its
softmax epilogues on wgmma and the tensor copy engine, ``infonce_sm80.cu`` the same on mma.sync and
cp.async, ``infonce_quantized.cu`` the gradient of kept logits, ``infonce_merge_partials.cu`` the
merging of partial sums. ``epilogue.cuh`` and ``index.cuh`` compile as host C++ as well, where
``tests/csrc`` runs them.
"""
