"""What operations are called in records, in the order of the tables."""

INFONCE, SIGLIP = "InfoNCE", "SigLIP"
# Losses of a linear layer's output.
LAYERS = ("linear cross entropy", "multi-target cross entropy", "linear sigmoid cross entropy")
LINEAR, MULTI_TARGET, LINEAR_SIGMOID = LAYERS
OPERATIONS = (INFONCE, SIGLIP, *LAYERS)
