"""A folder that holds an annotation file is not taken for folders of classes."""

import json

import layouts
import pytest

from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError


def layout_of(path, **more):
    [(_, found)] = layouts_of(DataSpec(str(path), **more))
    return found.name


@pytest.mark.parametrize("name", ["coco", "karpathy", "lavis", "visual_genome", "flickr"])
def test_the_annotation_file_is_named(tmp_path, name):
    made = getattr(layouts, name)(tmp_path / "set")
    with pytest.raises(UserError) as error:
        layout_of(tmp_path / "set")
    found = made.path.removeprefix(f"{tmp_path}/set/")
    assert (
        f"{tmp_path}/set holds {found}, a file of the layout {layout_of(made.path)}: name "
        in str(error.value)
    )
    assert layout_of(tmp_path / "set", dataset_type="image-folder") == "image-folder"


def test_of_a_split(tmp_path):
    layouts.write_pictures(tmp_path / "train")
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"holds train/_annotations.coco.json, a file of the"):
        layout_of(tmp_path)


@pytest.mark.parametrize("beside", ["sizes.json", "notes.txt", "labels.csv", ".hidden.json"])
def test_other_files_beside_pictures_are_none(tmp_path, beside):
    layouts.write_pictures(tmp_path / "cat")
    content = '[{"image": "a", "caption": "b"}]' if beside.startswith(".") else '{"a": 1}'
    (tmp_path / beside).write_text(content)
    assert layout_of(tmp_path) == "image-folder"


def test_a_table_goes_before_annotations(tmp_path):
    layouts.write_pictures(tmp_path)
    (tmp_path / "train.json").write_text('[{"image": "a", "caption": "b"}]')
    (tmp_path / "metadata.csv").write_text("file_name,text\n000.jpg,one\n")
    assert layout_of(tmp_path) == "image-folder"
