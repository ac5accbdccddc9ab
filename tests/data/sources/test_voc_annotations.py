"""Annotations of VOC that cannot be used, hostile ones among them."""

import pytest
from source_checks import bad, good, open_with
from voc_writing import annotation, write_voc

from fastclip.data.sources import voc

NOT_XML, OTHER_FORM = "annotation is not valid XML", "annotation is of another form"


DOCTYPE = "annotation has a DOCTYPE"


BOMB = (
    '<!DOCTYPE a [<!ENTITY a "dog"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<annotation><object><name>&b;</name></object></annotation>"
)


OUTSIDE = (
    '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<annotation><object><name>&a;</name></object></annotation>"
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", NOT_XML),
        ("<annotation>", NOT_XML),
        (b"\xff\xfe\x00", NOT_XML),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', NOT_XML),
        (
            "<annotation><object><name>&a;</name></object></annotation>",
            NOT_XML,
        ),
        ("<html/>", OTHER_FORM),
        ("<annotation><object/></annotation>", OTHER_FORM),
        (
            "<annotation><object><name> </name></object></annotation>",
            OTHER_FORM,
        ),
        (BOMB, DOCTYPE),
        (BOMB.encode("utf-16"), DOCTYPE),
        (OUTSIDE, DOCTYPE),
        ("<!DOCTYPE annotation><annotation/>", DOCTYPE),
        (annotation() + " " * (4 << 20), "annotation is too large"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_bad(tmp_path, text, reason):
    write_voc(tmp_path, {"1": text, "2": annotation(("dog", 0))})
    source = open_with(voc, tmp_path)
    assert list(good(source)) == ["2"]
    assert [record.reason for record in bad(source)] == [reason]
