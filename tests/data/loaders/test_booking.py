"""What cannot be used is booked once, by one rank, with its reason."""

from collections import Counter

import pytest
from numbered import NumberedSource, in_ranks, keys, make, run

from fastclip.data.bad_records import BadRecord
from fastclip.errors import UserError

SIZES = [30, 10, 25, 1, 30]
BAD = {"0/3": "source", "0/4": "field", "2/9": "build", "4/0": "build", "3/0": "field"}
REASONS = {
    "record is broken": 1,
    "number is unreadable": 2,
    "number is corrupt": 2,
}


def booked(caplog):
    """How often each key was named in the log."""
    names = [r.getMessage() for r in caplog.records if r.getMessage().startswith("skipped")]
    return Counter(name.split()[1].rstrip(":") for name in names)


def all_ranks(build, world_size, epochs=1, **options):
    """What each rank is told at the end of each epoch."""

    def work(rank, exchange):
        ranks = {"rank": rank, "world_size": world_size, "exchange": exchange}
        loader = make(build(), **ranks, **options)
        said = []
        for epoch in range(epochs):
            said.append(loader.begin(epoch))
            list(loader.epoch(epoch))
        return [*said[1:], loader.finish()]

    return in_ranks(world_size, work)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_bad_record_is_booked_by_one_rank(world_size, caplog):
    said = all_ranks(lambda: NumberedSource(SIZES, bad=BAD), world_size)
    assert booked(caplog) == dict.fromkeys(BAD, 1)
    assert (
        said
        == [
            [
                [
                    "5 records could not be used in epoch 0: 2 x number is corrupt, 2 x number is "
                    "unreadable, 1 x record is broken"
                ]
            ]
        ]
        * world_size
    )


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_what_is_wrong_with_a_part_counts_once(world_size, caplog):
    problems = {
        0: [BadRecord("0/foreign", "is no picture")],
        3: [BadRecord("3/twice", "comes twice")],
        5: [BadRecord("part-5", "is no archive", lost=7)],
        6: [BadRecord("part-6", "cannot be opened", lost=3)],
    }
    for epochs in (1, 2):
        caplog.clear()
        said = all_ranks(
            lambda: NumberedSource([*SIZES, 0, 0], problems=problems), world_size, epochs
        )
        assert booked(caplog) == {
            "0/foreign": epochs,
            "3/twice": epochs,
            "part-5": epochs * min(7, world_size),
            "part-6": epochs * min(3, world_size),
        }
        for of_rank in said:
            assert len(of_rank) == epochs
            for sentences in of_rank:
                assert sentences[0].startswith("12 records could not be used in epoch")


@pytest.mark.parametrize("size", [0, 10, 50])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_what_a_part_has_lost_is_shared_out_among_ranks(world_size, size, caplog):
    problems = {1: [BadRecord("part-1", "ends early", lost=40)]}
    said = all_ranks(
        lambda: NumberedSource([40, 10, 40], believed={1: size}, problems=problems), world_size
    )
    assert world_size / 2 < booked(caplog)["part-1"] <= world_size
    for of_rank in said:
        assert "40 records could not be used in epoch 0: 40 x ends early" in of_rank[0]


def test_a_rank_whose_places_are_not_shown_has_no_share_of_a_loss():
    problems = {part: [BadRecord(f"part-{part}", "ends early", lost=8)] for part in range(10)}
    for seed in range(4):
        options = dict(batch=32, seed=seed, spec={"max_bad_share": 1000.0})
        said = all_ranks(lambda: NumberedSource([4] * 10, problems=problems), 4, **options)
        assert said == [[["80 records could not be used in epoch 0: 80 x ends early"]]] * 4


def test_what_comes_again_in_a_later_pass_is_booked_by_no_other_rank():
    said = all_ranks(lambda: NumberedSource(SIZES, bad=BAD), 4, spec={"num_samples": 384})
    assert all(of_rank[0][0].startswith("5 records could not be used") for of_rank in said)


@pytest.mark.parametrize("in_memory", ["never", "always"])
def test_in_every_pass_and_epoch_a_bad_record_is_booked_once(in_memory, caplog):
    loader = make(NumberedSource(SIZES, bad=BAD), spec={"num_samples": 300}, in_memory=in_memory)
    if in_memory == "always":  # the whole set was looked at
        assert booked(caplog) == dict.fromkeys(BAD, 1)
    for epoch in range(2):
        run(loader, epoch)
        times = 1 if in_memory == "always" else epoch + 1
        assert booked(caplog) == dict.fromkeys(BAD, times)
    assert len(loader.finish()) == (in_memory == "never")


def test_drawn_with_replacement_a_bad_record_is_booked_once_an_epoch(caplog):
    run(make(NumberedSource(SIZES, bad=BAD), resampled=True, spec={"num_samples": 2000}))
    assert booked(caplog) == dict.fromkeys(BAD, 1)


@pytest.mark.parametrize("how", ["source", "field", "build", "problem"])
@pytest.mark.parametrize(
    "options", [{}, {"in_memory": "always"}, {"workers": 2}], ids=["streamed", "kept", "workers"]
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_more_than_the_share_ends_the_run(how, options):
    def build(bad):
        if how == "problem":
            problems = {n: [BadRecord(f"x{n}", "is lost")] for n in range(bad)}
            return NumberedSource([10] * 10, problems=problems)
        return NumberedSource([100], bad={f"0/{n}": how for n in range(bad)})

    def start(bad):
        loader = make(build(bad), batch=10, spec={"max_bad_share": 0.05}, **options)
        try:
            return run(loader)
        finally:
            loader.close()

    assert len(start(5)) == 10
    with pytest.raises(UserError, match=r"6 of 10\d records are bad|6 of 100 records are bad"):
        start(6)


def test_a_share_is_taken_of_different_records():
    bad = {f"0/{n}": "build" for n in range(30)}
    spec = {"max_bad_share": 0.25, "num_samples": 400}
    with pytest.raises(UserError, match="of 100 records are bad"):
        run(make(NumberedSource([100], bad=bad), spec=spec))


def test_a_part_that_is_lost_ends_no_run_that_one_rank_alone_survives():
    problems = {0: [BadRecord("part-0", "cannot be opened", lost=10)]}

    def work(rank, exchange):
        source = NumberedSource([0, 100, 100], believed={0: 10}, problems=problems)
        spec = {"max_bad_share": 0.06}
        loader = make(source, rank=rank, world_size=4, exchange=exchange, spec=spec)
        for epoch in range(2):
            run(loader, epoch)
        return loader.finish()

    said = in_ranks(4, work)
    assert said == [["10 records could not be used in epoch 1: 10 x cannot be opened"]] * 4


@pytest.mark.parametrize(("share", "ends"), [(0.25, True), (0.4, False)])
def test_a_share_is_taken_of_the_ranks_own_records(share, ends):
    bad = {f"0/{n}": "build" for n in range(60)}
    spec = {"max_bad_share": share}

    def work(rank, exchange):
        source = NumberedSource([200], bad=bad)
        loader = make(source, rank=rank, world_size=2, exchange=exchange, spec=spec)
        loader.begin(0)
        try:
            return len(list(loader.epoch(0)))
        except UserError as error:
            return str(error)

    found = in_ranks(2, work)
    for one in found:
        assert "of 100 records are bad" in one if ends else one == 25


def test_records_in_a_row_that_cannot_be_used_end_the_run():
    loader = make(
        NumberedSource([20], bad={f"0/{n}": "build" for n in range(20)}),
        spec={"max_bad_share": 1.0},
    )
    with pytest.raises(UserError, match="1000 records in a row cannot be used; the last was 0/"):
        run(loader)


@pytest.mark.parametrize("options", [{}, {"in_memory": "always"}])
def test_half_of_the_records_being_bad_is_survived(options):
    bad = {f"0/{n}": "build" for n in range(0, 60, 2)}
    seen = keys(run(make(NumberedSource([60], bad=bad), **options)))
    assert len(seen) == 56
    assert not set(seen) & set(bad)
