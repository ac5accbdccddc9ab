"""Micro-batches on their way to the device."""

import pytest
import torch

from fastclip.training.steps import to_device

ROWS = {"text": torch.arange(6).view(2, 3), "key": ["a", "b"]}


@pytest.fixture
def calls(monkeypatch):
    """What is asked of tensors, in place of what needs a GPU."""
    made = []

    def pin_memory(tensor):
        made.append("pinned")
        return tensor

    def to(tensor, device, non_blocking=False):
        made.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    return made


def test_a_copy_to_a_gpu_is_pinned_and_not_waited_for(calls):
    moved = to_device(ROWS, torch.device("cuda", 0))
    assert calls == ["pinned", ("cuda:0", True)]
    assert moved["key"] == ["a", "b"] and moved["text"] is ROWS["text"]


@pytest.mark.parametrize("device", ["cpu", "xpu"])
def test_other_devices_need_no_pinned_memory(calls, device):
    to_device(ROWS, torch.device(device))
    assert calls == [(device, True)]


def test_what_stays_on_the_host_is_not_copied():
    assert to_device(ROWS, torch.device("cpu"))["text"] is ROWS["text"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_are_the_same_on_a_gpu():
    moved = to_device(ROWS, torch.device("cuda"))
    assert moved["text"].is_cuda and moved["text"].cpu().equal(ROWS["text"])
