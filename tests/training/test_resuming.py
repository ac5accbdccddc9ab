"""What a resumed run must share with the one before it, and what is said where it does not."""

from hashlib import sha256
from pathlib import Path

import pytest

from fastclip.errors import UserError
from fastclip.training.resuming import check

A, B = (sha256(text).hexdigest() for text in (b"a", b"b"))
CHECKPOINT = Path("logs/x/checkpoints/step_00000004")


def test_a_run_that_shares_all_goes_on():
    check(CHECKPOINT, {"--train-data": A, "--seed": 0}, {"--train-data": A, "--seed": 0})


@pytest.mark.parametrize(
    ("what", "before", "now", "told"),
    [
        ("--seed", 0, 1, "was made with --seed 0, this run has 1: resume with the same"),
        (
            "--train-data",
            A,
            B,
            "was made with other contents of --train-data than this run has: resume with the same "
            "files, split, columns and other flags that say what is read",
        ),
        (
            "--train-data",
            f"{A}; {A}; [1.0, 2.0]",
            f"{A}; {B}; [1.0, 2.0]",
            "was made with other contents of --train-data than this run has: resume with the same "
            "files, split, columns and other flags that say what is read",
        ),
        (
            "the teacher's weights",
            A,
            B,
            "was made with other contents of the teacher's weights than this run has: resume with "
            "the same",
        ),
    ],
)
def test_what_differs_is_named_without_digests(what, before, now, told):
    with pytest.raises(UserError) as error:
        check(CHECKPOINT, {what: before}, {what: now})
    assert str(error.value) == f"checkpoint {CHECKPOINT} {told}"
