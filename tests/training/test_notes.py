"""Settings that cannot do what their names say are told before the first step."""

import pytest
from listed_sources import ListedRecords

from fastclip.data.sources.base import Record
from fastclip.data.sources.spec import DataSpec
from fastclip.training import notes
from fastclip.training.config import train_config


def told(total_steps: int, steps_per_epoch: int = 4, precision: str = "fp32", **flags) -> list[str]:
    return notes.of_run(train_config(**flags), total_steps, steps_per_epoch, precision)


def test_a_run_that_can_do_all_it_is_told_says_nothing():
    assert told(500) == []
    assert told(500, train_data="a.tar", val_data="b.tar", val_frequency=2) == []


@pytest.mark.parametrize(
    ("wanted", "times"), [(None, None), (4, None), (5, "1.25"), (4000, "1000")]
)
def test_records_that_come_more_than_once_an_epoch_are_told(wanted, times):
    source = ListedRecords("a list", [[Record(f"{n}", {}) for n in range(4)]])
    found = notes.of_data(DataSpec("a list", num_samples=wanted), source)
    assert [f"the 4 records of a list: each comes {times} times" in note for note in found] == [
        True
    ] * (times is not None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"warmup": 60}, "--warmup is 60, more than the run's 20 steps: the rate ends at 33% of"),
        ({"warmup": 0, "max_steps": 21}, "--max-steps 21 is more than the 20 steps of --epochs 8"),
        ({"warmup": 0, "lookahead_k": 30}, "--lookahead-k is 30, more than the run's 20 steps"),
        ({"warmup": 0, "save_frequency": 21}, "--save-frequency 21 is more than the run's 20"),
        ({"warmup": 0, "log_every_n_steps": 50}, "--log-every-n-steps 50 is more than the run's"),
        ({"warmup": 0, "val_frequency": 6}, "--val-frequency 6 is more than the run's 5 epochs"),
        (
            {"warmup": 0, "zeroshot_frequency": 9, "imagenet_val": "a.tar"},
            "--zeroshot-frequency 9 is more than the run's 5",
        ),
        (
            {"warmup": 0, "zeroshot_frequency": 1},
            "--zeroshot-frequency 1 does nothing without --imagenet-val",
        ),
        (
            {"warmup": 0, "val_frequency": 1, "train_data": "a.tar"},
            "--val-frequency 1 does nothing without --val-data",
        ),
    ],
)
def test_each_is_told_in_a_sentence(flags, sentence):
    [found] = told(20, **flags)
    assert found.startswith(sentence)


def test_a_slow_16_bit_product_is_told_with_its_factor(monkeypatch):
    seconds = {"torch.bfloat16": 1.3, "torch.float16": 0.15, "torch.float32": 0.1}
    monkeypatch.setattr(notes, "product_time", lambda dtype: seconds[str(dtype)])
    monkeypatch.setattr(notes.torch.accelerator, "is_available", lambda: False)
    [found] = told(500, precision="amp_bf16")
    assert "on this CPU a bfloat16 product takes 13 times as long as one in fp32" in found
    assert told(500, precision="fp16") == []
    monkeypatch.setattr(notes.torch.accelerator, "is_available", lambda: True)
    assert told(500, precision="amp_bf16") == []


def test_products_are_timed():
    assert 0 < notes.product_time(notes.torch.float32, rounds=1) < 60


@pytest.mark.parametrize(
    ("workers", "here", "world_size", "sentence"),
    [
        (3, None, 1, "--workers 3 is more than the 2 cores that this run may use: more than 2 ma"),
        (2, None, 1, None),
        (2, "2", 2, "--workers 2, for each of 2 processes, is more than the 2 cores that this run"),
        (1, "2", 2, None),
        (2, "1", 4, None),
        (1, "4", 4, "--workers 1, for each of 4 processes, is more than the 2 cores that this run"),
        (0, "4", 4, None),
    ],
)
def test_more_workers_than_cores_are_told(workers, here, world_size, sentence, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 5})
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if here:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    found = notes.of_run(train_config(workers=workers), 500, 4, "fp32", world_size)
    assert len(found) == bool(sentence)
    assert not sentence or found[0].startswith(sentence)
