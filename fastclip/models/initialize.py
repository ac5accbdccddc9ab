"""CLIP's initialization (Radford et al. 2021, section 2.5 and the released code)."""

import torch
from torch import nn


@torch.no_grad()
def initialize_blocks_(blocks: nn.Module, width: int, layers: int) -> None:
    """Initialize the pre-norm blocks of a transformer in place.

    Query, key and value have standard deviation ``width**-0.5``, the first layer of each MLP
    ``(2·width)**-0.5``; the two projections that write to the residual stream are a further
    ``(2·layers)**-0.5`` smaller, so that its variance does not grow with depth. Biases are zero.
    """
    residual_std = width**-0.5 * (2 * layers) ** -0.5
    std = {
        "q_proj": width**-0.5,
        "k_proj": width**-0.5,
        "v_proj": width**-0.5,
        "out_proj": residual_std,
        "fc1": (2 * width) ** -0.5,
        "fc2": residual_std,
    }
    for name, module in blocks.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std[name.rpartition(".")[2]])
            nn.init.zeros_(module.bias)
