"""What a run refuses before it trains."""

import json

import pytest
import torch

from fastclip.errors import UserError
from fastclip.training import session
from fastclip.training.config import TrainConfig
from fastclip.training.distributed import Ranks


def test_class_texts_of_no_use_are_refused_before_the_training(shapes, tmp_path):
    shards = tmp_path / "val-seen.tar"
    shards.symlink_to(shapes.val_seen)
    cfg = TrainConfig(train_data=shapes.train, val_data=str(shards))
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert set(session.data(cfg, ranks)[1]) == {"val"}
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [1]}))
    with pytest.raises(UserError, match="classes is not a list of names"):
        session.data(cfg, ranks)
