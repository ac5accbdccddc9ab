import os
import random
import subprocess
import threading
import time

import numpy as np
import pytest
import torch
from processes import is_running, wait_until_ended

from fastclip.data.loaders.worker_process import sign_of_life
from fastclip.data.loaders.workers import WorkerItems
from fastclip.errors import UserError

WORKERS = pytest.mark.parametrize("workers", [0, 1, 3])


def pool(function, workers=2, timeout=60.0):
    return WorkerItems(function, workers, item_nbytes=1000, timeout=timeout)


def numbered(task):
    return {"number": torch.tensor([task]), "pid": os.getpid()}


def numbers(items):
    return [int(item["number"]) for item in items]


@WORKERS
@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_items_come_in_the_order_of_their_tasks(workers, count):
    made = pool(numbered, workers)
    for _ in range(2):
        assert numbers(made.items(range(count))) == list(range(count))
    made.close()


def test_workers_live_from_one_iterator_to_the_next_and_end_at_close():
    made = pool(numbered, 2)
    pids = [{item["pid"] for item in made.items(range(6))} for _ in range(3)]
    assert pids[0] == pids[1] == pids[2] and len(pids[0]) == 2 and os.getpid() not in pids[0]
    assert all(map(is_running, pids[0]))
    made.close()
    assert not any(map(is_running, pids[0]))


def test_task_i_goes_to_worker_i_modulo_workers():
    made = pool(numbered, 3)
    pids = [item["pid"] for item in made.items(range(9))]
    assert pids[:3] == pids[3:6] == pids[6:] and len(set(pids[:3])) == 3
    made.close()


def test_workers_end_with_what_made_them():
    made = pool(numbered, 2)
    pids = {item["pid"] for item in made.items(range(4))}
    del made
    assert wait_until_ended(pids)


@WORKERS
def test_torch_says_nothing_of_the_number_of_workers(workers, recwarn, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    made = pool(numbered, workers)
    assert numbers(made.items(range(3))) == [0, 1, 2]
    made.close()
    assert not recwarn.list


@WORKERS
def test_global_generators_are_left_alone(workers):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    made = pool(numbered, workers)
    for _ in range(2):
        list(made.items(range(3)))
    made.close()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()


def test_a_worker_has_one_thread():
    made = pool(lambda task: {"threads": torch.get_num_threads()}, 1)
    assert [item["threads"] for item in made.items([0])] == [1]
    made.close()


def test_caches_of_the_function_are_each_workers_own():
    seen = []

    def remember(task):
        seen.append(task)
        return {"seen": list(seen)}

    made = pool(remember, 2)
    assert [item["seen"] for item in made.items(range(4))] == [[0], [1], [0, 2], [1, 3]]
    assert seen == []
    made.close()


def test_few_items_are_made_ahead(tmp_path):
    def note(task):
        (tmp_path / str(task)).touch()
        return {}

    made = pool(note, 2)
    items = made.items(range(100))
    next(items)
    time.sleep(0.3)
    assert len(list(tmp_path.iterdir())) <= 6
    made.close()


TENSORS = {
    "uint8": torch.arange(7, dtype=torch.uint8),
    "int64": torch.arange(6).view(2, 3),
    "float64": torch.rand(3, 1, dtype=torch.float64),
    "bfloat16": torch.rand(5).bfloat16(),
    "bool": torch.tensor([True, False, True]),
    "no dimension": torch.tensor(3.5),
    "transposed": torch.arange(6).view(2, 3).t(),
    "strided": torch.arange(10)[::3],
    "expanded": torch.ones(1).expand(4),
    "with a gradient": torch.rand(2, requires_grad=True),
    "empty": torch.empty(0, 3),
}


def test_items_arrive_as_they_were_made_in_shared_memory():
    nested = [{"a": tensor, "b": (tensor, "text", None)} for tensor in TENSORS.values()]
    item = {"all": TENSORS, "nested": nested, "array": np.arange(3), "key": ["x", "ü" * 99999]}
    made = pool(lambda task: item, 1)
    (found,) = made.items([0])
    for name, tensor in TENSORS.items():
        assert found["all"][name].dtype == tensor.dtype, name
        assert torch.equal(found["all"][name], tensor), name
        assert found["all"][name].is_shared() or not tensor.numel(), name
    for one, tensor in zip(found["nested"], TENSORS.values(), strict=True):
        assert torch.equal(one["a"], tensor) and torch.equal(one["b"][0], tensor)
        assert one["b"][1:] == ("text", None)
    assert (found["array"] == np.arange(3)).all() and found["key"] == item["key"]
    made.close()


def test_an_item_costs_one_file_descriptor_until_it_is_dropped():
    made = pool(lambda task: {str(n): torch.ones(9) for n in range(50)}, 2)
    items = made.items(range(40))
    kept = [next(items) for _ in range(10)]
    before = len(os.listdir("/proc/self/fd"))
    kept += [next(items) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) - before <= 25
    kept.clear()
    del items
    made.close()
    assert len(os.listdir("/proc/self/fd")) <= before


class Closable:
    """Counts in a file how often it was closed; keeps a child process of its own meanwhile."""

    def __init__(self, folder):
        self.folder, self.child = folder, None

    def __call__(self, task):
        if self.child is None:
            self.child = subprocess.Popen(["sleep", "1000"])
        return {"number": task, "pid": os.getpid(), "child": self.child.pid}

    def close(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            (self.folder / str(self.child.pid)).touch()
            self.child = None


@WORKERS
@pytest.mark.parametrize("how", ["iterator", "items", "next one"])
def test_an_early_end_closes_what_the_function_has_open(workers, how, tmp_path):
    made = pool(Closable(tmp_path), workers)
    items = made.items(range(100))
    first = [next(items) for _ in range(2 * max(1, workers))]
    pids = {item["pid"] for item in first} - {os.getpid()}
    children = {item["child"] for item in first}
    assert all(map(is_running, children))
    if how == "iterator":
        items.close()
    elif how == "items":
        made.close()
    again = list(made.items(range(5)))
    assert [item["number"] for item in again] == list(range(5))
    assert not any(map(is_running, pids | children))
    assert {int(path.name) for path in tmp_path.iterdir()} == children
    made.close()
    assert not any(is_running(item["child"]) for item in again)


@WORKERS
def test_a_refusal_keeps_its_sentence(workers, tmp_path):
    def refuse(task):
        (tmp_path / str(os.getpid())).touch()
        if task == 2:
            raise UserError("no file bad.tar")
        return {"number": task}

    made = pool(refuse, workers)
    items = made.items(range(9))
    assert [next(items)["number"] for _ in range(2)] == [0, 1]
    with pytest.raises(UserError, match=r"^no file bad\.tar$"):
        next(items)
    assert not any(is_running(int(p.name)) for p in tmp_path.iterdir() if workers)


def test_a_bug_keeps_its_traceback():
    def divide(task):
        return {"number": 1 / task}

    made = pool(divide)
    with pytest.raises(
        RuntimeError, match=r"(?s)in a worker.*in divide.*ZeroDivisionError"
    ) as told:
        list(made.items([1, 0, 2]))
    assert not isinstance(told.value, UserError)


@pytest.mark.parametrize("item", [lambda: 0, threading.Lock()], ids=["lambda", "lock"])
def test_what_cannot_be_pickled_is_a_bug_and_no_hang(item):
    with pytest.raises(RuntimeError, match=r"(?s)in a worker.*pickle"):
        list(pool(lambda task: {"item": item}).items([0]))


def test_no_memory_is_a_sentence():
    def huge(task):
        raise MemoryError

    with pytest.raises(UserError, match="--workers"):
        list(pool(huge).items([0]))


@WORKERS
def test_errors_of_the_tasks_themselves_pass(workers):
    def tasks():
        yield 0
        raise UserError("no more tasks")

    made = pool(numbered, workers)
    with pytest.raises(UserError, match="^no more tasks$"):
        list(made.items(tasks()))
    assert numbers(made.items(range(2))) == [0, 1]
    made.close()


def test_a_slow_item_that_gives_signs_of_life_is_no_hang():
    def slow(task):
        for _ in range(6):
            time.sleep(0.2)
            sign_of_life()
        return {"number": task}

    made = pool(slow, 1, timeout=0.6)
    assert [item["number"] for item in made.items(range(2))] == [0, 1]
    made.close()


def test_time_between_items_is_not_waiting():
    made = pool(numbered, 1, timeout=0.3)
    items = made.items(range(9))
    next(items)
    time.sleep(0.8)
    assert numbers(items) == list(range(1, 9))
    made.close()
