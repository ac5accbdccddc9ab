"""What ranks check before any of them waits for the others."""

from types import SimpleNamespace

import pytest
import torch
from made_up_machine import MadeUpMachine

from fastclip.functional import clip, sharded
from fastclip.functional.settings import ComputeOptions
from fastclip.ops import dispatch


def test_the_largest_shard_is_planned_on_matrices_like_its_own():
    x, y = torch.randn(2, 3, 24, dtype=torch.bfloat16)
    planned = []

    def plan(*matrices):
        planned.extend((t.shape, t.stride(), t.dtype, t.device) for t in matrices)

    shards = SimpleNamespace(rows=[3, 10**9], total=10**9 + 3)
    sharded.check_workspace(plan, shards, (x,), (y,))
    for found, rows in zip(planned, (10**9, 10**9 + 3), strict=True):
        assert found == ((rows, 24), (24, 1), torch.bfloat16, x.device)


def test_features_that_one_rank_refuses_are_refused_before_ranks_meet(monkeypatch):
    """By Triton's backend, which takes no float64: in its prepare, of which the others hear."""
    pytest.importorskip("triton")
    monkeypatch.setattr(clip.dist, "get_world_size", lambda group: 2)

    class Peers:
        group = None

        def check_and_agree(self, call, features, prepare):
            with pytest.raises(TypeError, match="backend='triton' got float64 features"):
                prepare()
            raise InterruptedError

    x, y = torch.randn(2, 4, 8, dtype=torch.float64)
    options = ComputeOptions(backend="triton")
    before = dispatch.use_machine(MadeUpMachine())
    try:
        with pytest.raises(InterruptedError):
            clip.clip_loss_over_ranks(x, y, 1.0, None, clip.Flags(), Peers(), options)
    finally:
        dispatch.use_machine(before)


def test_the_cuda_backend_names_what_it_refuses():
    pytest.importorskip("triton")
    from fastclip.ops.infonce import cuda_backend as infonce_cuda

    x = torch.randn(4, 8).bfloat16()
    infonce_cuda.check_features(x, x)
    with pytest.raises(ValueError, match=r"text_features has strides \(1, 4\)"):
        infonce_cuda.check_features(x, x.T.contiguous().T)
    with pytest.raises(TypeError, match="image_features is torch.float32"):
        infonce_cuda.check_features(x.float(), x.float())
