"""What ``fastclip-caption`` does: picture files in, lines, JSON and a sheet out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastclip.data.progress import Progress
from fastclip.data.sources.texts import printable
from fastclip.errors import UserError
from fastclip.runs.captions import write
from fastclip.runs.filling import Filled, fill
from fastclip.runs.loading import load_run
from fastclip.runs.picture_files import list_files, read_files
from fastclip.runs.pictures import stacked
from fastclip.runs.trained import Trained
from fastclip.runs.whole_file import whole_file

MOST_SHOWN = 60
"""Rows on a sheet."""
_SHOWN_SIDE = 192
BATCH = 32
_TOP = 5


@dataclass(frozen=True)
class Request:
    """How captions are made and where they go; the fields are the flags of the same names.

    ``mask`` are sentences with one ``[MASK]`` each, in the place of captions.
    """

    beams: int = 5
    top_p: float | None = None
    seed: int = 0
    mask: tuple[str, ...] = ()
    jsonl: Path | None = None
    sheet: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Row:
    """A picture with its caption, or with a sentence and what fills its mask."""

    path: Path
    text: str
    filled: Filled | None = None

    def line(self) -> str:
        """Columns between tabs: the path, the text, and words with their probabilities.

        What cannot be printed, such as a tab in a caption, is spelled out.
        """
        words = self.filled.words if self.filled else []
        shares = ", ".join(f"{word} {probability:.3f}" for word, probability in words)
        columns = [str(self.path), self.text, *([shares] if words else [])]
        return "\t".join(map(printable, columns))

    def plain(self) -> dict[str, Any]:
        """The same as JSON values."""
        if self.filled is None:
            return {"picture": str(self.path), "caption": self.text}
        return {
            "picture": str(self.path),
            "sentence": self.text,
            "words": [{"word": word, "probability": p} for word, p in self.filled.words],
            "attention": self.filled.attention.tolist(),
        }


def caption_files(run: Path, named: Sequence[str], request: Request) -> bool:
    """Caption the pictures, telling of each on standard output; False where none could be read.

    What cannot be read is told in a line each on standard error, and counted. Raises
    :class:`UserError` for bad input, with nothing written.
    """
    paths = list_files(named)
    _check_outputs(paths, request)
    trained = load_run(run)
    if request.mask:
        trained.check_fills()
    else:
        trained.check_writes()
    model: Any = trained.model
    _move(model, request.device)
    rows: list[Row] = []
    lost = 0
    # On a terminal the lines themselves show how far it is.
    what = "filling masks" if request.mask else "captioning"
    with Progress(what, len(paths), "picture", not sys.stdout.isatty()) as bar:
        generator = torch.Generator(trained.device).manual_seed(request.seed)
        try:
            for batch in read_files(paths, model.image_size, BATCH):
                good = [(path, pixels) for path, pixels in batch if isinstance(pixels, Tensor)]
                for path, why in batch:
                    if isinstance(why, str):
                        lost += 1
                        _tell(f"left out {printable(str(path))}: {why}")
                new = _rows(trained, good, request, generator) if good else []
                rows += new
                for row in new:
                    print(row.line(), flush=True)
                bar.update(len(batch))
        except KeyboardInterrupt as interrupt:
            if rows:
                _write_files(rows, request)
            done = len({row.path for row in rows})
            raise KeyboardInterrupt(f" after {done} of {len(paths)} pictures") from interrupt
    if lost:
        _tell(f"{lost} of {len(paths)} pictures could not be read")
    if rows:
        _write_files(rows, request)
    return bool(rows)


def _check_outputs(paths: Sequence[Path], request: Request) -> None:
    """Refuse to write over a picture that is read, and a sheet that cannot be drawn."""
    if request.sheet is not None:
        import matplotlib.figure  # noqa: F401
    for flag, output in (("--jsonl", request.jsonl), ("--sheet", request.sheet)):
        if output is not None and output.exists():
            for path in paths:
                if output.samefile(path):
                    raise UserError(f"{flag} is {output}, which is one of the pictures")


def _tell(what: str) -> None:
    print(f"fastclip-caption: {what}", file=sys.stderr, flush=True)


def _move(model: torch.nn.Module, device: str) -> None:
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("nothing is computed there")
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        told = " ".join(str(error).split())[:200]
        raise UserError(f"--device is {device!r}, which cannot be used here: {told}") from error


def _rows(
    trained: Trained,
    batch: Sequence[tuple[Path, Tensor]],
    request: Request,
    generator: torch.Generator,
) -> list[Row]:
    """One row a picture and sentence."""
    pictures = torch.stack([pixels for _, pixels in batch]).to(trained.device)
    if request.mask:
        return [
            Row(path, sentence, fill(trained.filler, pixels, sentence, _TOP))
            for (path, _), pixels in zip(batch, pictures, strict=True)
            for sentence in request.mask
        ]
    captions = write(
        trained.model, trained.tokenizer, pictures, request.beams, request.top_p, generator
    )
    return [Row(path, text) for (path, _), text in zip(batch, captions, strict=True)]


def _write_files(rows: Sequence[Row], request: Request) -> None:
    if request.jsonl is not None:
        with whole_file(request.jsonl) as path:
            path.write_text("".join(json.dumps(row.plain()) + "\n" for row in rows))
    if request.sheet is None:
        return
    shown = rows[:MOST_SHOWN]
    if len(shown) < len(rows):
        _tell(f"--sheet shows the first {len(shown)} of {len(rows)}")
    with whole_file(request.sheet) as path:
        draw_sheet(shown, path)


def draw_sheet(rows: Sequence[Row], path: Path) -> None:
    from fastclip.evals.attention_sheet import Shown, attention_sheet
    from fastclip.evals.caption_sheet import caption_sheet

    pictures = stacked([row.path for row in rows], _SHOWN_SIDE)
    filled = [
        Shown(picture, row.text, row.filled.words, row.filled.attention)
        for picture, row in zip(pictures, rows, strict=True)
        if row.filled is not None
    ]
    if filled:
        attention_sheet(filled, path)
    else:
        names = [(printable(row.text), printable(row.path.name)) for row in rows]
        caption_sheet(pictures, names, path, "written by the model; the file's name grey")
