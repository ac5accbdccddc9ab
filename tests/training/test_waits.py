import pytest

from fastclip.training.waits import Waits


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(waiting, computing):
    """A loop whose steps wait and compute so long; also the metrics of each step."""
    clock = Clock()
    waits = Waits(clock)

    def batches():
        for seconds in waiting:
            clock.now += seconds
            yield seconds
        clock.now += 0.5  # to find that there are no more

    metrics = []
    for _, seconds in zip(waits.timed(batches()), computing, strict=False):
        clock.now += seconds
        metrics.append(waits.step_metrics())
        clock.now += 0.25
    return waits, metrics


def test_each_step_says_how_long_it_waited_and_computed():
    waits, metrics = run([3.0, 1.0, 0.0], [2.0, 4.0, 8.0])
    assert metrics == [
        {"data_seconds": 3.0, "compute_seconds": 2.0},
        {"data_seconds": 1.0, "compute_seconds": 4.0},
        {"data_seconds": 0.0, "compute_seconds": 8.0},
    ]
    assert waits.data_seconds == 4.0 and waits.compute_seconds == 14.75


def test_a_loop_that_leaves_closes_the_batches():
    closed = []

    def batches():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    waits = Waits()
    timed = waits.timed(batches())
    next(timed)
    timed.close()
    assert closed and waits.compute_seconds > 0


def test_errors_of_the_batches_pass():
    def batches():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(Waits().timed(batches()))


@pytest.mark.parametrize("seconds", [[], [0.0], [2.0]])
def test_little_waiting_is_not_told(seconds):
    waits, _ = run(seconds, [8.0])
    waits.compute_seconds = 8.0 * len(seconds)
    assert waits.diagnosis({"read": 1.0, "build": 1.0}, 1, 8) is None


CASES = {
    "no worker": ({"read": 1, "build": 4}, 0, 8, "--workers 0 (80% of the loader's work is deco"),
    "few workers": ({"read": 2, "build": 6}, 1, 8, "too few workers, 1 on 8 cores"),
    "decoding": ({"read": 2, "build": 14}, 2, 2, "for decoding (88% of the loader's work"),
    "reading": ({"read": 9, "build": 1}, 1, 8, "for reading (90% of the loader's work"),
    "start": ({"read": 1, "build": 1}, 4, 8, "busy for 5% only"),
    "too many": ({"read": 1, "build": 1}, 200, 2, "200 workers are too many for 2 cores"),
    "too many, and busy": ({"read": 14, "build": 2}, 3, 2, "3 workers are too many for 2 cores"),
    "unknown": ({}, 2, 8, "waiting for data"),
}


@pytest.mark.parametrize(("spent", "workers", "cores", "expected"), CASES.values(), ids=CASES)
def test_the_cause_of_long_waiting_is_told(spent, workers, cores, expected):
    waits, _ = run([5.0], [4.75])
    told = waits.diagnosis(spent, workers, cores)
    assert told.startswith("50% of the time was spent waiting for data")
    assert expected in told and "\n" not in told
