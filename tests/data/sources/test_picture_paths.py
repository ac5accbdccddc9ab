import pytest
from annotation_files import write_pictures

from fastclip.data.sources.picture_paths import bad_name, find_pictures
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.texts import Texts
from fastclip.errors import UserError


def texts(*names):
    found = Texts()
    for name in names:
        found.append(name)
    return found


def test_every_folder_that_has_some_is_used(tmp_path):
    write_pictures(tmp_path, ["one/a.jpg", "two/b.jpg", "two/a.jpg"])
    spec = DataSpec(str(tmp_path / "x.json"))
    paths = find_pictures(spec, texts("a.jpg", "b.jpg"), ("one", "two", "three"))
    assert paths.path("a.jpg") == tmp_path / "one" / "a.jpg"
    assert paths.path("b.jpg") == tmp_path / "two" / "b.jpg"
    assert paths.path("c.jpg") == tmp_path / "one" / "c.jpg"


def test_some_of_many_are_enough(tmp_path):
    write_pictures(tmp_path, ["0.jpg"])
    names = texts(*(f"{n}.jpg" for n in range(1000)))
    assert find_pictures(DataSpec(str(tmp_path / "x.json")), names).path("9.jpg").parent == tmp_path


def test_absolute_paths_are_taken_as_they_are(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    name = str(tmp_path / "a.jpg")
    assert find_pictures(DataSpec("x.json"), texts(name)).path(name) == tmp_path / "a.jpg"


@pytest.mark.parametrize("first", [True, False])
def test_the_working_directory_comes_first_or_last(tmp_path, monkeypatch, first):
    write_pictures(tmp_path, ["here/a.jpg", "beside/a.jpg"])
    monkeypatch.chdir(tmp_path / "here")
    paths = find_pictures(DataSpec("../beside/x.csv"), texts("a.jpg"), from_working_directory=first)
    assert paths.path("a.jpg").resolve().parent.name == ("here" if first else "beside")


def test_pictures_that_are_nowhere_are_told_unless_they_are_not_wanted(tmp_path):
    spec, names = DataSpec(str(tmp_path / "x.json")), texts("", "a.jpg")
    with pytest.raises(UserError, match="none of 1, the first 'a.jpg', lies in .*--image-root"):
        find_pictures(spec, names)
    find_pictures(spec, names, are_wanted=False)
    find_pictures(spec, texts())
    find_pictures(spec, texts(""))


@pytest.mark.parametrize("name", [None, 3, "", " ", "a\0", "\ud800", ["a"]])
def test_names_that_no_file_can_have(name):
    assert bad_name(name)
    assert not bad_name("a b/é.jpg")
    assert not bad_name("x" * 5000)


def test_names_too_long_for_the_file_system_are_not_there(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    names = texts("a.jpg", "x" * 5000)
    paths = find_pictures(DataSpec(str(tmp_path / "x.json")), names, (".",))
    assert paths.path("x" * 5000)
