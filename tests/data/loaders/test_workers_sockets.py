"""Workers leave no file behind, however they or their parent end."""

import os
import signal
import sys
import tempfile
import time
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest
import torch
from processes import Parent, wait_until_ended

from fastclip.data.loaders.workers import WorkerItems
from fastclip.errors import UserError

SHARED = Path("/dev/shm")


def folders():
    return set(SHARED.glob("fastclip-*"))


def go_on(items):
    for _ in items:
        time.sleep(0.001)


def lose_one(items):
    os.kill(next(items)["pid"], signal.SIGKILL)
    with pytest.raises(UserError):
        go_on(items)


ENDS = {
    "of all items": lambda items: [next(items) for _ in range(96)],
    "early": lambda items: items.close(),
    "of a worker": lose_one,
    "of a worker, and at once": lambda items: (lose_one(items), os._exit(2)),
    "of the interpreter": lambda items: sys.exit(0),
    "at once": lambda items: os._exit(2),
    "by SIGTERM": go_on,
    "by SIGTERM of all": go_on,
    "by SIGINT": go_on,
    "by SIGKILL": go_on,
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_in_a_folder_of_temporary_files(end, tmp_path):
    temporary = tmp_path / "temporary files"
    temporary.mkdir()
    before = folders()

    def run(note):
        tempfile.tempdir = str(temporary)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        made = WorkerItems(
            lambda task: {"x": torch.ones(100), "pid": os.getpid()},
            2,
            item_nbytes=1000,
            timeout=60.0,
        )
        items = made.items(range(100 if end == "of all items" else 1_000_000))
        for _ in range(4):
            note(next(items)["pid"])
        note()
        ENDS[end](items)
        made.close()

    main = Parent(tmp_path, run)
    pids = main.noted(3)
    number = signal.Signals[end.split()[1]] if end.startswith("by") else None
    if end == "by SIGTERM of all":
        for pid in set(pids) - {main.process.pid}:
            os.kill(pid, number)
    main.finish(number)
    assert wait_until_ended(pids)
    assert not list(temporary.iterdir())
    assert not folders() - before


def test_a_long_name_of_the_folder_of_temporary_files_is_no_matter(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = WorkerItems(lambda task: {"x": torch.ones(1)}, 1, item_nbytes=100, timeout=60.0)
    assert len(list(made.items(range(3)))) == 3
    made.close()


def test_the_parents_own_folder_of_sockets_stays():
    own = Path(get_temp_dir())
    made = WorkerItems(lambda task: {"x": torch.ones(1)}, 2, item_nbytes=100, timeout=60.0)
    next(made.items(range(1_000)))
    made.close()
    assert own.is_dir()
