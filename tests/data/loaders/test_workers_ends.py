"""Real ends of real processes: of workers in mid-run, and of their parent."""

import contextlib
import ctypes
import faulthandler
import multiprocessing.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from processes import Parent, is_running, wait_until_ended

from fastclip.data.loaders.workers import WorkerItems
from fastclip.errors import UserError

SIGNALS = [signal.SIGKILL, signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]


def pool(function, workers=2, timeout=60.0):
    return WorkerItems(function, workers, item_nbytes=1000, timeout=timeout)


def payload(task):
    return {"pid": os.getpid(), "number": task, "columns": [torch.ones(100), "text" * 9999]}


def expected_sentence(number):
    return rf"ended by {signal.Signals(number).name} \(signal {int(number)}\)"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_worker_killed_within_its_call_ends_the_run(number, capfd):
    def work(task):
        faulthandler.disable()  # which pytest enables
        if task == 9:
            os.kill(os.getpid(), number)
            time.sleep(100)
        return payload(task)

    made = pool(work)
    items = made.items(range(20))
    pids = {next(items)["pid"] for _ in range(2)}
    started = time.monotonic()
    with pytest.raises(UserError, match=expected_sentence(number)) as told:
        list(items)
    assert time.monotonic() - started < 10
    assert ("out-of-memory" in str(told.value)) == (number == signal.SIGKILL)
    assert ("/dev/shm" in str(told.value)) == (number == signal.SIGBUS)
    assert "\n" not in str(told.value)
    assert not any(map(is_running, pids))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_killed_between_two_items_is_told_at_the_next(number, workers):
    made = pool(payload, workers)
    items = made.items(range(1000))
    pids = [next(items)["pid"] for _ in range(workers)]
    os.kill(pids[-1], number)
    os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
    time.sleep(0.1)  # nothing is raised here, wherever the parent is
    with pytest.raises(UserError, match=expected_sentence(number)):
        next(items)
    assert not any(map(is_running, pids))


def test_the_loss_of_a_worker_is_told_whatever_it_was_doing():
    for attempt in range(6):
        made = pool(payload, 2)
        items = made.items(range(100_000))
        pids = [next(items)["pid"] for _ in range(2)]
        threading.Timer(0.008 * attempt, os.kill, (pids[attempt % 2], signal.SIGKILL)).start()
        with pytest.raises(UserError, match="ended by SIGKILL"):
            for _ in items:
                pass
        assert not any(map(is_running, pids))


@pytest.mark.parametrize("code", [0, 1, 3, 137, 255])
def test_a_worker_that_exits_ends_the_run(code):
    def leave(task):
        if task == 3:
            os._exit(code)
        return payload(task)

    with pytest.raises(UserError, match=f"exit code {code}"):
        list(pool(leave).items(range(9)))


@pytest.mark.parametrize("how", ["sleeps", "stops", "cannot be interrupted", "at once"])
def test_a_worker_that_hangs_ends_the_run(how, tmp_path):
    def hang(task):
        (tmp_path / str(os.getpid())).touch()
        if task == (0 if how == "at once" else 4):
            if how == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "cannot be interrupted":
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(1000)
        return payload(task)

    with pytest.raises(UserError, match=r"0\.5 seconds.*--read-timeout"):
        list(pool(hang, timeout=0.5).items(range(9)))
    assert not any(is_running(int(path.name)) for path in tmp_path.iterdir())


def test_a_worker_stopped_from_outside_ends_the_run():
    items = pool(payload, 2, timeout=0.5).items(range(100_000))
    pids = [next(items)["pid"] for _ in range(2)]
    os.kill(pids[0], signal.SIGSTOP)
    with pytest.raises(UserError, match="--read-timeout"):
        for _ in items:
            pass
    assert not any(map(is_running, pids))


def test_handlers_of_the_child_signal_are_put_back():
    calls = []
    before = signal.signal(signal.SIGCHLD, lambda *_: calls.append(1))
    mine = signal.getsignal(signal.SIGCHLD)
    try:
        made = pool(payload)
        for _ in made.items(range(3)):
            assert signal.getsignal(signal.SIGCHLD) is mine
        made.close()
        with pytest.raises(UserError):
            list(pool(lambda task: os._exit(1)).items([0]))
        assert signal.getsignal(signal.SIGCHLD) is mine
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_end_of_another_child_is_no_matter():
    made = pool(lambda task: time.sleep(0.3) or payload(task), 1)
    other = subprocess.Popen(["sleep", "0.1"])
    assert [item["number"] for item in made.items(range(2))] == [0, 1]
    assert other.wait() == 0
    made.close()


def test_workers_serve_another_thread_than_the_main_one():
    found = []

    def run():
        made = pool(payload)
        found.extend(item["number"] for item in made.items(range(5)))
        made.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert found == list(range(5))


def compute():
    while True:
        pass


def ignore_and_sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


BODIES = {
    "sleeping": lambda folder: time.sleep(1000),
    "reading": lambda folder: (folder / "fifo").read_text(),
    "computing": lambda folder: compute(),
    "cannot be interrupted": lambda folder: ignore_and_sleep(),
    "idle": lambda folder: {"x": 1},
    "sending": lambda folder: {"x": "x" * 1_000_000},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_workers_end_with_their_parent(body, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    def run(note):
        def work(task):
            note()
            return body(tmp_path)

        for _ in pool(work).items(range(100)):
            time.sleep(1000)

    main = Parent(tmp_path, run)
    pids = main.noted(2)
    time.sleep(0.1)
    main.finish(signal.SIGKILL)
    assert wait_until_ended(pids)


def test_a_worker_whose_parent_ends_while_it_starts_ends_too(tmp_path):
    def run(note):
        os.register_at_fork(
            after_in_child=note, after_in_parent=lambda: os.kill(os.getpid(), signal.SIGKILL)
        )
        list(pool(payload).items(range(100)))

    main = Parent(tmp_path, run)
    main.finish()
    assert wait_until_ended(main.noted(1))


def test_what_a_worker_started_ends_when_the_parent_is_killed(tmp_path):
    class Reads:
        def __init__(self, note):
            self.note, self.child = note, None

        def __call__(self, task):
            self.child = subprocess.Popen(["sleep", "1000"])
            self.note(self.child.pid)
            self.child.wait()

        def close(self):
            self.child.kill()

    main = Parent(tmp_path, lambda note: list(pool(Reads(note)).items(range(100))))
    pids = main.noted(2)
    main.finish(signal.SIGKILL)
    assert wait_until_ended(pids)


ENDS = {
    "exit": lambda made, items: sys.exit(4),
    "error": lambda made, items: 1 / 0,
    "closed": lambda made, items: (made.close(), os._exit(4)),
    "forgotten": lambda made, items: None,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_parent_that_leaves_in_mid_run_leaves_no_worker(end, tmp_path):
    def run(note):
        made = pool(lambda task: note() or payload(task))
        items = made.items(range(100))
        next(items), next(items)
        end(made, items)

    main = Parent(tmp_path, run)
    assert ("ZeroDivisionError" in main.finish()) == (end is ENDS["error"])
    assert wait_until_ended(main.noted(2))


def test_the_end_of_an_interpreter_ends_workers(tmp_path):
    script = """
        import os, time
        from fastclip.data.loaders.workers import WorkerItems
        made = WorkerItems(lambda task: {"pid": os.getpid()}, 2, item_nbytes=9, timeout=99.0)
        items = made.items(range(99))
        print(next(items)["pid"], next(items)["pid"], flush=True)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=99
    )
    assert found.returncode == 0 and not found.stderr
    assert wait_until_ended(map(int, found.stdout.split()))


def test_an_interrupted_parent_ends_its_workers(tmp_path):
    def run(note):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        list(pool(lambda task: note() or time.sleep(1000)).items(range(100)))

    main = Parent(tmp_path, run)
    pids = main.noted(2)
    time.sleep(0.1)
    for pid in pids:  # with the parent, as Ctrl-C on a terminal does
        os.kill(pid, signal.SIGINT)
    assert main.finish(signal.SIGINT).endswith("KeyboardInterrupt")
    assert wait_until_ended(pids)


def mount_shared_memory(kib):
    """Give this process a /dev/shm of its own; raises :class:`OSError` where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result):
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    user, group = os.getuid(), os.getgid()
    check(libc.unshare(0x10000000 | 0x00020000))  # CLONE_NEWUSER, CLONE_NEWNS
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    check(libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None))  # MS_REC, MS_PRIVATE
    check(libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={kib}k".encode()))


def told_with_shared_memory(tmp_path, kib, *, nbytes, said, fill=0):
    """What a run says whose batches take ``nbytes``; after one, ``fill`` bytes are written."""

    def run(note):
        try:
            mount_shared_memory(kib)
        except OSError as error:
            print("not allowed:", error)
            return

        def work(task):
            note()
            return {"x": torch.zeros(nbytes, dtype=torch.uint8)}

        try:
            made = WorkerItems(work, 2, item_nbytes=said, timeout=20.0)
            for number, _ in enumerate(made.items(range(30))):
                if number == 1 and fill:
                    with contextlib.suppress(OSError):
                        Path("/dev/shm/filler").write_bytes(bytes(fill))
            print("done")
        except UserError as error:
            print(error)

    main = Parent(tmp_path, run)
    told = main.finish()
    if told.startswith("not allowed"):
        pytest.skip(f"no /dev/shm of its own can be mounted here: {told}")
    assert wait_until_ended(main.noted(0))
    return told


@pytest.mark.parametrize("kib", [64, 400])
def test_little_shared_memory_is_told_before_the_first_batch(kib, tmp_path):
    told = told_with_shared_memory(tmp_path, kib, nbytes=100_000, said=100_000)
    assert told.startswith(f"/dev/shm holds {kib} KiB, a batch needs 97.7 KiB"), told
    assert told.endswith("fewer --workers, a smaller batch or --shm-size")
    assert "\n" not in told and not list(tmp_path.glob("*.pid"))


@pytest.mark.parametrize(
    "values",
    [
        {"nbytes": 100_000, "said": 100_000, "fill": 2_000_000},
        {"nbytes": 3_000_000, "said": 100},
    ],
    ids=["filled by others", "larger than was said"],
)
def test_a_batch_that_cannot_be_sent_ends_the_run(values, tmp_path):
    told = told_with_shared_memory(tmp_path, 1000, **values)
    assert told.count("\n") == 0 and "/dev/shm" in told and "--shm-size" in told, told


def test_enough_shared_memory_is_enough(tmp_path):
    assert told_with_shared_memory(tmp_path, 1000, nbytes=100_000, said=100_000) == "done"


def test_ranks_of_one_machine_share_the_room(monkeypatch):
    free = os.statvfs("/dev/shm")
    size = free.f_bavail * free.f_frsize // 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="/dev/shm holds"):
        WorkerItems(payload, 1, item_nbytes=size, timeout=9.0)


def test_a_fork_of_the_parent_that_ends_ends_no_worker():
    made = pool(payload)
    items = made.items(range(9))
    next(items)
    fork = os.fork()
    if not fork:
        multiprocessing.util._run_finalizers(100)
        os._exit(0)
    os.waitpid(fork, 0)
    assert [item["number"] for item in items] == list(range(1, 9))
    made.close()


def test_no_shared_memory_is_left_behind():
    before = set(Path("/dev/shm").glob("torch_*"))
    made = pool(payload)
    next(made.items(range(9)))
    made.close()
    assert set(Path("/dev/shm").glob("torch_*")) <= before
