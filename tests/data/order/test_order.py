"""Orders of epochs: what they hold, on what they depend, how well they mix."""

import time
from collections import Counter

import numpy as np
import pytest

from fastclip.data.order import MOST_ATTEMPTS, Order

SIZES = {
    "equal": [10] * 20,
    "unequal": [30, 0, 10, 25, 1, 30, 0],
    "one": [64],
    "one large among small": [3] * 10 + [300] + [3] * 10,
    "single records": [1] * 80,
}


def slots(order, epoch=0, start=0, stop=None):
    """Pairs of part and number."""
    total = order.total if stop is None else stop
    return list(zip(*map(np.ndarray.tolist, order.epoch(epoch).slots(start, total)), strict=True))


def all_records(sizes):
    return [(part, number) for part, size in enumerate(sizes) for number in range(size)]


@pytest.mark.parametrize("window", [1, 16, 64, 100_000])
@pytest.mark.parametrize("kind", SIZES)
def test_every_record_comes_once_and_epochs_and_seeds_differ(kind, window):
    sizes = SIZES[kind]
    order = Order(sizes, 3, batch=8, window=window)
    assert order.total == sum(sizes)
    assert sorted(slots(order)) == all_records(sizes)
    assert slots(order) == slots(Order(sizes, 3, batch=8, window=window))
    assert slots(order) != slots(order, 1)
    assert slots(order) != slots(Order(sizes, 4, batch=8, window=window))
    parts, numbers = order.epoch(0).slots(0, 4)
    assert parts.dtype == numbers.dtype == np.int64


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("kind", SIZES)
def test_any_run_of_places_is_a_piece_of_the_whole(kind, resampled):
    order = Order(SIZES[kind], 0, batch=8, window=32, resampled=resampled)
    whole = slots(order, stop=3 * order.total)
    for start, stop in ((0, 1), (5, 40), (31, 33), (order.total - 2, order.total + 9), (7, 7)):
        assert slots(order, 0, start, stop) == whole[start:stop]


def test_passes_follow_one_another_each_shuffled_anew():
    order = Order(SIZES["unequal"], 0, batch=8, window=16)
    passes = [slots(order, 0, k * 96, (k + 1) * 96) for k in range(3)]
    assert all(sorted(one) == all_records(SIZES["unequal"]) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_a_set_smaller_than_a_window_is_one_permutation():
    sizes = [10] * 20
    place = {slot: i for i, slot in enumerate(slots(Order(sizes, 0, batch=8)))}
    for part in range(20):
        places = [place[part, number] for number in range(10)]
        assert max(places) - min(places) > 60


def test_parts_stay_together_for_a_window():
    order = Order([10] * 200, 0, batch=8, window=100)
    parts = np.array([part for part, _ in slots(order)])
    assert all(len(set(parts[i : i + 100])) == 10 for i in range(0, 2000, 100))
    assert len({tuple(sorted(set(parts[i : i + 100]))) for i in range(0, 2000, 100)}) == 20


def correlation(a, b):
    """Spearman's, of numbers of which none comes twice."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def test_how_well_an_order_mixes():
    sizes = np.full(400, 50)
    order = Order(sizes, 0, batch=8, window=1000)
    parts, numbers = order.epoch(0).slots(0, 20_000)
    # Nothing is left of the order on disk, over all places and within a window.
    on_disk = parts * 50 + numbers
    assert abs(correlation(np.arange(20_000), on_disk)) < 0.15
    sequence = list(dict.fromkeys(parts.tolist()))
    ranks = np.empty(400, dtype=np.int64)
    ranks[sequence] = np.arange(400)
    in_sequence = ranks[parts] * 50 + numbers
    for start in range(0, 20_000, 1000):
        window = slice(start, start + 1000)
        within = parts[window] * 50 + numbers[window]
        assert abs(correlation(np.arange(1000), within)) < 0.15
    # What stays of the sequence of parts is the order of its 20 windows, 1 - 1 / 20**2.
    assert correlation(np.arange(20_000), in_sequence) == pytest.approx(1 - 1 / 400, abs=0.002)
    # With one window over all there is none.
    parts, numbers = Order(sizes, 0, batch=8).epoch(0).slots(0, 20_000)
    assert abs(correlation(np.arange(20_000), parts * 50 + numbers)) < 0.02


def test_a_record_comes_for_the_first_time_once_an_epoch():
    for options in ({}, {"weights": [2.0] * 7}):
        order = Order(SIZES["unequal"], 0, batch=8, window=16, **options).epoch(0)
        parts, numbers = order.slots(0, 400)
        firsts = order.firsts(0, 400)
        seen = list(zip(parts.tolist(), numbers.tolist(), strict=True))
        of_first = [slot for slot, first in zip(seen, firsts.tolist(), strict=True) if first]
        assert sorted(of_first) == all_records(SIZES["unequal"])
        if not options:
            assert firsts.tolist() == [True] * 96 + [False] * 304


def test_neighbors_are_the_places_of_a_parts_records():
    order = Order(SIZES["unequal"], 0, batch=8, window=16).epoch(0)
    parts, _ = order.slots(0, 96)
    for place in (0, 20, 95):
        assert order.neighbors(place).tolist() == np.flatnonzero(parts == parts[place]).tolist()


def test_a_window_that_is_left_over_joins_the_last():
    order = Order([10] * 25, 0, batch=8, window=100)
    parts = np.array([part for part, _ in slots(order)])
    assert len(set(parts[:100])) == 10
    assert len(set(parts[100:])) == 15
    assert len(set(parts[200:])) > 10
    order = Order([90] * 3, 0, batch=8, window=100)
    parts = np.array([part for part, _ in slots(order)])
    assert len(set(parts[:90])) == len(set(parts[180:])) == 3


def test_after_one_batch_come_the_records_that_no_place_shows():
    order = Order([30], 0, batch=20).epoch(0)
    shown = set(slots(Order([30], 0, batch=20), stop=20))
    tried = [order.instead(place, 1) for place in (0, 3, 7)]
    assert len(set(tried)) == 3
    assert not set(tried) & shown


def test_a_million_places_need_one_window_at_a_time():
    order = Order(np.full(10_000, 10_000), 0, batch=1024).epoch(2)
    parts, numbers = order.slots(50_000_000, 50_001_024)
    assert len(set(parts.tolist())) <= 8
    assert len(set(zip(parts.tolist(), numbers.tolist(), strict=True))) == 1024


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 1.5, 2.0, 0.0])
def test_weights_say_how_often_a_part_comes(weight):
    sizes = [10] * 8 + [20] * 8
    order = Order(sizes, 0, batch=8, weights=[weight] * 8 + [1.0] * 8, window=50)
    assert order.total == int(80 * weight) + 160
    seen = Counter()
    for epoch in range(40):
        one = Counter(slots(order, epoch))
        small = {part: one[part, 0] for part in range(8)}
        assert all(count in (int(weight), int(-(-weight // 1))) for count in small.values())
        assert all(one[part, number] == small[part] for part in range(8) for number in range(10))
        assert all(one[part, number] == 1 for part in range(8, 16) for number in range(20))
        seen.update(small)
    assert sum(seen.values()) == 40 * 8 * weight
    assert all(abs(count / 40 - weight) < 0.3 for count in seen.values())


def test_tiny_weights_are_shares_and_cost_no_empty_passes():
    order = Order([10, 10, 0], 0, batch=8, weights=[1e-6, 3e-6, 1.0], window=50)
    started = time.process_time()
    slots(order, stop=20)
    assert time.process_time() - started < 5
    counts = Counter(part for part, _ in slots(order, stop=4000))
    assert counts.keys() == {0, 1} and counts[1] / 4000 == pytest.approx(0.75, abs=0.1)


def test_resampled_records_come_by_their_weight():
    sizes = [40, 10, 50]
    order = Order(sizes, 0, batch=8, weights=[1.0, 4.0, 0.0], resampled=True, window=1000)
    drawn = slots(order, stop=40_000)
    counts = Counter(drawn)
    assert set(counts) <= {(part, n) for part in (0, 1) for n in range(sizes[part])}
    assert len(counts) == 50
    for (part, _), count in counts.items():
        assert count == pytest.approx(40_000 * (1, 4)[part] / 80, rel=0.25)


def test_resampled_windows_read_few_parts_of_many():
    order = Order([100] * 5000, 0, batch=8, resampled=True, window=1000).epoch(0)
    for start in (0, 1000, 7000):
        assert len(set(order.slots(start, start + 1000)[0].tolist())) <= 64
    parts, _ = order.slots(0, 200_000)
    assert len(set(parts.tolist())) > 4000


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 32, 60, 96, 100])
def test_another_record_is_found_for_every_place(batch, resampled):
    order = Order(SIZES["unequal"], 0, batch=batch, window=32, resampled=resampled)
    sizes = SIZES["unequal"]
    this, again = order.epoch(0), order.epoch(0)
    for place in (0, 5, 50, 95, 96, 200):
        tried = [this.instead(place, attempt) for attempt in range(1, 200)]
        assert tried == [again.instead(place, attempt) for attempt in range(1, 200)]
        assert all(number < sizes[part] for part, number in tried)
        assert len(set(tried)) > 40
    assert this.instead(3, MOST_ATTEMPTS) in all_records(sizes)


@pytest.mark.parametrize("batch", [2, 7, 16, 30])
def test_a_batch_gets_no_record_twice(batch):
    order = Order([10] * 12, 0, batch=batch, window=40).epoch(0)
    for start in range(0, 120 - batch + 1, batch):
        used = set(zip(*map(np.ndarray.tolist, order.slots(start, start + batch)), strict=True))
        for place in range(start, start + batch):
            for attempt in (1, 2, 3 + place % 20):
                instead = order.instead(place, attempt)
                assert instead not in used
            used.add(instead)
