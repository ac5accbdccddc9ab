import pytest

from fastclip.data.bad_records import BadRecord
from fastclip.data.captions import CaptionConfig
from fastclip.data.fields import CAPTION, CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT
from fastclip.data.fields.held import check_held, check_tags
from fastclip.data.sources.base import ForwardSource, Part, Record, Size, Source
from fastclip.errors import UserError

ALL = (CAPTION, CAPTIONS, ID, LABEL, LABELS, PICTURE, TAGS, TEXT)
TAGGED = CaptionConfig(tags=0.25)


class Held(Source):
    """Parts of records as they are given, that say how many were opened and closed."""

    def __init__(self, parts, holds=None):
        self.parts, self.holds, self.name = parts, holds, "some.tar"
        self.reads = self.opened = self.closed = 0

    num_parts = property(lambda self: len(self.parts))
    part_name = identity = None

    def size(self, part):
        return Size(len(self.parts[part]))

    def open(self, part):
        self.opened += 1
        source, records = self, self.parts[part]

        class Opened(Part):
            def __len__(self):
                return len(records)

            def read(self, number):
                source.reads += 1
                return records[number]

            def close(self):
                source.closed += 1

        return Opened()


class Stream(ForwardSource):
    num_parts = 1
    part_name = expected = identity = None

    def __init__(self, records):
        self.records, self.holds, self.name, self.closed = records, None, "pipe:cat", False

    def stream(self, part):
        try:
            yield from self.records
        finally:
            self.closed = True


def records(*values):
    return [Record(str(number), raw) for number, raw in enumerate(values)]


@pytest.mark.parametrize("field", ALL)
def test_every_field_is_read_from_what_it_says(field):
    for value in field.values:
        check_held(Held([], frozenset({value})), [field], "a test")
    check_held(Held([], None), [field], "a test")


@pytest.mark.parametrize(
    "field, needs",
    [
        (LABEL, "a label, which is read from a .cls member, a label column or folders of classes"),
        (TAGS, "tags, which are read from a list `tags` in a .json member or a tags column"),
    ],
)
def test_a_source_that_lacks_a_field_is_refused(field, needs):
    source = Held([], frozenset({"picture", "caption"}))
    with pytest.raises(UserError) as refused:
        check_held(source, [PICTURE, field], "--objective x")
    assert str(refused.value) == (
        f"some.tar holds caption and picture of each record; --objective x needs {needs}"
    )


def test_the_key_of_a_record_is_an_id_for_every_source():
    check_held(Held([], frozenset({"picture"})), [ID], "a test")


@pytest.mark.parametrize("holds", [{"picture", "caption"}, {"label"}, set()])
def test_a_source_that_cannot_have_tags_is_refused_where_captions_want_them(holds):
    source = Held([], frozenset(holds))
    check_tags(source, CaptionConfig())
    with pytest.raises(UserError, match="some.tar holds .*; captions.tags is 0.25.* `tags`"):
        check_tags(source, TAGGED)
    assert source.opened == 0


@pytest.mark.parametrize("holds", [None, frozenset({"caption", "json"}), frozenset({"tags"})])
@pytest.mark.parametrize(
    "raw", [{}, {"json": b"{}"}, {"json": b'{"tags": []}'}, {"tags": ()}], ids=repr
)
def test_a_source_whose_records_all_lack_tags_is_refused(raw, holds):
    source = Held([records(raw), [], records(raw, raw)], holds)
    with pytest.raises(UserError, match="first 3 records of some.tar none has tags; captions.tags"):
        check_tags(source, TAGGED)
    assert source.opened == source.closed == 3


def test_no_more_is_read_than_up_to_the_first_record_with_tags():
    bad = [BadRecord("bad", "no picture"), *records({"json": b"{"})]
    source = Held([[*bad, *records({}, {"tags": ["a"]}, {})], records({})])
    check_tags(source, TAGGED)
    assert (source.reads, source.opened, source.closed) == (4, 1, 1)


def test_records_that_are_all_bad_are_left_to_the_book():
    check_tags(Held([[BadRecord("bad", "no picture"), *records({"json": b"{"})]]), TAGGED)


def test_only_so_many_records_are_looked_at():
    source = Held([records(*[{}] * 700)] * 3)
    with pytest.raises(UserError, match="first 1000 records"):
        check_tags(source, TAGGED)
    assert source.closed == 2


def test_streams_are_looked_at_and_closed():
    source = Stream(records({}, {"tags": ["a"]}, {}))
    check_tags(source, TAGGED)
    assert source.closed
    with pytest.raises(UserError, match="first 1 records of pipe:cat"):
        check_tags(Stream(records({})), TAGGED)
