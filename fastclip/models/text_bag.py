"""A text tower that ignores word order: the mean of token or n-gram embeddings, then an MLP."""

from torch import Tensor, nn

from fastclip.models.tower import LayerGroup, Tower


class TextBagTower(Tower):
    """Token or n-gram ids [b, L] (int64), padded with ``pad_id``, to features [b, embed_dim].

    Padding is left out of the mean. Not normalized.
    """

    def __init__(self, vocab_size: int, width: int, hidden: int, embed_dim: int, pad_id: int = 0):
        super().__init__()
        self.bag = nn.EmbeddingBag(vocab_size, width, mode="mean", padding_idx=pad_id)
        # Small next to a step of AdamW, so that a rare token's embedding is what it learned.
        nn.init.normal_(self.bag.weight, std=0.01)
        nn.init.zeros_(self.bag.weight[pad_id])
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.projection = nn.Linear(hidden, embed_dim, bias=False)

    def forward(self, batch: Tensor) -> Tensor:
        return self.projection(self.act(self.hidden(self.norm(self.bag(batch)))))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Nothing to do: the tower holds two small activations a text."""

    def layer_groups(self) -> list[LayerGroup]:
        return [[self.bag], [self.norm, self.hidden], [self.projection]]
