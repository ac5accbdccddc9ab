"""Orders that a sampler chooses, batches without two records alike, and what is refused."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from numbered import LABEL, NUMBER, TAGS, NumberedSource, in_ranks, joined, keys, make, run

from fastclip.data.captions import CaptionConfig
from fastclip.data.order import separate_groups
from fastclip.data.seeding import torch_generator
from fastclip.data.sources.base import CroppedPicture
from fastclip.errors import UserError

DISTINCT = {"captions": CaptionConfig(distinct=True)}


class EveryThird:
    """Shows every third record twice, with ten times its row beside it."""

    def samples_an_epoch(self, index):
        return 2 * len(range(0, len(index), 3))

    def epoch(self, index, seed, epoch):
        rows = torch.arange(0, len(index), 3).repeat(2)
        rows = rows[torch.randperm(len(rows), generator=torch_generator(seed, epoch))]
        return rows, rows * 10


class OneTag:
    """Shows the records of one tag, without anything beside them."""

    def samples_an_epoch(self, index):
        return sum("b" in tags for tags in index.tags)

    def epoch(self, index, seed, epoch):
        rows = [row for row, tags in enumerate(index.tags) if "b" in tags]
        assert (index.labels[rows] == 1).all()
        return torch.tensor(rows), None


def test_a_sampler_chooses_the_records_and_what_goes_with_them():
    source = NumberedSource([20, 0, 28], bad={"0/0": "field", "2/5": "source"})
    options = dict(sampler=EveryThird(), in_memory="always", batch=4)
    loader = make(source, micro_batch_size=3, **options)
    assert (loader.num_samples, loader.steps_per_epoch) == (32, 8)
    steps = run(loader)
    seen = joined(steps)
    good = [
        key for part, size in ((0, 20), (2, 28)) for key in (f"{part}/{n}" for n in range(size))
    ]
    good = [key for key in good if key not in source.bad]
    assert Counter(keys(steps)) == dict.fromkeys(good[::3], 2)
    for step in seen:
        assert step["extra"] == [10 * good.index(key) for key in step["key"]]
    assert joined(run(loader, 1)) != seen
    assert [len(m["extra"]) for m in steps[0]] == [3, 1]
    again = make(source, **options)
    again.begin(0)
    assert joined(again.epoch(0, 5)) == seen[5:]

    def work(rank, exchange):
        return joined(run(make(source, rank=rank, world_size=2, exchange=exchange, **options)))

    for whole, *ranks in zip(seen, *in_ranks(2, work), strict=True):
        assert {name: ranks[0][name] + ranks[1][name] for name in whole} == whole


def test_a_sampler_may_go_by_tags_and_labels():
    def facts(part, number):
        return {"tags": ["a", "b"] if number % 2 else ["a"], "label": number % 2}

    source = NumberedSource([16, 16], values=facts)
    loader = make(source, fields=(NUMBER, TAGS, LABEL), sampler=OneTag(), in_memory="always")
    steps = run(loader)
    assert len(steps) == 2
    assert all(int(key.split("/")[1]) % 2 for key in keys(steps))
    assert "extra" not in steps[0][0]


def test_a_sampler_that_keeps_no_word_is_no_hang():
    sampler = EveryThird()
    sampler.samples_an_epoch = lambda index: 1000
    loader = make(NumberedSource([40]), sampler=sampler, in_memory="always")
    loader.begin(0)
    with pytest.raises(ValueError, match="chose 28 records, announced 1000"):
        next(loader.epoch(0))


def alike(kind, folder):
    """Values of records 0 to 79 of which each has a like one."""

    def values(part, number):
        other = {"caption": f"caption {number}", "picture": b"%d" % number}
        twin = number % 40
        if kind == "caption":
            return {**other, "caption": f"caption {twin}"}
        if kind == "spaces and capitals":
            said = f" Caption  {twin}\n" if number == twin else f"caption {twin}".encode()
            return {**other, "caption": said}
        if kind == "captions":
            return {"picture": other["picture"], "captions": [f"own {number}", f"shared {twin}"]}
        if kind == "picture":
            return {**other, "picture": b"%d" % twin}
        if kind == "region":
            box = (twin, 0, 5, 5)
            return {**other, "picture": CroppedPicture(b"all", box)}
        path = folder / str(twin if kind == "file" else number)
        path.write_bytes(b"%d" % twin)
        return {**other, "picture": Path(path)}

    return values


@pytest.mark.parametrize(
    "kind",
    ["caption", "spaces and capitals", "captions", "picture", "region", "file", "copied file"],
)
def test_no_batch_holds_two_records_alike(kind, tmp_path):
    source = NumberedSource([80], values=alike(kind, tmp_path))
    loader = make(source, batch=16, reading=DISTINCT, in_memory="always")
    for epoch in range(3):
        steps = run(loader, epoch)
        assert len(steps) == 5
        for step in joined(steps):
            assert len({number % 40 for number in step["number"]}) == 16
    loader = make(source, batch=16, reading=DISTINCT, in_memory="always", spec={"num_samples": 320})
    seen = Counter(keys(run(loader)))
    assert seen.total() == 320
    assert len(seen) == 80


def test_passes_are_made_when_they_are_reached(tmp_path, monkeypatch):
    made = []

    def counted(order, groups, batch):
        made.append(order)
        return separate_groups(order, groups, batch)

    monkeypatch.setattr("fastclip.data.loaders.chosen.separate_groups", counted)
    source = NumberedSource([80], values=alike("caption", tmp_path))
    spec = {"num_samples": 16 * 10**15}
    loader = make(source, batch=16, reading=DISTINCT, in_memory="always", spec=spec)
    loader.begin(0)
    steps = list(itertools.islice(loader.epoch(0), 12))
    assert len(made) == 3
    assert joined(itertools.islice(loader.epoch(0, 7), 5)) == joined(steps[7:])
    again = make(source, batch=16, reading=DISTINCT, in_memory="always", spec=spec)
    again.begin(0)
    assert joined(itertools.islice(again.epoch(0, 7), 5)) == joined(steps[7:])


def test_without_the_flag_two_records_alike_do_meet(tmp_path):
    loader = make(NumberedSource([80], values=alike("caption", tmp_path)), batch=16)
    assert any(len({n % 40 for n in step["number"]}) < 16 for step in joined(run(loader)))


def test_two_kinds_of_likeness_are_both_kept_apart():
    def values(part, number):
        return {"caption": f"{number % 30}", "picture": b"%d" % (number // 2)}

    loader = make(NumberedSource([60], values=values), reading=DISTINCT, in_memory="always")
    for step in joined(run(loader)):
        assert len({number % 30 for number in step["number"]}) == 8
        assert len({number // 2 for number in step["number"]}) == 8


@pytest.mark.parametrize("kind", ["caption", "picture"])
def test_fewer_different_ones_than_a_batch_are_refused(kind):
    def values(part, number):
        few = {"caption": f"{number % 7}", "picture": b"%d" % number}
        return (
            few if kind == "caption" else {"caption": f"{number}", "picture": b"%d" % (number % 7)}
        )

    source = NumberedSource([80], values=values)
    with pytest.raises(UserError, match=f"wants 8 different {kind}s a batch, found 7: lower --tr"):
        make(source, reading=DISTINCT, in_memory="always")


def test_records_that_cannot_be_told_apart_are_no_hang():
    def values(part, number):
        own = min(number, 15)
        return {"captions": ["shared", f"{number}"], "picture": b"%d" % own}

    loader = make(NumberedSource([40], values=values), reading=DISTINCT, in_memory="always")
    loader.begin(0)
    with pytest.raises(UserError, match="holds no 8 records of which no two share a caption or"):
        next(loader.epoch(0))


@pytest.mark.parametrize(
    "where", [{"in_memory": "never"}, {"in_memory": "auto", "memory_limit": 1}]
)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"sampler": object()},
            "--objective x chooses its records itself, which needs the data in",
        ),
        ({"in_set_order": True}, "--objective x makes labels of the set, which needs the data in"),
        (
            {"reading": DISTINCT},
            "--captions.distinct needs the data in memory: give --in-memory al",
        ),
    ],
)
def test_what_knows_the_records_needs_them_in_memory(where, options, words):
    with pytest.raises(UserError, match=words):
        make(NumberedSource([40]), wanted_by="--objective x", **where, **options)


@pytest.mark.parametrize(
    ("options", "weights", "words"),
    [
        ({"reading": DISTINCT, "resampled": True}, None, "--captions.distinct and --dataset-resam"),
        ({"reading": DISTINCT}, [2.0], "--captions.distinct and --train-data-upsampling-factors c"),
        ({"sampler": object(), "resampled": True}, None, "itself: leave out --dataset-resampled"),
        ({"sampler": object(), "reading": DISTINCT}, None, "leave out --captions.distinct"),
        (
            {"sampler": object(), "spec": {"num_samples": 8}},
            None,
            "--objective x chooses its records itself: leave out --train-num-samples",
        ),
        ({"sampler": object()}, [2.0], "leave out --train-data-upsampling-factors"),
    ],
)
def test_one_setting_alone_chooses_the_records(options, weights, words):
    options = {"in_memory": "always", "wanted_by": "--objective x", **options}
    with pytest.raises(UserError, match=words):
        make(NumberedSource([40], weights=weights), **options)


def test_records_that_nothing_can_tell_apart_by_are_all_different():
    loader = make(NumberedSource([16]), reading=DISTINCT, in_memory="always")
    assert len(set(keys(run(loader)))) == 16
