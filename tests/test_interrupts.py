"""The first signal ends a process in order, a second Ctrl-C at once; files appear whole."""

import os
import signal
import time

import pytest
from processes import Parent

from fastclip.interrupts import end_in_order, exit_code
from fastclip.whole_files import appearing_whole


def end_slowly(note):
    end_in_order()
    try:
        note()
        time.sleep(60)
    except KeyboardInterrupt as error:
        print(exit_code(error))
        note(1)
        time.sleep(0.5)
        print("ended in order")
        os._exit(exit_code(error))


@pytest.mark.parametrize(
    ("first", "second", "told", "code"),
    [
        (signal.SIGINT, None, "130\nended in order", 130),
        (signal.SIGTERM, None, "143\nended in order", 143),
        (signal.SIGINT, signal.SIGTERM, "130\nended in order", 130),
        (signal.SIGTERM, signal.SIGTERM, "143\nended in order", 143),
        (signal.SIGINT, signal.SIGINT, "130", 130),
    ],
)
def test_the_first_signal_ends_in_order(first, second, told, code, tmp_path):
    main = Parent(tmp_path, end_slowly)
    main.noted(1)
    os.kill(main.process.pid, first)
    main.noted(2)
    assert main.finish(second) == told
    assert main.process.exitcode == code


def test_a_fork_that_a_signal_ends_says_nothing(tmp_path):
    def body(note):
        end_in_order()
        fork = os.fork()
        if not fork:
            note(1)
            time.sleep(60)
        while not (tmp_path / "1.pid").exists():
            time.sleep(0.01)
        os.kill(fork, signal.SIGTERM)
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]))

    assert Parent(tmp_path, body).finish() == "143"


def test_other_errors_have_no_exit_code():
    assert exit_code(ValueError()) is None
    assert exit_code(KeyboardInterrupt()) == 130


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_file_that_is_interrupted_stays_as_it_was(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(error), appearing_whole(path) as partial:
        partial.write_text("half")
        raise error
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "before")]
    with appearing_whole(path) as partial:
        partial.write_text("whole")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "whole")]
