"""Finished runs that write captions, and a stand-in for one that foresees masked words."""

from pathlib import Path

import torch
from PIL import Image
from reciter import Reciter
from shard_files import picture_bytes
from small import FLAGS, ONE, SIDE, build, tokenizer

from fastclip.models.filler import Foreseen
from fastclip.objectives import find_objective
from fastclip.runs import Trained
from fastclip.training import run_folder, weights
from fastclip.training.config import train_config

WORDS = ("red", "ring", "star", "blue", "two", "one")


def trained(name: str = "captioning") -> Trained:
    """A run as ``load_run`` gives it, its weights from a seed."""
    objective = build(name)
    return Trained(name, objective.model.eval(), tokenizer(), objective.trained())


def reciting(captions: list[str]) -> Trained:
    """A run that says ``captions[n]`` of a picture in the grey n."""
    return Trained("captioning", Reciter(captions), tokenizer(), {})


def greys(folder: Path, count: int) -> list[Path]:
    """Pictures in the greys 0, 1, 2, ... of different shapes, as PNG files."""
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("L", (20 + number, 31), number).save(path)
    return paths


def finished_captioner(folder: Path) -> Path:
    """The folder of a run whose weights are those of :func:`trained`."""
    cfg = train_config(
        objective="captioning", model="tiny-convnet", image_size=SIDE, **FLAGS["captioning"]
    )
    assert find_objective("captioning").writes_captions
    run_folder.write(folder, cfg, {})
    tokenizer().save(folder / "tokenizer.json")
    weights.save(build("captioning"), folder / "model.safetensors", ONE)
    return folder


def write_pictures(folder: Path, count: int, start: int = 0) -> list[Path]:
    """Noisy pictures of different shapes, as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(start, start + count)]
    for number, path in enumerate(paths, start):
        path.write_bytes(picture_bytes(number, (20 + number, 31)))
    return paths


class Stand:
    """Foresees the words by their places, and looks at the cell of the picture's brightness."""

    def foresee(self, picture, sentence):
        scores = torch.arange(len(WORDS), 0, -1).float()
        scores[1] = scores[2]  # equally likely
        attention = torch.zeros(2, 2)
        attention.view(-1)[int(picture.float().mean()) // 64] = 1
        return Foreseen(scores.log_softmax(0), attention)

    def word(self, number):
        return WORDS[number]


def filling() -> Trained:
    """A run with a filler."""
    objective = build("captioning")
    return Trained("captioning", objective.model.eval(), tokenizer(), {"filler": Stand()})
