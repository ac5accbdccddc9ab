"""A text tower that ignores word order: the mean of token or n-gram embeddings, then an MLP."""

from torch import Tensor, nn


class TextBagTower(nn.Module):
    """Token or n-gram ids [b, L] (int64), padded with ``pad_id``, to features [b, embed_dim].

    Padding is left out of the mean. Not normalised.
    """

    def __init__(self, vocab_size: int, width: int, hidden: int, embed_dim: int, pad_id: int = 0):
        super().__init__()
        self.bag = nn.EmbeddingBag(vocab_size, width, mode="mean", padding_idx=pad_id)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.projection = nn.Linear(hidden, embed_dim, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        return self.projection(self.act(self.hidden(self.norm(self.bag(text)))))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing to do: the tower holds two small activations a text."""
