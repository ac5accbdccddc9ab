import os
from collections import Counter

import pytest
from forward_sources import MadeUpStreams, all_of, loader, numbers, ranks, run
from processes import wait_until_ended

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

STRICT = DataSpec(read_timeout=30.0, max_bad_share=0.2)


def finish(made):
    """What the ranks say at the end; the first call only gives each one's share."""
    told = [one.finish() for one in made]
    return told[-1]


def told_and_got(made):
    """Runs an epoch on every rank; what the last one then says and how often each number came."""
    got = Counter()
    for one in made:
        got.update(all_of(run(one, 0)))
    return finish(made), got


UNEQUAL = {
    "one stream": [22],
    "few": [3, 1, 18],
    "many": [1, 2, 3, 4, 1, 2, 3, 4, 2, 3, 2, 3],
    "very many": [1, 9, 1, 1, 1, 1, 1, 9] * 3,
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sizes", UNEQUAL.values(), ids=UNEQUAL)
def test_what_is_left_out_or_repeated_is_told_exactly(sizes, workers):
    made = loader(MadeUpStreams(sizes), batch=3, workers=workers, shuffle_buffer=5)
    told, got = told_and_got([made])
    made.close()
    repeated, missing = got.total() - len(got), sum(sizes) - len(got)
    sentences = []
    if repeated:
        sentences.append(f"epoch 1: {repeated} of {got.total()} places were filled")
    if missing:
        sentences.append(f"epoch 1: {missing} of {sum(sizes)} records were left out")
    assert len(told) == len(sentences)
    assert all(map(str.startswith, told, sentences)), (told, sentences)


@pytest.mark.parametrize("bad", [[0], [2, 3, 17], list(range(4, 9))])
@pytest.mark.parametrize("change", ["unread", "unbuilt"])
def test_bad_records_are_neither_left_out_nor_forgotten(bad, change):
    source = MadeUpStreams([9, 13], changes=dict.fromkeys(bad, change))
    made = loader(source, batch=2)
    told, got = told_and_got([made])
    assert set(got) <= set(range(22)) - set(bad)
    repeated, missing = got.total() - len(got), 22 - len(bad) - len(got)
    assert f"{repeated} of 22 places" in told[0]
    assert (f"{missing} of 22 records were left out" in told[-1]) == bool(missing)


@pytest.mark.parametrize("sizes", [[5, 17], [2, 3, 1, 4, 2, 3, 1, 6]])
def test_ranks_tell_of_all_of_them(sizes):
    told, got = told_and_got(ranks(MadeUpStreams(sizes), 2, batch=3))
    repeated, missing = got.total() - len(got), 22 - len(got)
    found = [int(sentence.split()[2]) for sentence in told]
    assert found == [count for count in (repeated, missing) if count]


def test_an_epoch_that_stopped_early_tells_nothing():
    made = loader(MadeUpStreams([5, 17]), batch=3)
    made.begin(0)
    batches = made.epoch(0)
    next(batches)
    batches.close()
    assert made.finish() == []


def test_the_last_batch_completes_an_epoch_whether_or_not_more_is_asked_for():
    made = loader(MadeUpStreams([22]), batch=4)
    made.begin(0)
    batches = made.epoch(0)
    for _ in range(5):
        next(batches)
    assert made.begin(1)[0].startswith("epoch 1: 2 of 22 records were left out")


def test_streams_of_unknown_length_that_were_not_read_to_their_end_are_told():
    spec = DataSpec(num_samples=8, read_timeout=30.0)
    source = MadeUpStreams([30, 30, 30], said=[None] * 3)
    told, _ = told_and_got([loader(source, spec=spec, batch=4, shuffle_buffer=4)])
    assert told == [
        "epoch 1: 3 of 3 streams of pipe:made-up were not read to their end: how many records were "
        "left out is not known"
    ] or told[0].startswith("epoch 1: 2 of 3 streams")
    known = MadeUpStreams([5, 5], said=[None] * 2)
    told, _ = told_and_got([loader(known, spec=spec, batch=4)])
    assert told[0].startswith("epoch 1: 2 of 10 records were left out")


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("held", "said"), [(6, 16), (16, 6)])
def test_sizes_that_are_not_so_are_told_and_corrected_for_the_next_epoch(held, said, world):
    made = ranks(MadeUpStreams([held, 8], said=[said, 8]), world, batch=4 // world, micro=2)
    first, second = (said + 8) // 4, (held + 8) // 4
    for one in made:
        assert one.steps_per_epoch == first
        run(one, 0)
    told = [one.begin(1) for one in made][-1]
    made[0].exchange = made[-1].exchange
    assert f"pipe:0 holds {held} records, {said} were expected" in told
    last = made[-1]
    assert last.steps_per_epoch == second and last.num_samples == held + 8
    assert len(list(last.epoch(1))) == second
    assert [last.steps_before(epoch) for epoch in range(4)] == [
        0,
        first,
        first + second,
        first + 2 * second,
    ]
    assert not any("expected" in sentence for sentence in finish([last]))


def test_the_users_number_of_samples_is_not_corrected():
    spec = DataSpec(num_samples=12, read_timeout=30.0)
    made = loader(MadeUpStreams([40], said=[None]), spec=spec)
    run(made, 0)
    made.begin(1)
    assert made.steps_per_epoch == 3 and made.num_samples == 12


def test_a_resumed_run_has_the_lengths_of_its_epochs():
    source = MadeUpStreams([16, 8], said=[6, 8])
    made = loader(source)
    run(made, 0)
    made.begin(1)
    state = made.state()
    whole = numbers(made.epoch(1))

    again = loader(source)
    again.load_state(state)
    assert again.begin(1) == []
    assert again.steps_per_epoch == 6 and again.steps_before(1) == 3
    assert numbers(again.epoch(1, 2)) == whole[2:]
    begun = loader(source)
    begun.begin(0)
    first = loader(source)
    first.load_state(begun.state())
    first.begin(0)
    assert first.steps_per_epoch == 3


LOST = BadRecord("pipe:1", "stream broke off", "exit code 18", lost=6)


@pytest.mark.parametrize("parts", [2, 8], ids=["records dealt", "streams dealt"])
@pytest.mark.parametrize("world", [1, 2])
def test_what_is_lost_is_booked_once_over_all_ranks(parts, world):
    size = 16 // parts * 3
    sizes = [size] * parts
    lost = BadRecord("pipe:1", "stream broke off", lost=size - 1)
    source = MadeUpStreams(sizes, changes={size + 1: lost})
    total = sum(sizes)

    def tried(share):
        spec = DataSpec(read_timeout=30.0, max_bad_share=share)
        return told_and_got(ranks(source, world, batch=6 // world, spec=spec))

    tried(lost.lost / total)
    with pytest.raises(UserError, match=f"{lost.lost} of {total} records are bad") as told:
        tried((lost.lost - 1) / total)
    assert "stream broke off" in str(told.value) and "--max-bad-share" in str(told.value)


def test_a_stream_that_was_lost_keeps_its_size():
    source = MadeUpStreams([8, 8], changes={10: LOST})
    made = loader(source)
    run(made, 0)
    told = made.begin(1)
    assert made.num_samples == 16 and not any("expected" in sentence for sentence in told)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_are_closed_at_the_end_of_an_epoch(workers, tmp_path):
    made = loader(MadeUpStreams([30, 3], folder=tmp_path), workers=workers, shuffle_buffer=3)
    for epoch in range(2):
        run(made, epoch)
        assert not list(tmp_path.iterdir())
    made.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["closed", "too many bad", "loader closed", "bad last"])
def test_streams_are_closed_where_an_epoch_breaks_off(workers, how, tmp_path):
    changes = {}
    if how == "too many bad":
        changes = dict.fromkeys(range(10, 30), "unread")
    if how == "bad last":
        changes = {39: BadRecord("pipe:0", "broke off", lost=20)}
    source = MadeUpStreams([80], changes=changes, folder=tmp_path)
    made = loader(source, workers=workers, spec=STRICT, shuffle_buffer=3)
    made.begin(0)
    batches = made.epoch(0)
    next(batches)
    pids = {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}
    assert pids and (os.getpid() in pids) == (workers == 0)
    if how == "closed":
        batches.close()
    elif how == "loader closed":
        made.close()
    else:
        with pytest.raises(UserError, match="of 80 records are bad"):
            list(batches)
    if not workers:  # a worker that takes long is ended by force
        assert not list(tmp_path.iterdir())
    assert wait_until_ended(pids - {os.getpid()})
    made.close()


def test_seconds_of_reading_and_building_are_summed():
    made = loader(MadeUpStreams([24]))
    run(made, 0)
    assert set(made.seconds) == {"read", "build"} and min(made.seconds.values()) > 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_share_is_one_of_the_records_that_were_read(workers):
    bad = {number: BadRecord(f"k{number}", "record is broken") for number in range(0, 200, 20)}
    spec = DataSpec(num_samples=16, read_timeout=30.0, max_bad_share=0.06)
    made = loader(MadeUpStreams([200], said=[None], changes=bad), spec=spec, workers=workers)
    assert len(run(made, 0)) == 4
    made.finish()
    made.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_more_bad_records_than_the_share_of_those_read_end_the_run(workers):
    bad = {150: BadRecord("k150", "stream broke", lost=50)}
    spec = DataSpec(num_samples=16, read_timeout=30.0, max_bad_share=0.2)
    made = loader(MadeUpStreams([200], said=[None], changes=bad), spec=spec, workers=workers)
    with pytest.raises(UserError, match="50 of 200 records are bad"):
        run(made, 0)
    made.close()
