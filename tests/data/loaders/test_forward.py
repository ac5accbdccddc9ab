import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from forward_sources import MadeUpStreams, NumberField, all_of, loader, numbers, ranks, run

from fastclip.data.draws import Draws
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("sizes", [[24], [5, 7, 12], [3] * 8], ids=["one", "few", "many"])
def test_equal_streams_are_read_once_an_epoch(sizes, workers):
    made = loader(MadeUpStreams(sizes), workers=workers)
    assert (made.num_samples, made.steps_per_epoch) == (24, 6)
    orders = []
    for epoch in range(2):
        assert made.begin(epoch) == []
        orders.append(numbers(made.epoch(epoch)))
        assert sorted(sum(orders[-1], [])) == list(range(24))
        assert all(len(batch) == 4 for batch in orders[-1])
    assert made.finish() == []
    assert orders[0] != orders[1]
    made.close()


@pytest.mark.parametrize("sizes", [[48], [6] * 8], ids=["records dealt", "streams dealt"])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_get_different_records(sizes, world):
    made = ranks(MadeUpStreams(sizes), world, batch=48 // (4 * world), micro=2)
    got = [all_of(run(one, 0)) for one in made]
    assert {len(one) for one in got} == {48 // world}
    if len(sizes) == 1 or 8 // world >= 4:
        assert sorted(sum(got, [])) == list(range(48))


@pytest.mark.parametrize("workers", [0, 2])
def test_micro_batches_hold_a_batch_in_pieces(workers):
    made = loader(MadeUpStreams([12]), batch=6, micro=4, workers=workers)
    for batch in run(made, 0):
        assert [len(m["key"]) for m in batch] == [4, 2]
        for micro in batch:
            assert micro["key"] == [f"k{n}" for n in micro["number"].tolist()]
    made.close()


def test_draws_are_those_of_the_global_place():
    made = ranks(MadeUpStreams([5] * 8), 2, batch=5, micro=3)
    for rank, one in enumerate(made):
        for step, batch in enumerate(run(one, 0)):
            places = np.arange(5) + (2 * step + rank) * 5
            expected = torch.from_numpy(Draws(3, 0, places).uniform(0, 1)[:, 0])
            for column in "drawn", "draws":
                got = torch.cat([micro[column] for micro in batch])
                assert torch.allclose(got.double(), expected)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("parts", [1, 12], ids=["records dealt", "streams dealt"])
@pytest.mark.parametrize("start", [1, 6])
def test_an_epoch_taken_up_goes_on_as_it_was(workers, parts, start):
    changes = {4: "unbuilt", 11: "unbuilt", 30: "unread"}
    source = MadeUpStreams([48 // parts] * parts, changes=changes)
    made = loader(source, workers=workers, shuffle_buffer=7)
    whole = run(made, 2)
    again = loader(source, workers=workers, shuffle_buffer=7)
    rest = run(again, 2, start)
    assert numbers(rest) == numbers(whole)[start:]
    for one, other in zip(rest, whole[start:], strict=True):
        assert all(torch.equal(a["drawn"], b["drawn"]) for a, b in zip(one, other, strict=True))
    made.close()
    again.close()


def test_records_before_the_start_are_not_built(monkeypatch):
    built = []
    build = NumberField.build
    monkeypatch.setattr(
        NumberField, "build", lambda self, *args: built.append(args[0]) or build(self, *args)
    )
    run(loader(MadeUpStreams([24])), 0, 4)
    assert len(built) == 8


@pytest.mark.parametrize("change", ["unread", "unbuilt"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_bad_record_is_booked_and_its_place_filled(change, where, caplog):
    bad = {"first": 0, "middle": 13, "last": 23}[where]
    made = loader(MadeUpStreams([24], changes={bad: change}))
    got = Counter(all_of(run(made, 0)))
    assert set(got) == set(range(24)) - {bad} and got.total() == 24
    assert caplog.text.count("skipped") == 1 and f"k{bad}" in caplog.text
    assert made.finish()[0].startswith("epoch 1: 1 of 24 places were filled")


def test_good_records_keep_their_places_where_another_is_bad():
    whole = numbers(run(loader(MadeUpStreams([24])), 0))
    bad = whole[2][1]
    got = numbers(run(loader(MadeUpStreams([24], changes={bad: "unbuilt"})), 0))
    differ = [
        (step, place)
        for step, place in itertools.product(range(6), range(4))
        if whole[step][place] != got[step][place]
    ]
    assert differ == [(2, 1)]
    assert got[2][1] == whole[3][0]


def test_a_shuffle_buffer_mixes_within_its_size():
    made = loader(MadeUpStreams([400]), shuffle_buffer=40)
    order = sum(numbers(run(made, 0)), [])
    assert order != sorted(order)
    assert max(place - number for place, number in enumerate(order)) < 400
    assert min(place - number for place, number in enumerate(order)) >= -40


def test_drawn_streams_may_come_twice_and_nothing_is_told_of_it():
    made = loader(MadeUpStreams([4] * 6), resampled=True)
    orders = [all_of(run(made, epoch)) for epoch in range(4)]
    assert any(len(set(order)) < 24 for order in orders)
    assert made.finish() == []


def test_weights_of_streams_need_them_drawn_and_say_how_often_they_are():
    source = MadeUpStreams([4] * 8)
    source.weights = [1.0] * 4 + [3.0] * 4
    with pytest.raises(
        UserError,
        match="-factors is given for the streams pipe:made-up, each of which is read once",
    ):
        loader(source)
    made = loader(source, resampled=True)
    drawn = [number for epoch in range(40) for number in all_of(run(made, epoch))]
    share = sum(number >= 16 for number in drawn) / len(drawn)
    assert share == pytest.approx(0.75, abs=0.06)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_order_depends_on_the_seed_and_the_epoch_alone(seed):
    first = [numbers(run(loader(MadeUpStreams([24]), seed=3), e)) for e in (0, 5)]
    again = [numbers(run(loader(MadeUpStreams([24]), seed=seed), e)) for e in (0, 5)]
    assert (first == again) == (seed == 3)


def test_the_number_of_samples_is_the_users_or_what_the_streams_should_hold():
    spec = DataSpec(num_samples=9)
    assert loader(MadeUpStreams([3, 4], said=[None, None]), spec=spec).steps_per_epoch == 2
    assert loader(MadeUpStreams([3, 9])).num_samples == 12
    for said in [None, None], [3, None]:
        with pytest.raises(UserError, match=r"pipe:made-up is not known.*--train-num-samples"):
            loader(MadeUpStreams([3, 4], said=said))


def test_fewer_records_than_a_global_batch_are_refused():
    with pytest.raises(UserError, match=r"has 7 usable samples.*batch of 8: lower --train-batch"):
        loader(MadeUpStreams([3, 4]), batch=4, world=2)
    with pytest.raises(UserError, match=r"--train-num-samples is 7, fewer than one global.* of 8"):
        loader(MadeUpStreams([30, 40]), batch=4, world=2, spec=DataSpec(num_samples=7))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sizes", [[0], [0] * 9])
def test_streams_without_a_record_end_in_a_sentence(sizes, workers):
    source = MadeUpStreams(sizes, said=[8] * len(sizes))
    with pytest.raises(UserError, match=r"gave no record|no usable record"):
        run(loader(source, workers=workers), 0)


def test_an_empty_stream_among_others_is_booked_as_what_it_should_hold(caplog):
    made = loader(MadeUpStreams([10, 0, 10], said=[10, 4, 10]))
    run(made, 0)
    assert "skipped pipe:1: stream gave no record" in caplog.text
    quiet = loader(MadeUpStreams([10, 0, 10]))
    caplog.clear()
    run(quiet, 0)
    assert not caplog.text


def test_streams_of_nothing_but_bad_records_end_in_a_sentence():
    for change in "unread", "unbuilt":
        source = MadeUpStreams([8], changes=dict.fromkeys(range(8), change))
        spec = DataSpec(max_bad_share=1.0)
        with pytest.raises(UserError, match=r"no usable record|1000 records in a row"):
            run(loader(source, spec=spec), 0)


def test_the_source_the_workers_and_the_ranks_are_the_identity():
    made = [
        loader(MadeUpStreams([24]), workers=workers, rank=0, world=world, resampled=resampled)
        for workers, world, resampled in [(0, 1, False), (2, 1, False), (0, 2, False), (0, 1, True)]
    ]
    identities = [one.identity() for one in made]
    assert len({tuple(one.values()) for one in identities}) == 4
    assert identities[0]["--train-data"] == "made up" and identities[1]["--workers"] == 2
