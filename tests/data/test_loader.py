"""Order, resume, ranks and modes of the training loader."""

import itertools
import pickle

import pytest
import torch
from shard_files import record, write_csv, write_shard, write_shards

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.data.loader import InMemoryLoader, StreamingLoader, build_loader
from fastclip.data.old_sources import DataSpec
from fastclip.data.text.words import WordTokenizer
from fastclip.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

TOKENIZER = WordTokenizer(["caption", "number"], buckets=64, context_length=12)
AUGMENT = AugmentConfig(padding=1, hflip=0.5, brightness=0.2)
MODES = {
    "memory": dict(in_memory="always"),
    "stream of all shards": dict(in_memory="never", shards=5),
    "stream, 2 workers": dict(in_memory="never", shards=5, workers=2),
    "own shards, 2 workers": dict(in_memory="never", shards=24, workers=2),
    "own shards, 2 ranks": dict(in_memory="never", shards=24, world_size=2),
}


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    """Brace patterns of 96 records in 5 shards and in 24."""
    made = {}
    for sizes in ([30, 10, 25, 1, 30], [4] * 24):
        folder = tmp_path_factory.mktemp("shards")
        made[len(sizes)] = write_shards(folder, sizes)
    return made


def make(patterns, *, shards=5, in_memory="never", batch=8, augment=AUGMENT, **options):
    options = {"progress": False, "shuffle_buffer": 20, **options}
    return build_loader(
        DataSpec(patterns[shards]),
        image_size=8,
        tokenizer=TOKENIZER,
        batch_size_per_rank=batch,
        in_memory=in_memory,
        augment=augment,
        **options,
    )


def epoch(loader, number=0, start=0):
    """The micro-batches of an epoch; a batch is one of them unless a test says otherwise."""
    return list(itertools.chain.from_iterable(loader.epoch(number, start)))


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, b[name]), name
            else:
                assert value == b[name], name


def all_keys(batches):
    return [key for batch in batches for key in batch["key"]]


@pytest.mark.parametrize("mode", MODES)
def test_batches_have_the_promised_shapes_and_match_their_keys(patterns, mode):
    loader = make(patterns, **MODES[mode])
    batch = epoch(loader)[0]
    assert batch["image"].shape == (8, 3, 8, 8)
    assert batch["image"].dtype == torch.uint8
    assert batch["text"].shape == (8, 12)
    assert batch["text"].dtype == batch["label"].dtype == torch.int64
    numbers = [int(key.split("/")[1]) for key in batch["key"]]
    assert batch["caption"] == [f"caption number {n}" for n in numbers]
    assert batch["label"].tolist() == [n % 7 for n in numbers]
    assert torch.equal(batch["text"], TOKENIZER(batch["caption"]))


@pytest.mark.parametrize("mode", MODES)
def test_resuming_at_any_step_gives_the_same_batches(patterns, mode):
    loader = make(patterns, **MODES[mode])
    whole = epoch(loader, 1)
    assert len(whole) == loader.steps_per_epoch
    for start in (0, 1, 2, 5, loader.steps_per_epoch):
        same(epoch(make(patterns, **MODES[mode]), 1, start), whole[start:])


def test_resuming_is_exact_where_records_are_broken(tmp_path):
    broken = {3, 4, 5, 20, 21, 40}
    records = {f"{n:05d}": record(n, **({"png": b"no"} if n in broken else {})) for n in range(64)}
    patterns = {1: str(write_shard(tmp_path / "a.tar", records))}
    for workers in (0, 2):
        options = dict(shards=1, workers=workers)
        spec = DataSpec(patterns[1], max_bad_share=0.2)
        build = dict(image_size=8, tokenizer=TOKENIZER, batch_size_per_rank=8, in_memory="never")
        whole = epoch(build_loader(spec, workers=workers, shuffle_buffer=10, **build))
        keys = all_keys(whole)
        assert len(keys) == 64, options
        assert not {int(key.split("/")[1]) for key in keys} & broken
        for batch in whole:
            assert len(set(batch["key"])) == 8
        for start in (1, 4):
            again = build_loader(spec, workers=workers, shuffle_buffer=10, **build)
            same(epoch(again, 0, start), whole[start:])


@pytest.mark.parametrize("mode", MODES)
def test_an_epoch_shows_every_sample_once_and_epochs_differ(patterns, mode):
    options = {**MODES[mode], "world_size": 1}
    loader = make(patterns, **options)
    first, second = all_keys(epoch(loader, 0)), all_keys(epoch(loader, 1))
    assert len(set(first)) == len(first) == 96
    assert set(first) == set(second)
    assert first != second
    assert first != sorted(first)
    assert first == all_keys(epoch(make(patterns, **options), 0))
    assert first != all_keys(epoch(make(patterns, seed=1, **options), 0))


@pytest.mark.parametrize("mode", MODES)
def test_ranks_share_an_epoch_without_overlap_in_equal_steps(patterns, mode):
    options = {**MODES[mode], "world_size": 3, "batch": 6}
    loaders = [make(patterns, rank=rank, **options) for rank in range(3)]
    assert {loader.steps_per_epoch for loader in loaders} == {96 // 18}
    seen = [all_keys(epoch(loader)) for loader in loaders]
    assert [len(keys) for keys in seen] == [30] * 3
    for one, other in itertools.combinations(seen, 2):
        assert not set(one) & set(other)


def test_in_memory_the_global_batch_is_the_same_on_any_number_of_ranks(patterns):
    alone = epoch(make(patterns, in_memory="always", batch=12))
    ranks = [
        epoch(make(patterns, in_memory="always", batch=4, rank=rank, world_size=3))
        for rank in range(3)
    ]
    for step, batch in enumerate(alone):
        assert batch["key"] == [key for rank in ranks for key in rank[step]["key"]]


def test_one_stream_gives_the_same_batches_to_any_number_of_workers(patterns):
    whole = epoch(make(patterns, workers=0))
    same(epoch(make(patterns, workers=1)), whole)
    same(epoch(make(patterns, workers=3)), whole)


def test_a_rank_that_falls_short_goes_round_its_own_samples(patterns, tmp_path):
    uneven = {24: write_shards(tmp_path, [2] * 12 + [6] * 12)}
    options = dict(shards=24, world_size=2, batch=8)
    distinct = []
    for number in range(4):
        seen = [all_keys(epoch(make(uneven, rank=rank, **options), number)) for rank in range(2)]
        assert [len(keys) for keys in seen] == [48, 48]
        assert not set(seen[0]) & set(seen[1])
        distinct += [len(set(keys)) for keys in seen]
    assert min(distinct) < 48

    for in_memory in ("always", "never"):
        loader = build_loader(
            DataSpec(patterns[5], num_samples=200),
            image_size=8,
            tokenizer=TOKENIZER,
            batch_size_per_rank=20,
            in_memory=in_memory,
            progress=False,
        )
        keys = all_keys(epoch(loader))
        assert (len(keys), len(set(keys))) == (200, 96)


@pytest.mark.parametrize("in_memory", ["always", "never"])
def test_fewer_samples_than_a_global_batch_are_refused(patterns, in_memory):
    with pytest.raises(UserError, match="96 usable samples, fewer than one global batch of 100"):
        make(patterns, in_memory=in_memory, batch=50, world_size=2)


def test_a_stream_of_unknown_length_asks_for_its_length(patterns):
    data = f"pipe:cat {patterns[5].replace('{00..04}', '00')}"
    options = dict(image_size=8, tokenizer=TOKENIZER, batch_size_per_rank=8)
    with pytest.raises(UserError, match="give --train-num-samples"):
        build_loader(DataSpec(data), **options)
    loader = build_loader(DataSpec(data, num_samples=30), **options)
    keys = all_keys(epoch(loader))
    assert (len(keys), len(set(keys))) == (24, 24)


def test_auto_keeps_what_fits_in_memory(patterns, monkeypatch):
    needed = 96 * 3 * 8 * 8
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for limit, kind in ((needed, InMemoryLoader), (needed - 1, StreamingLoader)):
        assert isinstance(make(patterns, in_memory="auto", memory_limit=limit), kind)
    for copies, kind in (("1", InMemoryLoader), ("2", StreamingLoader)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", copies)
        assert isinstance(make(patterns, in_memory="auto", memory_limit=needed), kind)


@pytest.mark.parametrize("mode", ["memory", "stream of all shards", "own shards, 2 workers"])
def test_an_epoch_leaves_torchs_own_generator_alone(patterns, mode):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    epoch(make(patterns, **MODES[mode]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["memory", "stream of all shards"])
def test_without_augmentation_pictures_are_the_same_in_every_epoch(patterns, mode):
    options = {**MODES[mode], "augment": None}
    loader = make(patterns, **options)

    def pictures(number):
        return {
            key: picture
            for batch in epoch(loader, number)
            for key, picture in zip(batch["key"], batch["image"], strict=True)
        }

    first, second = pictures(0), pictures(1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    loader = make(patterns, **{**options, "augment": AUGMENT})
    first, second = pictures(0), pictures(1)
    changed = [not torch.equal(first[key], second[key]) for key in first]
    assert sum(changed) > 80


def test_both_modes_give_the_same_pictures_for_the_same_records(patterns):
    shown = []
    for in_memory in ("always", "never"):
        batches = epoch(make(patterns, in_memory=in_memory, augment=None))
        shown.append({k: p for b in batches for k, p in zip(b["key"], b["image"], strict=True)})
    assert shown[0].keys() == shown[1].keys()
    assert all(torch.equal(shown[0][key], shown[1][key]) for key in shown[0])


def test_a_csv_is_streamed_and_kept_like_shards(tmp_path):
    data = {"csv": str(write_csv(tmp_path, 200))}
    for options in (dict(in_memory="always"), dict(workers=0), dict(workers=2)):
        whole = epoch(make(data, shards="csv", **options))
        keys = all_keys(whole)
        assert len(set(keys)) == len(keys) == 200
        assert "label" not in whole[0]
        same(epoch(make(data, shards="csv", **options), 0, 3), whole[3:])


def test_the_streaming_data_set_can_be_sent_to_a_fresh_process(patterns):
    batches = make(patterns, workers=0).batches
    copy = pickle.loads(pickle.dumps(batches))
    for one, other in zip(copy, batches, strict=True):
        same(one["micro_batches"], other["micro_batches"])


def test_many_workers_and_few_steps(patterns):
    keys = all_keys(epoch(make(patterns, batch=48, workers=4)))
    assert len(set(keys)) == len(keys) == 96


@pytest.mark.parametrize("mode", ["memory", "stream of all shards"])
def test_micro_batches_draw_by_their_place_in_the_global_batch(patterns, mode):
    options = {**MODES[mode], "micro_batch_size": 2}
    whole = list(make(patterns, **options).epoch(0))
    assert [len(batch) for batch in whole] == [4] * 12
    if mode == "memory":  # streamed, ranks share out records in another order than one rank alone
        ranks = [make(patterns, rank=r, world_size=2, **{**options, "batch": 4}) for r in range(2)]
        for step, parts in enumerate(zip(*(loader.epoch(0) for loader in ranks), strict=True)):
            same([*parts[0], *parts[1]], whole[step])
    flat = [picture for batch in whole for part in batch for picture in part["image"]]
    first = [batch["image"] for batch in epoch(make(patterns, **MODES[mode]))]
    assert not torch.equal(torch.stack(flat), torch.cat(first))
    same(epoch(make(patterns, **options), 0, 3), [part for batch in whole[3:] for part in batch])


def test_records_drawn_with_replacement_come_more_than_once(patterns):
    for mode in ("memory", "own shards, 2 workers"):
        loader = make(patterns, resampled=True, **MODES[mode])
        keys = all_keys(epoch(loader))
        assert len(keys) == 96
        assert len(set(keys)) < 90
        assert keys == all_keys(epoch(make(patterns, resampled=True, **MODES[mode])))
        assert keys != all_keys(epoch(loader, 1))


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({}, {"captions": CaptionConfig(distinct=True)}, "--captions.distinct and --dataset-res"),
        (
            {},
            {"sampler": object()},
            "--objective x chooses its records itself: leave out --dataset",
        ),
        (
            {"num_samples": 8},
            {"sampler": object(), "resampled": False},
            "--objective x chooses its records itself: leave out --train-num-samples",
        ),
        (
            {},
            {"sampler": object(), "resampled": False, "captions": CaptionConfig(distinct=True)},
            "--objective x chooses its records itself: leave out --captions.distinct",
        ),
    ],
)
def test_one_setting_alone_chooses_the_records(patterns, spec, options, words):
    options = {"resampled": True, "in_memory": "always", "wanted_by": "--objective x", **options}
    with pytest.raises(UserError, match=words):
        build_loader(
            DataSpec(patterns[5], **spec),
            image_size=8,
            tokenizer=TOKENIZER,
            batch_size_per_rank=8,
            progress=False,
            **options,
        )


def test_samplers_and_labels_of_the_set_need_it_in_memory(patterns):
    for options, words in (
        ({"sampler": object()}, "--objective x chooses its records itself, which needs the data"),
        ({"in_set_order": True}, "--objective x makes labels of the set, which needs the data"),
    ):
        for where in ({"in_memory": "never"}, {"in_memory": "auto", "memory_limit": 1}):
            with pytest.raises(UserError, match=words):
                make(patterns, wanted_by="--objective x", **{**options, **where})
