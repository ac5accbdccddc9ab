"""Which split is read where none is named, of every layout that has splits."""

import json

import pytest
from parquet_writing import write_parquet
from source_checks import good, write_pictures
from voc_writing import annotation, write_voc

from fastclip.data.fields import PICTURE
from fastclip.data.packing.pack import PackOptions, pack
from fastclip.data.sources.mixed import mix
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

ROLES = {
    "--train-data": "train",
    "--val-data a": "val",
    "--imagenet-val": "val",
    "the data": "train",
}


def karpathy(folder, splits):
    images = [
        {"filename": f"{split}-{n}.jpg", "split": split, "sentences": [{"raw": "a"}]}
        for split, count in splits.items()
        for n in range(count)
    ]
    write_pictures(folder, *(image["filename"] for image in images))
    path = folder / "dataset.json"
    path.write_text(json.dumps({"images": images}))
    return path


def classes(folder, splits):
    names = (
        f"{split}/ant/{split}-{n}.png" for split, count in splits.items() for n in range(count)
    )
    write_pictures(folder, *names)
    (folder / "notes" / "empty").mkdir(parents=True)
    return folder


def tables(folder, splits):
    for split, count in splits.items():
        names = [f"{split}-{n}.png" for n in range(count)]
        write_pictures(folder / split, *names)
        rows = "".join(f"{name},one\n" for name in names)
        (folder / split / "metadata.csv").write_text(f"file_name,text\n{rows}")
    return folder


def voc(folder, splits):
    lists = {split: [f"{split}-{n}" for n in range(count)] for split, count in splits.items()}
    lists = {split: "".join(f"{stem}\n" for stem in stems) for split, stems in lists.items()}
    stems = "".join(lists.values()).split()
    pictures = [f"{stem}.jpg" for stem in stems]
    texts = {stem: annotation(("dog", 0)) for stem in stems}
    write_voc(folder, texts, pictures=pictures, splits={**lists, f"dog_{next(iter(splits))}": "x"})
    return folder


def parquet(folder, splits):
    for split, count in splits.items():
        path = folder / f"{split}-00000-of-00001.parquet"
        write_parquet(path, {"png": [b"x"] * count, "text": ["a"] * count})
    return folder


def parquet_pattern(folder, splits):
    return f"{parquet(folder, splits)}/*.parquet"


LAYOUTS = (karpathy, classes, tables, voc, parquet, parquet_pattern)


def opened(path, role="--train-data", **settings):
    return open_source(DataSpec(str(path), **settings), [PICTURE], role=role)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("role", ROLES)
def test_training_and_validation_take_their_own_and_say_so(tmp_path, layout, role):
    path = layout(tmp_path, {"train": 3, "val": 2, "test": 1})
    source = opened(path, role)
    (choice,) = source.split_choices
    assert choice.taken == ROLES[role]
    assert len(good(source)) == {"train": 3, "val": 2}[choice.taken]
    (note,) = choice.notes()
    assert note.startswith(f"{path} has the splits ")
    assert all(count in note for count in ("train (3)", "val (2)", "test (1)"))
    assert f"{choice.taken} is read, {6 - len(good(source))} of 6 " in note
    everything = opened(path, role, split="all")
    assert len(good(everything)) == 6
    assert [c.notes() for c in everything.split_choices] == [[]]
    assert "all 6 " in everything.split_choices[0].sentence()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("role", "said"), [("--train-data", "train: .* by --train-split"), ("--val-data", "val: .* by")]
)
def test_of_several_splits_none_is_guessed(tmp_path, layout, role, said):
    path = layout(tmp_path, {"test": 1, "testing": 2})
    with pytest.raises(UserError, match=f"the splits test.* and test.*, of which .* called {said}"):
        opened(path, role)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_split_alone_is_read_and_named(tmp_path, layout):
    source = opened(layout(tmp_path, {"test": 2}))
    assert len(good(source)) == 2
    assert "the split test (2): test is read, 0 of 2" in source.split_choices[0].notes()[0]


def test_a_split_that_was_named_needs_no_note(tmp_path):
    source = opened(karpathy(tmp_path, {"train": 1, "val": 2}), split="val")
    assert [choice.notes() for choice in source.split_choices] == [[]]


def test_a_table_at_the_root_says_what_is_read(tmp_path):
    classes(tmp_path, {"train": 1, "val": 1})
    (tmp_path / "metadata.csv").write_text(
        "file_name,text\ntrain/ant/train-0.png,one\nval/ant/val-0.png,two\n"
    )
    source = opened(tmp_path)
    assert len(good(source)) == 2 and not source.split_choices


def test_a_mixture_has_the_choices_of_all(tmp_path):
    paths = [karpathy(tmp_path / name, {"train": 1, "val": 2}) for name in "ab"]
    source = opened("::".join(map(str, paths)))
    assert [choice.path for choice in source.split_choices] == list(map(str, paths))
    assert len(mix("a", [source]).split_choices) == 2


def test_pack_takes_what_training_takes_and_says_so(tmp_path):
    path = karpathy(tmp_path / "set", {"train": 3, "val": 2})
    packed = pack(DataSpec(str(path)), tmp_path / "out", PackOptions(), progress=False)
    assert packed.records == {"train": 3}
    assert "train is read, 2 of 5 pictures are left out; --split names another" in packed.report()
