"""Pictures with masked sentences: what a trained ICMLM says and where it looks for it.

    python -m benchmarks.recipes.gallery [--run FOLDER]

Two generated pictures of the split ``val-seen`` stand with their own sentence, in which first the
color is masked and then the background: the likeliest five words, and the masked word's attention
over the picture. They are the first of the split whose sentence names both, the second on another
background, and not chosen by what the model makes of them. Without ``--run`` the recipe
``icmlm_attfc`` is trained first (about three minutes of steps). Writes
benchmarks/results/gallery.png and gallery.json.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.command import told
from benchmarks.paths import RESULTS
from benchmarks.recipes.runs import Run, one_run
from fastclip.data.generated.samples import GeneratedSpec, make_sample
from fastclip.evals.attention_sheet import Shown, attention_sheet
from fastclip.models.filler import MASK
from fastclip.runs import load_run
from fastclip.runs.pictures import stacked

SPLIT, PICTURES = "val-seen", 2
MASKED = ("color", "background")
"""What a scene says of itself that is masked in its sentence, in turn."""


def chosen(spec: GeneratedSpec) -> Iterator[tuple[dict, str, bytes]]:
    """Scenes, sentences and PNGs of the gallery's pictures."""
    backgrounds: set[str] = set()
    for index in range(spec.num_val):
        record = make_sample(spec, SPLIT, index)
        scene, sentence = json.loads(record["json"]), record["txt"].decode()
        words = sentence.split()
        if scene["background"] in backgrounds or any(scene[k] not in words for k in MASKED):
            continue
        backgrounds.add(scene["background"])
        yield scene, sentence, record["png"]
        if len(backgrounds) == PICTURES:
            return


def masked_sentences(scene: dict, sentence: str) -> list[tuple[str, str]]:
    """The sentence with each of the words masked, and the word."""
    words = sentence.split()
    return [
        (" ".join(MASK if word == scene[kind] else word for word in words), scene[kind])
        for kind in MASKED
    ]


def gallery(run: Path) -> list[tuple[Shown, str]]:
    """Rows of the sheet, each with the word that was masked."""
    trained = load_run(run)
    rows = []
    for scene, sentence, png in chosen(GeneratedSpec()):
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        [pixels] = stacked([picture], trained.model.image_size)
        for masked, word in masked_sentences(scene, sentence):
            filled = trained.fill(picture, masked)
            rows.append((Shown(pixels, masked, filled.words, filled.attention), word))
    return rows


def write(rows: Sequence[tuple[Shown, str]], folder: Path) -> None:
    """The sheet, and what is on it as JSON."""
    attention_sheet([shown for shown, _ in rows], folder / "gallery.png")
    told = [
        {
            "sentence": shown.sentence,
            "masked": word,
            "words": dict(shown.words),
            "attention": shown.attention.tolist(),
        }
        for shown, word in rows
    ]
    (folder / "gallery.json").write_text(json.dumps(told, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a finished run, not trained here")
    args = parser.parse_args()
    with told(), tempfile.TemporaryDirectory() as scratch:
        run = args.run or Path(scratch) / "icmlm_attfc"
        if args.run is None:
            one_run(Run("icmlm_attfc", 0, run))
        write(gallery(run), RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
