import pytest

from fastclip.data.captions import mirrored


@pytest.mark.parametrize(
    "text, expected",
    [
        ("left", "right"),
        ("the LEFT one, then the Right.", "the RIGHT one, then the Left."),
        ("leftmost and right-hand side", "rightmost and left-hand side"),
        ("leftward, rightwards, lefthand", "rightward, leftwards, righthand"),
        ("arrow_left right_arrow left2right", "arrow_right left_arrow right2left"),
        ("right's", "left's"),
        ("a bright copyright in a righteous, lefty cleft", None),
        ("\u00e9left", None),
        ("cat", None),
    ],
)
def test_whole_words_and_their_compounds_change_places(text, expected):
    assert mirrored(text) == (expected or text)
    assert mirrored(mirrored(text)) == text
