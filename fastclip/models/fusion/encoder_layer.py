"""A transformer's encoder layer, for all of its states or for some."""

from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.models.decoder_layer import Attention


class EncoderLayer(nn.Module):
    """Attention and a perceptron, a LayerNorm behind each sum (Vaswani et al. 2017), GELU.

    ``forward(queries, states, mask)`` gives new values of ``queries`` [b, Q, width], which look at
    all ``states`` [b, K, width] where ``mask`` (bool, broadcast to [b, heads, Q, K]) is true.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.mlp_norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        queries = self.attention_norm(queries + self.attention(queries, states, mask))
        return self.mlp_norm(queries + self.fc2(F.gelu(self.fc1(queries))))
