"""Train a model from pictures and language: ``deepspeed fastclip/train.py --help``.

With no arguments: a small CLIP on a data set that is generated on the spot.
"""

import os
import signal
import sys

# The launcher puts this file's folder first on sys.path, where our module names would hide others'.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [p for p in sys.path if os.path.abspath(p or os.curdir) != _HERE]

from fastclip.errors import UserError  # noqa: E402
from fastclip.interrupts import end_in_order, exit_code  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Parse, build, run. Returns the exit code: 0, 2 for input that a person can mend, or 128 + the
    signal that ended it."""
    try:
        return _run(argv)
    except BaseException as error:
        code = exit_code(error)
        if code is None:
            raise
        if os.environ.get("RANK", "0") == "0":
            how = "Interrupted" if code == 128 + signal.SIGINT else "Ended by SIGTERM"
            where = isinstance(error, KeyboardInterrupt) and str(error)
            print(f"{how}{where or ' before the first step'}", file=sys.stderr)
        return code


def _run(argv: list[str] | None) -> int:
    from fastclip.training import distributed

    try:
        try:
            from fastclip.training.config import parse_args

            cfg = parse_args(argv)
            from fastclip.training import session
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "fastclip":
                raise
            raise UserError(
                f"the module {error.name} is not installed; `pip install '.[train]'` in a checkout "
                "brings all that training needs"
            ) from error
        session.run(cfg, distributed.start())
    except UserError as error:
        distributed.report_error(error)
        return 2
    except RuntimeError as error:
        # Another process may have ended, on an error that it has told or the same interrupt.
        if exit_code(error) is None and distributed.error_was_told():
            return 2
        raise
    distributed.stop()
    return 0


if __name__ == "__main__":
    end_in_order()
    # Without waiting for other ranks' collectives: they would never come after an error here.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code) if code else sys.exit(0)
