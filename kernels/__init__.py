"""Triton kernels and their launchers, one operation a file (installed as ``fastclip.kernels``)."""
