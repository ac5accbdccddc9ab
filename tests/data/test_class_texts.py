"""What is said of classes, and where."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import write_shards
from source_checks import Asked, write_pictures
from stand_in_layouts import stand_in

from fastclip.data.class_texts import class_texts_of
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    return stand_in(monkeypatch)


def texts_of(path, *fields, **settings):
    spec = DataSpec(str(path), **settings)
    return class_texts_of(open_source(spec, [Asked(name) for name in fields]), spec)


def test_a_file_beside_the_shards(tmp_path):
    shards = write_shards(tmp_path, [1, 1])
    assert texts_of(shards) == {}
    said = {"classes": ["a", "b"], "prompts": ["a {}."], "captions": [["x"], ["y", "z"]]}
    (tmp_path / "classes.json").write_text(json.dumps({**said, "held_out": [1]}))
    assert texts_of(shards) == said
    assert texts_of(f"{tmp_path}/s-00.tar::{tmp_path}/s-01.tar", upsampling="1::2") == said
    assert texts_of("pipe:cat a") == {}


def test_names_that_a_source_knows(tmp_path):
    write_pictures(tmp_path, "set/bee/1.png", "set/ant/1.png")
    (tmp_path / "set" / "classes.json").write_text("of another program")
    assert texts_of(tmp_path / "set") == {"classes": ["ant", "bee"]}
    stored = {"label": {"_type": "ClassLabel", "names": ["x", "y"]}}
    table = pa.table({"png": [b"x"], "label": [1]}).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": stored}})}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert texts_of(tmp_path / "a.parquet", "label") == {"classes": ["x", "y"]}


def test_layouts_without_classes(tmp_path):
    (tmp_path / "pairs.csv").write_text("x")
    (tmp_path / "classes.json").write_text("of another program")
    assert texts_of(tmp_path / "pairs.csv") == {}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"prompts": []}, "prompts is not a list of templates such as 'a photo of a {}.'"),
        ({"prompts": "{}"}, "prompts is not a list"),
        ({"prompts": [1]}, "prompts is not a list"),
        ({"prompts": ["a {}", "a photo"]}, "prompts is not a list"),
        ({"captions": [["a"]]}, "captions is not a list of texts for each of the 2 classes"),
        ({"classes": 5}, "classes is not a list of names"),
        ({"classes": [1, 2]}, "classes is not a list of names"),
        ({"classes": []}, "classes is not a list of names"),
        ({"classes": None, "captions": [["a"]]}, "captions is not a list of texts for each of"),
        ({"captions": [["a"], []]}, "captions is not a list"),
        ({"captions": ["a", "b"]}, "captions is not a list"),
    ],
)
def test_texts_of_another_form_are_refused(tmp_path, texts, words):
    shards = write_shards(tmp_path, [1])
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["a", "b"], **texts}))
    with pytest.raises(UserError, match=re.escape(words)):
        texts_of(shards)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 99_999, "is not valid JSON"),
        (b"[]", "holds list, expected an object"),
    ],
)
def test_a_file_that_is_no_object_is_refused(tmp_path, content, words):
    shards = write_shards(tmp_path, [1])
    (tmp_path / "classes.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        texts_of(shards)
    assert "\n" not in str(error.value)


def test_texts_that_are_null_are_absent(tmp_path):
    shards = write_shards(tmp_path, [1])
    (tmp_path / "classes.json").write_text('{"classes": null, "prompts": null, "captions": null}')
    assert texts_of(shards) == {}
