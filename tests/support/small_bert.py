"""A small random BERT and its tokenizer, in a folder as transformers writes them."""

import string
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, BertTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def small_bert(folder: Path, words: Sequence[str], width: int = 16, seed: int = 0) -> Path:
    """``words`` are pieces; other words are spelled by letters. Returns ``folder``."""
    letters = string.ascii_lowercase
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *words])
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=32,
    )
    bert = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():  # wide enough that a text's words tell in its states
        for parameter in bert.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    # By hand: its own method writes on the first rank alone.
    bert.config.save_pretrained(folder)
    save_file(bert.state_dict(), str(folder / "model.safetensors"), metadata={"format": "pt"})
    torch.set_rng_state(state)
    return folder
