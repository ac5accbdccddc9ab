"""The figures and pictures at the end of a run."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastclip.data.sources import DataSpec
from fastclip.data.splits import Split, read_split
from fastclip.data.text.interface import Tokeniser
from fastclip.errors import UserError
from fastclip.evals.embed import embed_rows
from fastclip.evals.retrieval import recall_at_k
from fastclip.evals.zeroshot import class_features, nearest_own, of_own_class, top1_accuracy
from fastclip.models import DualEncoder
from fastclip.training import plots
from fastclip.training.run_folder import write_whole
from fastclip.training.trainer import Trainer

KS = (1, 5, 10)
DEFAULT_PROMPTS = ["a photo of a {}."]
Results = dict[str, dict[str, float]]


def parse_splits(text: str) -> dict[str, str]:
    """``name=path,name=path`` (or one path, named ``val``) to a mapping.

    A name is letters, digits, ``-``, ``_`` and ``.``; a path may hold commas and ``=``.
    """
    if not re.match(r"[\w.-]+=", text):
        return {"val": text}
    splits: dict[str, str] = {}
    for part in re.split(r",(?=[\w.-]+=)", text):
        name, _, path = part.partition("=")
        if not path or name in splits:
            found = "twice the name " + name if path else repr(part)
            raise UserError(f"--val-data holds {found}, expected name=path,name=path")
        splits[name] = path
    return splits


class Embedder:
    """Pictures and texts to unit features ``[n, D]`` fp32 on the CPU, on every rank."""

    def __init__(self, trainer: Trainer, model: DualEncoder, tokenizer: Tokeniser):
        self.trainer, self.model, self.tokenizer = trainer, model, tokenizer

    def images(self, pictures: Tensor) -> Tensor:
        return self._embed(pictures, self.model.encode_image)

    def texts(self, texts: list[str]) -> Tensor:
        return self._embed(self.tokenizer(texts), self.model.encode_text)

    def _embed(self, rows: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        trainer, ranks = self.trainer, self.trainer.ranks

        def forward(part: Tensor) -> Tensor:
            with trainer.autocast():
                return encode(part.to(ranks.device))

        return embed_rows(rows, forward, trainer.micro_batch, ranks.rank, ranks.world_size)


@dataclass(frozen=True)
class Candidates:
    """What a split's pictures are matched with: texts, their features, each picture's right one.

    Where several texts are right together, ``targets`` are classes and ``classes`` each text's.
    """

    names: list[str]
    features: Tensor
    targets: Tensor
    classes: Tensor | None = None


def evaluate(
    trainer: Trainer,
    model: DualEncoder,
    tokenizer: Tokeniser,
    splits: dict[str, DataSpec],
    run: Path,
) -> Results:
    """Figures of every split, written to ``run/results.json``; pictures of the first one.

    A split with labels and class names gets zero-shot accuracy over all classes, one with captions
    picture-to-caption recall among the split's distinct captions.
    """
    trainer.engine.eval()
    embedder = Embedder(trainer, model, tokenizer)
    results: Results = {}
    for name, spec in splits.items():
        split = read_split(spec, image_size=model.image_size, progress=trainer.ranks.is_first)
        images = embedder.images(split.pictures)
        figures: dict[str, float] = {"pictures": len(split)}
        classes, captions = _classes(split, embedder), _captions(split, embedder)
        if classes is not None:
            found = top1_accuracy(images, classes.features, classes.targets, classes.classes)
            figures |= {
                "zero_shot_accuracy": found,
                "zero_shot_candidates": len(split.classes or []),
            }
        if captions is not None:
            recalls = recall_at_k(images, captions.features, captions.targets, KS)
            figures |= {f"recall@{k}": value for k, value in recalls.items()}
            figures["recall_candidates"] = len(captions.names)
        if not results and trainer.ranks.is_first:
            _draw(split, images, classes or captions, run)
        results[name] = figures
        if trainer.ranks.is_first:
            write_whole(run / "results.json", json.dumps(results, indent=2) + "\n")
    trainer.engine.train()
    return results


def _classes(split: Split, embedder: Embedder) -> Candidates | None:
    """The split's classes as texts, where its records are labelled and classes named."""
    if split.labels is None or not split.classes:
        return None
    if split.class_captions:
        texts = [text for captions in split.class_captions for text in captions]
        sizes = torch.tensor([len(captions) for captions in split.class_captions])
        classes = torch.arange(len(sizes)).repeat_interleave(sizes)
        return Candidates(texts, embedder.texts(texts), split.labels, classes)
    features = class_features(split.classes, split.prompts or DEFAULT_PROMPTS, embedder.texts)
    return Candidates(split.classes, features, split.labels)


def _captions(split: Split, embedder: Embedder) -> Candidates | None:
    """The split's distinct captions, where every record has one."""
    if not all(split.captions):
        return None
    names = sorted(set(split.captions))
    index = {name: number for number, name in enumerate(names)}
    targets = torch.tensor([index[caption] for caption in split.captions])
    return Candidates(names, embedder.texts(names), targets)


def _draw(split: Split, images: Tensor, candidates: Candidates | None, run: Path) -> None:
    """similarity.png and retrieval.png of pictures whose captions (or classes) differ."""
    if candidates is None:
        return
    targets = candidates.targets.tolist()
    first = {target: row for row, target in reversed(list(enumerate(targets)))}
    spread = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))
    rows = torch.tensor(list(first.values()))[spread]
    some = rows[:24]
    right = of_own_class(len(candidates.names), candidates.targets[some], candidates.classes)
    scores = images[some] @ candidates.features.T
    own = nearest_own(scores, right)
    names = [candidates.names[target] for target in own.tolist()]
    plots.similarity_matrix(images[some], candidates.features[own], names, run / "similarity.png")
    plots.retrieval_sheet(
        split.pictures[some], scores, candidates.names, right, run / "retrieval.png"
    )


def headline(results: Results, generated: bool) -> str:
    """The run's figure of merit in one line: the first split's."""
    if not results:
        return "no evaluation data was given (--val-data)"
    name, figures = next(iter(results.items()))
    where = f"{name} combinations" if generated else name
    if "zero_shot_accuracy" in figures:
        count = int(figures["zero_shot_candidates"])
        value, what = figures["zero_shot_accuracy"], "zero-shot accuracy"
        chance = 1 / count
    elif "recall@10" in figures:
        count = int(figures["recall_candidates"])
        value, what = figures["recall@10"], "picture-to-caption recall@10"
        chance = min(1.0, 10 / count)
    else:
        return f"{name} has neither labels with class names nor captions: nothing to measure"
    return f"{what} on {where}: {value:.1%} ({count} candidates, chance {chance:.1%})"
