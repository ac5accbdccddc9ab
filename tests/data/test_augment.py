"""Batch augmentation: what each option does to pixels, and that draws depend on the place alone."""

import numpy as np
import pytest
import torch

from fastclip.data.augment import AugmentConfig, augment
from fastclip.data.draws import Draws
from fastclip.errors import UserError

OFF = AugmentConfig(scale=None)


def pictures(batch=6, side=16):
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)


def drawn(count, seed=0, hflip=0.0):
    return Draws(seed, 0, np.arange(count), hflip)


def run(x, config, seed=0):
    return augment(x, drawn(len(x), seed, config.hflip), config)


CONFIGS = (
    AugmentConfig(scale=None, padding=3),
    AugmentConfig(scale=None, degrees=20, zoom=0.2),
    AugmentConfig(scale=None, brightness=0.4),
    AugmentConfig(scale=None, contrast=0.4),
    AugmentConfig(scale=None, saturation=0.4),
    AugmentConfig(scale=None, hue=0.1),
    AugmentConfig(scale=None, stretch=0.2),
    AugmentConfig(scale=None, shear=0.2),
    AugmentConfig(scale=None, shift=0.1, fill=255),
    AugmentConfig(scale=None, gamma=0.5),
    AugmentConfig(scale=None, gray=0.5),
    AugmentConfig(scale=None, erase=0.5),
    AugmentConfig(scale=None, hue=0.1, gamma=0.5, color_jitter_prob=0.5),
    AugmentConfig(padding=2, hflip=0.5, degrees=9, brightness=0.2, contrast=0.2, hue=0.05),
    AugmentConfig(
        contrast=0.4, gamma=0.3, saturation=0.4, pivot=200, erase=0.3, fill=10, shift=0.2
    ),
)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_same_draws_give_the_same_pictures_and_another_does_not(config):
    x = pictures()
    once = run(x, config)
    assert once.dtype == torch.uint8
    assert once.shape == x.shape
    assert torch.equal(once, run(x, config))
    assert not torch.equal(once, run(x, config, seed=1))
    assert not torch.equal(once, x)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("side", [16, 37])
def test_a_picture_alone_is_the_same_to_the_last_bit_as_in_any_batch(monkeypatch, config, side):
    monkeypatch.setattr("fastclip.data.augment.batch.CHUNK_PIXELS", 30 * side**2)
    batch = 77
    x, draws = pictures(batch, side), drawn(batch)
    whole = augment(x, draws, config)
    for i in range(batch):
        assert torch.equal(augment(x[i : i + 1], draws.one(i), config)[0], whole[i])
    order = torch.randperm(batch)
    assert torch.equal(augment(x[order], Draws(0, 0, order.numpy()), config), whole[order])
    assert torch.equal(augment(x[40:], Draws(0, 0, np.arange(40, batch)), config), whole[40:])


@pytest.mark.parametrize("config", CONFIGS)
def test_the_number_of_threads_does_not_show(config):
    x = pictures(40, 50)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(run(x, config))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("config", [OFF, AugmentConfig(), AugmentConfig(hflip=1.0, scale=(0.1, 1))])
def test_nothing_asked_but_what_the_crop_does_changes_nothing(config):
    x = pictures()
    assert torch.equal(run(x, config), x)


def test_each_picture_gets_a_draw_of_its_own():
    x = pictures(1).expand(8, -1, -1, -1)
    out = run(x, AugmentConfig(degrees=30))
    assert len({picture.numpy().tobytes() for picture in out}) == 8


def test_padding_shifts_by_whole_pixels_and_repeats_the_edge():
    x = pictures(64, 12)
    padded = torch.nn.functional.pad(x.float(), (2, 2, 2, 2), mode="replicate").to(torch.uint8)
    shifts = set()
    for before, after in zip(padded, run(x, AugmentConfig(scale=None, padding=2)), strict=True):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(before[:, i : i + 12, j : j + 12], after)
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) > 15


def test_a_half_turn_is_a_half_turn():
    x = pictures(40, 9)
    out = run(x, AugmentConfig(scale=None, degrees=180))
    changed = (out.float() - x.float()).abs().mean((1, 2, 3))
    assert (changed > 5).all()
    center = (out[:, :, 4, 4].int() - x[:, :, 4, 4].int()).abs()
    assert center.max() <= 1


def test_colors_keep_grey_grey_and_brightness_multiplies():
    grey = pictures()[:, :1].expand(-1, 3, -1, -1)
    for config in (
        AugmentConfig(scale=None, saturation=0.9),
        AugmentConfig(scale=None, hue=0.5),
    ):
        assert (run(grey, config).int() - grey.int()).abs().max() <= 1
    dim = grey // 2
    out = run(dim, AugmentConfig(scale=None, brightness=0.5)).float()
    bright = dim > 40
    means = []
    for before, after, mask in zip(dim, out, bright, strict=True):
        ratio = after[mask] / before[mask]
        means.append(ratio.mean())
        assert ratio.std() < 0.02
    assert 1 / 1.52 < min(means) < 0.95
    assert 1.05 < max(means) < 1.52


def test_contrast_keeps_the_mean_and_a_turn_of_the_hue_keeps_the_luminance():
    x = torch.randint(90, 166, (6, 3, 16, 16), dtype=torch.uint8)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)

    def luminance(y):
        return (y.float() * weights).sum(1)

    contrast = run(x, AugmentConfig(scale=None, contrast=0.5))
    assert (luminance(contrast).mean((1, 2)) - luminance(x).mean((1, 2))).abs().max() < 0.3
    ratio = luminance(contrast).std((1, 2)) / luminance(x).std((1, 2))
    assert ratio.min() < 0.95
    assert ratio.max() > 1.05
    hue = run(x, AugmentConfig(scale=None, hue=0.5))
    assert (luminance(hue) - luminance(x)).abs().max() < 1.5
    assert (hue.int() - x.int()).abs().max() > 20


def test_contrast_about_white_leaves_white_as_it_is():
    x = pictures().clamp(min=120)
    x[:, :, :4] = 255
    out = run(x, AugmentConfig(scale=None, contrast=0.3, pivot=255))
    assert (out[:, :, :4] == 255).all()
    assert not torch.equal(out[:, :, 4:], x[:, :, 4:])


def test_gamma_keeps_black_and_white_and_moves_grey():
    x = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(50, 3, 3, 3)
    out = run(x, AugmentConfig(scale=None, gamma=1.0))
    assert (out[..., 0] == 0).all()
    assert (out[..., 2] == 255).all()
    middle = out[:, 0, 0, 1] / 255.0
    assert 0.25 <= middle.min() < 0.35
    assert 0.6 < middle.max() <= 0.71


def test_colors_are_taken_away_as_often_as_asked():
    x = pictures(400, 4)
    out = run(x, AugmentConfig(scale=None, gray=0.3))
    grey = (out.amax(1) - out.amin(1) <= 1).flatten(1).all(1)
    assert 85 < grey.sum() < 155
    assert ((out.int() - x.int()).abs() <= 1).flatten(1).all(1).sum() == 400 - grey.sum()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "gamma"])
def test_colors_change_as_often_as_asked(name):
    x = torch.randint(60, 200, (400, 3, 4, 4), dtype=torch.uint8)
    always = run(x, AugmentConfig(scale=None, **{name: 0.5}))
    out = run(x, AugmentConfig(scale=None, color_jitter_prob=0.7, **{name: 0.5}))
    kept = (out == x).flatten(1).all(1)
    assert 80 < kept.sum() < 160
    assert torch.equal(out[~kept], always[~kept])


def test_gray_is_drawn_apart_from_the_other_colors():
    x = pictures(400, 4)
    alone = run(x, AugmentConfig(scale=None, gray=0.3))
    assert torch.equal(
        run(x, AugmentConfig(scale=None, gray=0.3, hue=0.4, color_jitter_prob=0.0)), alone
    )


def test_a_shift_brings_in_the_fill():
    x = torch.zeros(50, 3, 20, 20, dtype=torch.uint8)
    out = run(x, AugmentConfig(scale=None, shift=0.25, fill=255))
    white = (out == 255).float().mean((1, 2, 3))
    assert white.max() > 0.2
    assert white.max() < 1 - 0.75**2
    assert torch.equal(run(x, AugmentConfig(scale=None, shift=0.25)), x)


def test_moves_of_the_affine_keep_the_middle_and_move_the_corner():
    ramp = torch.arange(21, dtype=torch.uint8) * 12
    x = torch.stack([ramp.expand(21, 21), ramp[:, None].expand(21, 21), ramp.expand(21, 21)])
    x = x.expand(60, -1, -1, -1)
    for config, along_x, along_y in (
        (AugmentConfig(scale=None, zoom=0.25), True, True),
        (AugmentConfig(scale=None, stretch=0.25), True, True),
        (AugmentConfig(scale=None, shear=0.2), True, False),
    ):
        out = run(x, config)
        assert (out[:, :, 10, 10].int() - x[:, :, 10, 10].int()).abs().max() <= 1
        moved = (out[:, :2, 5, 5].int() - x[:, :2, 5, 5].int()).abs().amax(0)
        assert [bool(m > 5) for m in moved] == [along_x, along_y]


def test_a_square_of_one_color_covers_what_it_should():
    x = torch.full((600, 3, 24, 24), 7, dtype=torch.uint8)
    out = run(x, AugmentConfig(scale=None, erase=0.5))
    painted = (out != 7).any(1)
    hit = painted.flatten(1).any(1)
    assert 250 < hit.sum() < 350
    for picture, mask in zip(out[hit], painted[hit], strict=True):
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert 1 <= rows.sum() <= 13
        assert len(picture[:, mask].unique(dim=1).T) == 1


@pytest.mark.parametrize(
    "values",
    [
        dict(scale=(0.0, 1.0)),
        dict(scale=(0.9, 0.5)),
        dict(ratio=(0.0, 1.0)),
        dict(padding=-1),
        dict(hflip=1.5),
        dict(hue=0.7),
        dict(color_jitter_prob=1.5),
        dict(color_jitter_prob=float("nan")),
        dict(erase=1.1),
        dict(fill=300),
        dict(pivot=-1),
        dict(gamma=-0.1),
        dict(degrees=-3.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(values):
    (name,) = values
    with pytest.raises(UserError, match=rf"augment\.{name} is .*, expected"):
        AugmentConfig(**values)
