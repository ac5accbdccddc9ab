"""``fastclip-data``: write the generated set, or look at what a set holds."""

import argparse
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from fastclip.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 after one sentence on standard error for bad input."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        print(f"fastclip-data: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastclip-data",
        description="Write the generated set, or look at what a data set holds.",
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
    inspect.add_argument("data", help="shards (braces, :: and * allowed) or a csv file")
    inspect.add_argument(
        "--dataset-type",
        choices=("auto", "webdataset", "csv"),
        default="auto",
        help="format, by default told from the path",
    )
    inspect.add_argument("--csv-img-key", default="filepath", help="csv column of the picture")
    inspect.add_argument("--csv-caption-key", default="title", help="csv column of the caption")
    inspect.add_argument("--csv-separator", default="\t", help="csv separator, by default a tab")
    inspect.add_argument("--captions", type=int, default=5, help="captions to print")
    inspect.add_argument("--sheet", type=Path, help="write a PNG of random samples here")
    inspect.add_argument("--sheet-samples", type=int, default=60, help="samples on the sheet")
    inspect.add_argument("--seed", type=int, default=0, help="picks the samples of the sheet")
    inspect.set_defaults(run=_inspect)
    return parser


def _generate(args: argparse.Namespace) -> None:
    from fastclip.data.generated import GeneratedSpec, generate

    spec = GeneratedSpec(args.num_samples, args.num_val, args.picture_size, args.seed)
    made = generate(args.out, spec)
    print(f"train         {made.train}")
    print(f"val-seen      {made.val_seen}")
    print(f"val-held-out  {made.val_held_out}")


def _inspect(args: argparse.Namespace) -> None:
    from fastclip.data.old_sources import DataSpec
    from fastclip.data.survey import survey

    spec = DataSpec(
        args.data,
        args.dataset_type,
        csv_img_key=args.csv_img_key,
        csv_caption_key=args.csv_caption_key,
        csv_separator=args.csv_separator,
    )
    if args.sheet and args.sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {args.sheet}: expected a name that ends in .png")
    if args.sheet and not args.sheet.parent.is_dir():
        raise UserError(f"--sheet {args.sheet}: there is no folder {args.sheet.parent}")
    wanted = args.sheet_samples if args.sheet else 0
    found = survey(spec, wanted, random.Random(args.seed))
    print(found.report(args.captions))
    if args.sheet and len(found.sheet_captions):
        from fastclip.data.contact_sheet import contact_sheet

        try:
            contact_sheet(found.sheet_pictures, found.sheet_captions).save(args.sheet)
        except OSError as error:
            raise UserError(f"--sheet {args.sheet}: {error}") from error
        print(f"sheet: {args.sheet}")


if __name__ == "__main__":
    sys.exit(main())
