"""Elements that ranks send, counted by a recording process group, against open_clip's."""

import itertools

import gloo_cases
import pytest

FLAGS = list(itertools.product([False, True], repeat=2))
ROWS, WIDTH = 6, gloo_cases.WIDTH


def counted(pool, world, *case):
    return pool(world, "recording").results(gloo_cases.traffic_of, *case)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("flags", FLAGS)
def test_clip_loss_sends(pool, world, flags):
    """Text once there and, as gradients, once back; then what grows with N but not with D."""
    local_loss, gather_with_grad = flags
    n, others = ROWS, world - 1
    for mine, theirs in zip(
        counted(pool, world, "clip_step", "fastclip", (n,) * world, flags),
        counted(pool, world, "clip_step", "open_clip", (n,) * world, flags),
        strict=True,
    ):
        features = n * WIDTH * others
        assert sum(theirs.values()) == (4 if gather_with_grad else 2) * features
        # Scalars: the upstream; or a part of the loss, a part of the scale's gradient and, with
        # gather_with_grad, the upstream.
        scalars = 1 if local_loss else 2 + gather_with_grad
        handshake = 3
        assert mine == {
            "all_gather": features + (n + scalars + handshake) * others,
            "all_to_all": n * others,
            "reduce_scatter": features,
        }


def test_frozen_text_sends_half(pool):
    for mine in counted(
        pool, 2, "clip_step", "fastclip", (ROWS,) * 2, (True, True), {"frozen": ("text",)}
    ):
        assert "reduce_scatter" not in mine


@pytest.mark.parametrize("way", ["bidir", "shift", "reduce", "gather"])
def test_siglip_loss_sends_no_more_than_open_clip(pool, way):
    world = 3
    features = ROWS * WIDTH * (world - 1)
    for mine, theirs in zip(
        counted(pool, world, "siglip_step", "fastclip", (ROWS,) * world, way),
        counted(pool, world, "siglip_step", "open_clip", (ROWS,) * world, way),
        strict=True,
    ):
        handshake = 3 * (world - 1)
        assert sum(mine.values()) == 2 * features + handshake
        assert sum(theirs.values()) >= 2 * features


@pytest.mark.parametrize("rows", [(5, 3, 1)])
def test_ragged_shards_send_no_padding(pool, rows):
    world, total = len(rows), sum(rows)
    for rank, mine in enumerate(counted(pool, world, "clip_step", "fastclip", rows, (True, True))):
        assert mine["broadcast"] == (rows[rank] * (WIDTH + 1) + 1) * (world - 1)
        assert mine["reduce"] == (total - rows[rank]) * WIDTH
        assert mine["all_to_all"] == total - rows[rank]


def test_equal_shards_shake_hands_once(pool):
    for first, second, evaluation in pool(2, "recording").results(gloo_cases.handshakes):
        assert first - second == 3
        # Another set of gradients (none) is agreed upon once more.
        assert evaluation == 3
