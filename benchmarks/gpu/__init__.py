"""The part that needs a GPU: what ``benchmarks/gpu.sh`` runs, and where its figures go."""
