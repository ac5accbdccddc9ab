"""Ctrl-C and SIGTERM end a run with one sentence, and leave neither processes nor half files."""

import os
import signal
import subprocess
import time

import pytest
import torch
from commands import command, flags, launcher, losses, start
from processes import wait_until_ended

from fastclip import train
from fastclip.comm.ranks import Ranks
from fastclip.training import checkpoint

STREAMED = ("--in-memory", "never", "--workers", "2", "--epochs", "50")


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Also where a shell has started the tests in the background, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def until(process, ready):
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, process.stderr.read()
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("the moment to interrupt never came")
        time.sleep(0.01)


def members(group):
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.parametrize(
    ("number", "to_group", "told"),
    [
        (signal.SIGINT, True, "Interrupted at step "),
        (signal.SIGTERM, True, "Ended by SIGTERM at step "),
        (signal.SIGTERM, False, "Ended by SIGTERM at step "),
    ],
)
def test_an_interrupted_run_says_how_to_go_on(shapes, tmp_path, number, to_group, told):
    run = tmp_path / "run"
    process = start(command(*flags(shapes, tmp_path, "run", "--save-frequency", "2", *STREAMED)))
    saved = run / "checkpoints" / "step_00000002" / "complete.json"
    until(process, lambda: saved.exists() and len(losses(run)) >= 3)
    pids = members(process.pid)
    assert len(pids) == 3
    os.killpg(process.pid, number) if to_group else os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.startswith(told) and said.count("\n") == 1
    assert f"step_{len(losses(run)) // 2 * 2:08d}: go on with --resume {run}\n" in said
    assert wait_until_ended(pids, 2.0)
    assert not [path for path in run.rglob("*") if "partial" in path.name]


def test_ctrl_c_through_the_launcher_is_one_sentence_of_ours(shapes, tmp_path):
    run = tmp_path / "run"
    args = command(*flags(shapes, tmp_path, "run", *STREAMED), launcher=launcher(2))
    process = start(args)
    until(process, lambda: (run / "metrics.jsonl").exists() and len(losses(run)) >= 2)
    pids = members(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    ours = [line for line in said.splitlines() if "Interrupted" in line or "fastclip/" in line]
    assert len(ours) == 1 and "before the first checkpoint" in ours[0], said
    assert wait_until_ended(pids)


@pytest.mark.parametrize("where", ["run_folder.choose", "session.open_data"])
def test_an_interrupt_before_the_first_step_is_told(where, monkeypatch, capsys, tmp_path):
    def interrupt(*args):
        raise KeyboardInterrupt

    ranks = Ranks(0, 1, torch.device("cpu"))
    monkeypatch.setattr("fastclip.training.distributed.start", lambda: ranks)
    monkeypatch.setattr(f"fastclip.training.{where}", interrupt)
    assert train.main(["--logs", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "Interrupted before the first step\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, AssertionError])
def test_no_half_a_checkpoint_is_left(error, tmp_path):
    class Engine:
        def save_checkpoint(self, folder, **options):
            os.makedirs(folder)
            raise error

    with pytest.raises(error):
        checkpoint.save(tmp_path, 3, Engine(), {}, rank=0, world_size=1, keep=1)
    assert not list(tmp_path.iterdir())
