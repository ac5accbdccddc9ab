"""``fastclip-data``: write the generated set, look at what a set holds, or pack it in shards."""

import argparse
import dataclasses
import logging
import math
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args, get_type_hints

from fastclip.data.sources.spec import DatasetType, DataSpec
from fastclip.errors import UserError
from fastclip.whole_files import appearing_whole

_SPEC_FLAGS = {field.name for field in dataclasses.fields(DataSpec)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 0, or after one sentence on standard error 1 for a set that holds
    nothing usable, 2 for other bad input and 130 for Ctrl-C; 141 where nobody reads the output."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args) or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"fastclip-data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fastclip-data: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who read the output has ended, as head does; closing it at exit is not to fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line, without the usage of all flags before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists all flags\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastclip-data",
        description="Write the generated set, look at what a data set holds, or pack it in shards.",
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    generate = commands.add_parser("generate", help="write the generated set to webdataset shards")
    generate.add_argument("--out", type=Path, required=True, help="folder to write, new or empty")
    generate.add_argument("--num-samples", type=int, default=20_000, help="training pictures")
    generate.add_argument("--num-val", type=int, default=1_024, help="pictures a validation split")
    generate.add_argument("--picture-size", type=int, default=32, help="side in pixels")
    generate.add_argument("--seed", type=int, default=0, help="seed of the set")
    generate.set_defaults(run=_generate)

    inspect = commands.add_parser("inspect", help="count records, show captions and bad records")
    _add_source(inspect)
    inspect.add_argument("--captions", type=int, default=5, help="captions to print, 0 or more")
    inspect.add_argument("--bad", type=int, default=10, help="bad records to name, 0 or more")
    inspect.add_argument("--sheet", type=Path, help="write a PNG of random samples here")
    inspect.add_argument("--sheet-samples", type=int, help="samples on the sheet (60)")
    inspect.add_argument("--seed", type=int, help="picks the samples of the sheet (0)")
    inspect.set_defaults(run=_inspect)

    pack = commands.add_parser("pack", help="turn any data set into webdataset shards")
    _add_source(pack)
    pack.add_argument("out", type=Path, help="folder to write, new or empty")
    pack.add_argument("--val-share", type=float, default=0.0, help="part of the pictures for val")
    pack.add_argument(
        "--split-by",
        help="what decides a record's side: its picture (by default), its key, or a field of its "
        "source, such as image_id, filepath, a column or a name in its json",
    )
    pack.add_argument("--resize", type=int, help="shrink pictures to this shorter side in pixels")
    pack.add_argument("--shard-records", type=int, default=10_000, help="records a shard")
    pack.add_argument(
        "--max-bad-share", type=float, default=0.01, help="share of bad records that is put up with"
    )
    pack.set_defaults(run=_pack)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    """The flags that say where records come from, named as train.py's."""
    defaults = DataSpec()
    parser.add_argument("data", help="shards (braces, :: and * allowed), a file or a folder")
    parser.add_argument(
        "--dataset-type",
        choices=[name for name in get_args(DatasetType) if name != "synthetic"],
        default="auto",
        help="layout, by default told from path and content",
    )
    parser.add_argument("--image-root", default="", help="folder of the pictures that a file names")
    parser.add_argument(
        "--split", default="", help="split, where a layout has several, or all (default: train)"
    )
    parser.add_argument(
        "--regions",
        choices=get_args(get_type_hints(DataSpec)["regions"]),
        default=defaults.regions,
        help="Visual Genome: regions cropped, or whole pictures",
    )
    for name, what in (
        ("csv_img_key", "csv column of the picture"),
        ("csv_caption_key", "csv column of the caption"),
        ("csv_separator", "csv separator, by default a tab"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, default=getattr(defaults, name), help=what)
    parser.add_argument(
        "--read-timeout",
        type=float,
        default=defaults.read_timeout,
        help="seconds for which a pipe may give nothing",
    )


def _spec(args: argparse.Namespace) -> DataSpec:
    if not 0 < args.read_timeout < math.inf:
        raise UserError(f"--read-timeout is {args.read_timeout:g}, expected more than 0 seconds")
    values = {name: value for name, value in vars(args).items() if name in _SPEC_FLAGS}
    return DataSpec(path=args.data, **values)


def _generate(args: argparse.Namespace) -> None:
    from fastclip.data.generated.samples import GeneratedSpec
    from fastclip.data.generated.shards import generate

    spec = GeneratedSpec(args.num_samples, args.num_val, args.picture_size, args.seed)
    made = generate(args.out, spec)
    print(f"train         {made.train}")
    print(f"val-seen      {made.val_seen}")
    print(f"val-held-out  {made.val_held_out}")


def _inspect(args: argparse.Namespace) -> int:
    from fastclip.data.survey import survey

    least = {"captions": 0, "bad": 0, "sheet_samples": 1, "seed": 0}
    for name, least_value in least.items():
        value, flag = getattr(args, name), f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if value < least_value:
            raise UserError(f"{flag} is {value}, expected {least_value} or more")
        if name in ("sheet_samples", "seed") and not args.sheet:
            raise UserError(f"{flag} needs --sheet")
    if args.sheet and args.sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {args.sheet}: expected a name that ends in .png")
    if args.sheet and not args.sheet.parent.is_dir():
        raise UserError(f"--sheet {args.sheet}: there is no folder {args.sheet.parent}")
    samples = 60 if args.sheet_samples is None else args.sheet_samples
    found = survey(_spec(args), samples if args.sheet else 0, random.Random(args.seed or 0))
    print(found.report(args.captions, args.bad))
    if args.sheet and len(found.sheet_captions):
        from fastclip.data.contact_sheet import contact_sheet

        try:
            with appearing_whole(args.sheet) as partial:
                contact_sheet(found.sheet_pictures, found.sheet_captions).save(partial)
        except OSError as error:
            raise UserError(f"--sheet {args.sheet}: {error}") from error
        print(f"sheet: {args.sheet}")
    if not found.usable:
        print(f"fastclip-data: {args.data} holds no record that can be used", file=sys.stderr)
        return 1
    return 0


def _pack(args: argparse.Namespace) -> None:
    from fastclip.data.packing.pack import PackOptions, pack

    if args.split_by and not args.val_share:
        raise UserError("--split-by needs --val-share")
    by = args.split_by or "picture"
    options = PackOptions(args.val_share, by, args.resize, args.shard_records)
    spec = dataclasses.replace(_spec(args), max_bad_share=args.max_bad_share)
    print(pack(spec, args.out, options).report())


if __name__ == "__main__":
    sys.exit(main())
