"""A captioner that goes on with the caption whose number is a picture's first pixel."""

import torch
from small import SIDE, tokenizer


class Reciter(torch.nn.Module):
    """Knows ``captions`` by heart; the right token's logit is ``sureness``, others' are 0."""

    image_size = SIDE

    def __init__(self, captions, sureness=9.0):
        super().__init__()
        self.script, self.sureness = tokenizer()(captions), sureness
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode_grid(self, pictures):
        return pictures[:, 0, 0, 0].long()

    def hidden(self, grid, tokens):
        return self.sureness * torch.eye(tokenizer().vocab_size)[self.script[grid, 1:]]

    def head(self, hidden, take):
        return take(hidden, torch.eye(tokenizer().vocab_size), None)

    def next_token_logits(self, grid, tokens):
        return self.hidden(grid, tokens)[:, tokens.shape[1] - 1]
