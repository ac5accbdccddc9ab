"""``fastclip-caption``: captions, or words in the place of a mask, that a run gives pictures."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fastclip.errors import UserError, expand_home
from fastclip.runs.decoding_options import BEAMS, check_decoding


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns 0, 1 where no picture could be read, 2 after one sentence on standard error for bad
    input, or 130 after an interrupt, with the files of what was done until then.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    args = _parser().parse_args(argv)
    try:
        _check(args)
        from fastclip.runs.caption_files import Request, caption_files

        names = ("beams", "top_p", "seed", "mask", "jsonl", "sheet", "device")
        request = Request(**{name: getattr(args, name) for name in names})
        run = expand_home(args.run, "RUN")
        return 0 if caption_files(run, args.pictures, request) else 1
    except UserError as error:
        print(f"fastclip-caption: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing is left to flush at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as interrupt:
        print(f"fastclip-caption: interrupted{interrupt}", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "fastclip":
            raise
        print(
            f"fastclip-caption: the module {error.name} is not installed; `pip install '.[train]'` "
            "in a checkout brings all that it needs",
            file=sys.stderr,
        )
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastclip-caption",
        description="Write captions for pictures, or words in the place of a mask, with a finished "
        "run. Each picture is a line on standard output: its path, a tab, and the caption.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="a picture or a folder")
    parser.add_argument("--beams", type=int, help=f"width of the beam search (default {BEAMS})")
    parser.add_argument("--top-p", type=float, help="draw from the nucleus that holds so much")
    parser.add_argument("--seed", type=int, help="of what --top-p draws (default 0)")
    parser.add_argument(
        "--mask",
        action="append",
        metavar="SENTENCE",
        help="a sentence with one [MASK]: give its 5 likeliest words; may come several times",
    )
    parser.add_argument("--jsonl", metavar="FILE", help="also write a JSON object a line here")
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="also draw the pictures with what was written here"
    )
    parser.add_argument("--device", default="cpu", help="where the model runs, such as cuda")
    return parser


def _check(args: argparse.Namespace) -> None:
    """Refuse flags that do nothing and files that cannot be written; fill in what was left out."""
    from fastclip.runs.filling import check_sentence

    said = {"--beams": args.beams, "--top-p": args.top_p, "--seed": args.seed}
    given = [flag for flag, value in said.items() if value is not None]
    if args.mask and given:
        raise UserError(f"{given[0]} is for captions, of which --mask writes none")
    args.mask = tuple(args.mask or ())
    args.beams, args.seed = check_decoding(args.beams, args.top_p, args.seed, "--")
    for sentence in args.mask:
        check_sentence(sentence)
    for flag in ("jsonl", "sheet"):
        if (value := getattr(args, flag)) is not None:
            setattr(args, flag, _writable(f"--{flag}", expand_home(value, f"--{flag}")))
    if args.jsonl and args.sheet and _same(args.jsonl, args.sheet):
        raise UserError(f"--jsonl and --sheet are both {args.sheet}, expected two files")
    if args.sheet and args.sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet is {args.sheet}, expected a name that ends in .png")


def _writable(flag: str, path: Path) -> Path:
    if not path.parent.is_dir():
        raise UserError(f"{flag} is {path}, and there is no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{flag} is {path}, which is a folder")
    return path


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


if __name__ == "__main__":
    sys.exit(main())
