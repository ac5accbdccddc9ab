"""What a resumed run must share, and what it may change."""

import json

import pytest
from numbered import DRAW, NUMBER, NumberedSource, make

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig


def identity(sizes=(40, 20), weights=None, **options):
    return make(NumberedSource(sizes, weights=weights), **options).identity()


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 2},
        {"in_memory": "always"},
        {"world_size": 2},
        {"micro_batch_size": 2},
        {"spec": {"max_bad_share": 0.1, "read_timeout": 5.0}},
    ],
)
def test_what_changes_no_batch_is_left_out(options):
    assert identity(**options) == identity()


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"sizes": (40, 21)}, "--train-data"),
        ({"batch": 4}, "--train-batch-size"),
        ({"seed": 1}, "--seed"),
        ({"resampled": True}, "--dataset-resampled"),
        ({"spec": {"num_samples": 30}}, "--train-num-samples"),
        ({"spec": {"upsampling": "2::1"}}, "--train-data-upsampling-factors"),
        ({"reading": {"image_size": 32}}, "image size"),
        ({"reading": {"decode": "whole"}}, "--decode"),
        ({"reading": {"captions": CaptionConfig(word_drop=0.5)}}, "--captions.word_drop"),
        ({"fields": (NUMBER,)}, "fields of the data"),
    ],
)
def test_what_changes_batches_is_named_by_its_flag(options, flag):
    here, there = identity(), identity(**options)
    assert {name for name in here if here[name] != there[name]} == {flag}
    assert json.loads(json.dumps(there)) == there


def test_the_augmentation_is_named_flag_by_flag():
    here, there = (
        identity(reading={"augment": AugmentConfig(hflip=hflip)}) for hflip in (0.0, 0.5)
    )
    assert {name for name in here if here[name] != there[name]} == {"--augment.hflip"}
    assert json.loads(json.dumps(there)) == there
    assert identity() != here


def test_the_fields_are_those_of_all_records_and_of_some():
    assert identity(fields=(NUMBER,), optional=(DRAW,)) == identity()
