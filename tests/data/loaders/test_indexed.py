"""The order of batches: on what it depends, what it holds, how it is taken up again."""

import itertools
from collections import Counter

import pytest
from numbered import NumberedSource, in_ranks, joined, keys, make, run

from fastclip.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SIZES = [30, 0, 10, 25, 1, 30]
BAD = {"0/3": "source", "0/4": "field", "2/9": "build", "5/0": "build"}
SOURCES = {
    "good": lambda: NumberedSource(SIZES),
    "bad": lambda: NumberedSource(SIZES, bad=BAD),
    "fewer than said": lambda: NumberedSource(SIZES, believed={0: 40, 4: 3}),
    "more than said": lambda: NumberedSource(SIZES, believed={1: 3, 3: 9, 5: 11}),
    "zero said, zero found": lambda: NumberedSource([*SIZES, 20], believed={6: 0, 1: 12}),
    "weights": lambda: NumberedSource(SIZES, weights=[1.0, 1.0, 2.5, 0.5, 1.0, 1.0]),
}
OPTIONS = {
    "plain": {},
    "resampled": {"resampled": True},
    "passes": {"spec": {"num_samples": 250}},
    "less than a pass": {"spec": {"num_samples": 40}},
}


def epochs(source, count=3, **options):
    """The joined steps of each of ``count`` epochs."""
    loader = make(source, **options)
    return [joined(run(loader, epoch)) for epoch in range(count)]


@pytest.fixture(scope="module")
def alone():
    """What one rank without workers gives, by source and options."""
    found = {}
    for (name, source), (what, options) in itertools.product(SOURCES.items(), OPTIONS.items()):
        found[name, what] = epochs(source(), **options)
    return found


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(
    "how",
    [
        {"micro_batch_size": 3},
        {"micro_batch_size": 4, "in_memory": "always", "workers": 3},
        {"in_memory": "always"},
    ],
    ids=["micro-batches", "kept by threads", "kept"],
)
def test_the_same_batches_come(alone, name, what, how):
    assert epochs(SOURCES[name](), **OPTIONS[what], **how) == alone[name, what]


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("in_memory", ["never", "always"])
def test_ranks_share_the_same_global_batches(alone, name, what, in_memory):
    def work(rank, exchange):
        return epochs(
            SOURCES[name](),
            world_size=2,
            rank=rank,
            exchange=exchange,
            micro_batch_size=2,
            in_memory=in_memory,
            **OPTIONS[what],
        )

    by_rank = in_ranks(2, work)
    for epoch, steps in enumerate(alone[name, what]):
        assert len(steps) == len(by_rank[0][epoch]) == len(by_rank[1][epoch])
        for step, whole in enumerate(steps):
            first, second = by_rank[0][epoch][step], by_rank[1][epoch][step]
            assert {column: first[column] + second[column] for column in first} == whole


@pytest.mark.parametrize("name", ["bad", "more than said"])
def test_workers_make_the_same_batches(alone, name):
    loader = make(SOURCES[name](), workers=3, micro_batch_size=4)
    found = [joined(run(loader, epoch)) for epoch in range(3)]
    loader.close()
    assert found == alone[name, "plain"]


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_a_later_start_skips_steps(alone, name, what):
    for start in (1, 4):
        loader = make(SOURCES[name](), **OPTIONS[what])
        loader.begin(0)
        assert joined(loader.epoch(0, start)) == alone[name, what][0][start:]


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "weights"])
def test_every_record_comes_once_an_epoch(name):
    source = SOURCES[name]()
    loader = make(source, batch=1)
    run(loader, 0)
    good = {f"{p}/{n}" for p, size in enumerate(source.true) for n in range(size)} - set(source.bad)
    for epoch in (1, 2):
        seen = Counter(keys(run(loader, epoch)))
        assert set(seen) == good
        assert max(seen.values()) <= (2 if source.bad else 1)
        assert seen.total() == sum(source.true) == loader.num_samples == loader.steps_per_epoch


def test_epochs_and_seeds_differ(alone):
    first, second, _ = alone["good", "plain"]
    assert [step["key"] for step in first] != [step["key"] for step in second]
    assert first[0]["drawn"] != second[0]["drawn"]
    assert epochs(SOURCES["good"](), count=1, seed=1)[0] != first


def test_a_batch_has_its_promised_shape(alone):
    (first, *_), *_ = alone["good", "plain"]
    assert [len(first[name]) for name in first] == [8] * len(first)
    assert first["number"] == [
        1000 * int(part) + int(number) for part, number in (k.split("/") for k in first["key"])
    ]
    steps = run(make(SOURCES["good"](), micro_batch_size=3))
    assert [len(micro_batch["key"]) for micro_batch in steps[0]] == [3, 3, 2]


def test_draws_go_by_place_whatever_the_record():
    good, bad = (epochs(SOURCES[name](), count=1)[0] for name in ("good", "bad"))
    for one, other in zip(good, bad, strict=True):
        assert one["drawn"] == other["drawn"]
        assert one["together"] == other["together"]


def test_no_batch_holds_a_record_twice_for_one_that_is_bad():
    bad = {f"{part}/{number}": "build" for part in (0, 5) for number in range(0, 30, 2)}
    for seed in range(5):
        for step in epochs(NumberedSource(SIZES, bad=bad), count=1, seed=seed)[0]:
            assert len(set(step["key"])) == 8


def test_passes_show_every_record_as_often_as_the_next():
    seen = Counter(keys(run(make(SOURCES["good"](), spec={"num_samples": 288}))))
    assert seen.total() == 288
    assert set(seen.values()) == {3}


def test_records_drawn_with_replacement_come_more_than_once():
    seen = Counter(keys(run(make(SOURCES["good"](), resampled=True))))
    assert seen.total() == 96
    assert 40 < len(seen) < 80


def test_weights_of_parts_say_how_often_they_come():
    loader = make(NumberedSource([10, 10, 10, 10], weights=[2.0, 0.0, 0.5, 1.5]), batch=1)
    assert loader.num_samples == 40
    seen = Counter()
    for epoch in range(20):
        seen.update(key.split("/")[0] for key in keys(run(loader, epoch)))
    assert seen.total() == 800
    assert "1" not in seen
    for part, weight in (("0", 2.0), ("2", 0.5), ("3", 1.5)):
        assert seen[part] == pytest.approx(200 * weight, rel=0.2)


@pytest.mark.parametrize("in_memory", ["always", "never"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_fewer_samples_than_a_global_batch_are_refused(in_memory, world_size):
    options = dict(batch=98, world_size=world_size, in_memory=in_memory)
    with pytest.raises(UserError, match="made-up has 96 usable samples, fewer than one global"):
        make(NumberedSource(SIZES), **options)
    with pytest.raises(UserError, match="--train-num-samples is 90, fewer than one global"):
        make(NumberedSource(SIZES), spec={"num_samples": 90}, **options)


@pytest.mark.parametrize("spec", [{}, {"num_samples": 100}])
@pytest.mark.parametrize("in_memory", ["always", "auto", "never"])
@pytest.mark.parametrize("sizes", [[0], [0, 0]])
def test_an_empty_set_is_refused(spec, in_memory, sizes):
    with pytest.raises(UserError, match="made-up holds no record"):
        make(NumberedSource(sizes), spec=spec, in_memory=in_memory)


@pytest.mark.parametrize("workers", [0, 1])
def test_time_spent_is_told(workers):
    loader = make(NumberedSource(SIZES), workers=workers)
    assert dict(loader.seconds) == {}
    run(loader)
    loader.close()
    assert set(loader.seconds) == {"read", "build"}
    assert min(loader.seconds.values()) > 0


def test_an_epoch_must_have_begun():
    loader = make(NumberedSource(SIZES))
    with pytest.raises(ValueError, match="has not begun"):
        next(loader.epoch(0))
    loader.begin(1)
    with pytest.raises(ValueError, match="cannot begin after"):
        loader.begin(0)


def test_weights_that_leave_less_than_a_record_do_not_say_that_there_is_none():
    with pytest.raises(UserError, match="made-up has 0 usable samples, fewer than one global"):
        make(NumberedSource([10, 10], weights=[0.01, 0.01]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_of_very_many_steps_begins_at_once(workers):
    loader = make(SOURCES["good"](), spec={"num_samples": 10**16}, workers=workers)
    loader.begin(0)
    steps = loader.epoch(0)
    assert len(set(keys([next(steps), next(steps)]))) == 16
    loader.close()


def test_shared_memory_is_judged_before_the_first_epoch(monkeypatch):
    monkeypatch.setattr("fastclip.data.loaders.sharing.free_bytes", lambda: 100)
    make(NumberedSource([40]), batch=16)
    with pytest.raises(UserError, match=r"^/dev/shm holds 100 B, a batch needs"):
        make(NumberedSource([40]), batch=16, workers=2)
