"""Parts that hold other numbers of records than was said, and the state that remembers them."""

import json
import logging
from collections import Counter

import pytest
from numbered import NumberedSource, in_ranks, joined, keys, make, run

from fastclip.errors import UserError

TRUE = [12, 8, 20, 16, 8]
BELIEVED = {
    "fewer": {0: 20, 2: 30},
    "more": {1: 2, 3: 4},
    "both": {0: 20, 1: 2},
    "zero": {4: 0, 1: 0},
}


def source(kind):
    return NumberedSource(TRUE, believed=BELIEVED[kind])


@pytest.mark.parametrize("in_memory", ["never", "always"])
@pytest.mark.parametrize("kind", BELIEVED)
def test_they_are_told_when_found_and_count_from_the_next_epoch_on(kind, in_memory, caplog):
    loader = make(source(kind), in_memory=in_memory)
    believed = sum({**dict(enumerate(TRUE)), **BELIEVED[kind]}.values())
    assert (loader.num_samples, loader.steps_per_epoch) == (believed, believed // 8)
    assert loader.begin(0) == []
    with caplog.at_level(logging.WARNING):
        assert len(keys(loader.epoch(0))) == believed // 8 * 8
    told = [r.message for r in caplog.records]
    for part, size in BELIEVED[kind].items():
        (line,) = [message for message in told if f"part-{part} " in message]
        assert line == (
            f"part-{part} holds {TRUE[part]} records, not {size} as was expected: it counts so "
            "from the next epoch on"
        )
    assert len(told) == len(BELIEVED[kind])
    first = min(BELIEVED[kind])
    said = loader.begin(1)
    assert said[0] == (
        "2 of 5 parts of made-up hold other numbers of records than was expected, the first "
        f"part-{first}: {TRUE[first]}, not {BELIEVED[kind][first]}"
    )
    assert said[1:] == ["an epoch has 64 records, 8 steps, from epoch 1 on"]
    assert (loader.num_samples, loader.steps_per_epoch) == (64, 8)
    assert loader.steps_before(1) == believed // 8
    assert loader.steps_before(3) == believed // 8 + 16
    assert Counter(Counter(keys(loader.epoch(1))).values()) == {1: 64}
    assert loader.begin(2) == []
    assert Counter(Counter(keys(loader.epoch(2))).values()) == {1: 64}
    assert loader.finish() == []


@pytest.mark.parametrize("kind", BELIEVED)
def test_what_one_rank_finds_counts_for_all(kind):
    def work(rank, exchange):
        loader = make(source(kind), rank=rank, world_size=4, exchange=exchange)
        said = [loader.begin(0)]
        list(loader.epoch(0))
        said += [loader.begin(1), loader.steps_before(4), loader.num_samples]
        return said, keys(loader.epoch(1))

    found = in_ranks(4, work)
    assert all(said == found[0][0] for said, _ in found)
    assert Counter(Counter(key for _, keys in found for key in keys).values()) == {1: 64}


def test_all_ranks_believe_what_the_first_does():
    def work(rank, exchange):
        here = source("both") if rank == 0 else NumberedSource(TRUE)
        loader = make(here, rank=rank, world_size=2, exchange=exchange)
        return loader.num_samples, loader.steps_per_epoch

    assert in_ranks(2, work) == [(66, 8)] * 2


def states_of(kind, world_size, epochs, stop):
    """Steps of every rank, joined, and the state as it was before step ``stop`` of epoch 1."""

    def work(rank, exchange):
        loader = make(source(kind), batch=8, rank=rank, world_size=world_size, exchange=exchange)
        steps, state = [], None
        for epoch in range(epochs):
            loader.begin(epoch)
            steps.append([])
            batches = loader.epoch(epoch)
            for step in range(loader.steps_per_epoch):
                if (epoch, step) == stop:
                    state = json.loads(json.dumps(loader.state()))
                steps[-1] += joined([next(batches)])
        if stop == (epochs - 1, loader.steps_per_epoch):
            state = json.loads(json.dumps(loader.state()))
        return steps, state, [loader.steps_before(e) for e in range(epochs + 2)]

    found = in_ranks(world_size, work)
    assert all(state == found[0][1] for _, state, _ in found)
    whole = [
        [
            {name: [one for rank in ranks for one in rank[name]] for name in ranks[0]}
            for ranks in zip(*(steps[epoch] for steps, _, _ in found), strict=True)
        ]
        for epoch in range(epochs)
    ]
    return whole, found[0][1], found[0][2]


@pytest.mark.parametrize("stop", [(0, 2), (0, 4), (1, 0), (1, 3)])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2), (2, 8)])
@pytest.mark.parametrize("kind", BELIEVED)
def test_a_state_is_taken_up_by_any_number_of_ranks(kind, before, after, stop):
    whole, state, steps_before = states_of(kind, before, 3, stop)
    epoch, step = stop

    def work(rank, exchange):
        # The index knows better by now: the epoch goes on as it began all the same.
        loader = make(NumberedSource(TRUE), rank=rank, world_size=after, exchange=exchange)
        loader.load_state(state)
        assert loader.begin(epoch) == []
        steps = [joined(loader.epoch(epoch, step))]
        for later in range(epoch + 1, 3):
            steps.append(joined(run(loader, later)))
        return steps, [loader.steps_before(e) for e in range(5)]

    found = in_ranks(after, work)
    assert all(counts == steps_before for _, counts in found)
    expected = [whole[epoch][step:], *whole[epoch + 1 :]]
    for number, steps in enumerate(expected):
        for ranks, one in zip(
            zip(*(rank_steps[number] for rank_steps, _ in found), strict=True), steps, strict=True
        ):
            assert {n: [x for rank in ranks for x in rank[n]] for n in one} == one


def test_a_state_from_an_epochs_end_begins_the_next_one():
    whole, state, steps_before = states_of("both", 2, 1, (0, 8))
    straight, _, _ = states_of("both", 1, 2, None)
    loader = make(source("both"))
    loader.load_state(state)
    assert [loader.steps_before(e) for e in range(3)] == steps_before
    assert "hold other numbers of records" in loader.begin(1)[0]
    assert joined(loader.epoch(1)) == straight[1]
    assert whole == straight[:1]


def test_a_state_of_other_data_is_refused():
    loader = make(NumberedSource([8, 8]))
    with pytest.raises(UserError, match="data of 5 parts, found 2"):
        loader.load_state(make(source("both")).state())


def test_too_few_records_for_a_batch_are_told_when_the_epoch_begins():
    loader = make(NumberedSource([5], believed={0: 20}))
    assert len(run(loader)) == 2
    with pytest.raises(UserError, match="made-up has 5 usable samples, fewer than one global"):
        loader.begin(1)


@pytest.mark.parametrize("spec", [{}, {"num_samples": 20}])
def test_a_set_that_turns_out_empty_ends_the_run_at_once(spec):
    loader = make(NumberedSource([0, 0], believed={0: 20, 1: 10}), spec=spec)
    loader.begin(0)
    with pytest.raises(UserError, match="1000 records in a row cannot be used"):
        next(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_go_by_the_new_sizes(workers):
    loader = make(source("both"), workers=workers)
    run(loader, 0)
    assert Counter(Counter(keys(run(loader, 1))).values()) == {1: 64}
    loader.close()


@pytest.mark.parametrize("in_memory", ["never", "always"])
def test_what_is_said_refuses_no_run_that_the_data_have_enough_for(in_memory, caplog):
    source = NumberedSource([12, 8, 20], believed={0: 1, 1: 2, 2: 3})
    with caplog.at_level(logging.WARNING):
        loader = make(source, in_memory=in_memory)
    assert [r.message for r in caplog.records] == ["made-up is said to hold 6 records, counted 40"]
    assert len(set(keys(run(loader)))) == 40
    assert loader.begin(1) == []


def test_data_that_are_fewer_than_a_batch_are_counted_first():
    with pytest.raises(UserError, match="has 7 usable samples, fewer than one global batch of 8"):
        make(NumberedSource([4, 3], believed={0: 2, 1: 1}))


def test_parts_that_are_said_to_be_enough_are_not_opened():
    made = source("both")
    made.open = None
    assert make(made).num_samples == 66
