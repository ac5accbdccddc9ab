"""Which tokenizer a run gets: VirTex's way of reading for its objectives, and for no other."""

import pytest
from small import VIRTEX

from fastclip.objectives import find_objective
from fastclip.training.config import train_config
from fastclip.training.tokenizer import build_tokenizer

OF_VIRTEX = (*VIRTEX, "token_classification")


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("name", [*OF_VIRTEX, "coca"])
def test_virtexs_objectives_leave_accents_out_and_cut_texts_without_an_end(
    tmp_path, name, from_file
):
    table, merges = tmp_path / "set.csv", tmp_path / "merges.txt"
    table.write_text("filepath\ttitle\na.png\tun caf\u00e9 noir\n", encoding="utf-8")
    merges.write_text("#version\nc a\n")
    cfg = train_config(
        objective=name,
        train_data=str(table),
        context_length=6,
        vocab_size=530,
        tokenizer=str(merges) if from_file else "bpe",
    )
    tokenizer = build_tokenizer(cfg, cfg.data.train_spec(str(table)), find_objective(name))
    is_virtex = name in OF_VIRTEX
    assert (tokenizer.strip_accents, tokenizer.keep_end) == (is_virtex, not is_virtex)
    assert tokenizer.decode(tokenizer.pieces("CAF\u00c9")) == ("cafe" if is_virtex else "caf\u00e9")
    assert (tokenizer(["z" * 9])[0, -1] == tokenizer.eot_id) == (not is_virtex)
