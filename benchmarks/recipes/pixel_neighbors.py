"""How far pixels alone go in predicting tags: nearest neighbors and ridge regression on them.

    python -m benchmarks.recipes.pixel_neighbors [--data FOLDER]

Tags of the emoji set that occur ten times or more in training, judged as
``fastclip.evals.tags`` does. Numbers of neighbors and strengths of the ridge are those that are
best on val-seen. Writes benchmarks/results/pixel_neighbors.json, whose figures stand beside the
recipe tp_emoji's.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.paths import RESULTS
from fastclip.data.fields import TAGS
from fastclip.data.read_splits import read_split
from fastclip.data.sources.spec import DataSpec
from fastclip.data.splits import Split
from fastclip.data.tags import WordTags
from fastclip.evals.tags import average_precisions
from fastclip.objectives.tag_targets import TagCountOptions, learn_tags
from fastclip.training.learning import SpecTexts

STORE = RESULTS / "pixel_neighbors.json"
SIDE, LEAST = 24, 10
NEIGHBORS = (1, 3, 5, 10, 20, 50)
STRENGTHS = (1e1, 1e2, 1e3, 1e4, 1e5)


def read(path: str, tags: WordTags) -> tuple[np.ndarray, Tensor]:
    """How far pixels are from white, fp32 ``[n, 3 * SIDE * SIDE]``, and tags, ``[n, tags]``."""
    split: Split = read_split(DataSpec(path), image_size=SIDE, also=(TAGS,), progress=False)
    said = torch.zeros(len(split), len(tags.names), dtype=torch.bool)
    for row, numbers in zip(said, tags.numbers(split.also[TAGS]), strict=True):
        row[numbers] = True
    return 1 - split.pictures.flatten(1).float().div(255).numpy(), said


def neighbors(pixels: np.ndarray, said: Tensor, others: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Scores of ``others`` by the tags of their nearest pictures, the nearer the heavier.

    Distances are those of unit vectors.
    """
    from sklearn.neighbors import NearestNeighbors

    known, asked = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6) for rows in (pixels, others)
    )
    distances, rows = NearestNeighbors(n_neighbors=max(NEIGHBORS)).fit(known).kneighbors(asked)
    weights = torch.from_numpy(1 / np.maximum(distances, 1e-6))
    for count in NEIGHBORS:
        near = said[torch.from_numpy(rows[:, :count])].double()  # [n, count, tags]
        yield f"{count} neighbors", (near * weights[:, :count, None]).sum(1)


def ridge(pixels: np.ndarray, said: Tensor, others: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Scores of ``others`` by linear regression on pixels."""
    from sklearn.linear_model import Ridge

    for strength in STRENGTHS:
        fitted = Ridge(strength).fit(pixels, said.float().numpy())
        yield f"ridge {strength:g}", torch.from_numpy(fitted.predict(others))


def precision(scores: Tensor, said: Tensor) -> float:
    """The mean average precision of tags that any picture has."""
    measured = said.any(0)
    return float(average_precisions(scores[:, measured], said[:, measured]).mean())


def measure(folder: Path) -> dict[str, dict]:
    """The best of each method on val-seen, with its figures on both splits."""
    train = str(folder / "train-{0000..0004}.tar")
    names = learn_tags(TagCountOptions(tag_min_count=LEAST), SpecTexts(DataSpec(train)))
    tags = WordTags(names, "tags")
    pixels, said = read(train, tags)
    splits = {n: read(str(folder / f"{n}.tar"), tags) for n in ("val-seen", "val-unseen")}
    found: dict[str, dict] = {}
    for method in (neighbors, ridge):
        figures: dict[str, dict[str, float]] = {}
        for split, (others, own) in splits.items():
            for name, scores in method(pixels, said, others):
                figures.setdefault(name, {})[split] = precision(scores, own)
        best = max(figures, key=lambda name: figures[name]["val-seen"])
        found[method.__name__] = {"chosen": best, **figures[best]}
    chances = {n: float(own[:, own.any(0)].double().mean()) for n, (_, own) in splits.items()}
    return {
        **found,
        "chance": chances,
        "tags": {n: int(o.any(0).sum()) for n, (_, o) in splits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FASTCLIP_TEST_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        parser.error("the folder of the data is not known: give --data or set FASTCLIP_TEST_DATA")
    found = measure(Path(folder) / "emoji")
    STORE.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
