"""Opens a teacher by the name of its folder: a finished run, or a transformers CLIPModel."""

import json
from pathlib import Path
from typing import Any

import torch

from fastclip.errors import UserError, expand_home
from fastclip.models import DualEncoder
from fastclip.models.teacher import Teacher
from fastclip.runs.loading import load_run


def open_teacher(folder: str) -> Teacher:
    """The frozen dual encoder of ``folder``. Raises :class:`UserError` if it holds none."""
    path = expand_home(folder, "--teacher")
    if (path / "config.yaml").is_file():
        trained = load_run(path)
        if not isinstance(trained.model, DualEncoder):
            raise UserError(
                f"--teacher {path} is a run of objective {trained.objective}, expected one that "
                "leaves an image tower and a text tower"
            )
        return Teacher(trained.model, trained.tokenizer, trained.logit_scale)
    if (path / "config.json").is_file():
        return _from_transformers(path)
    raise UserError(
        f"--teacher {path} has neither config.yaml (a finished run) nor config.json (a "
        "transformers CLIPModel)"
    )


def _from_transformers(path: Path) -> Teacher:
    from transformers import AutoTokenizer, CLIPModel

    from fastclip.models.hf import from_hf

    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # Without either, transformers makes up a tokenizer that knows no word.
        raise UserError(f"--teacher {path} has neither tokenizer.json nor vocab.json")
    try:
        kind = json.loads((path / "config.json").read_text()).get("model_type")
        if kind != "clip":
            raise UserError(f"--teacher {path} holds a model of type {kind!r}, expected 'clip'")
        hf = CLIPModel.from_pretrained(path, local_files_only=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        statistics = _pixel_statistics(path / "preprocessor_config.json")
    except UserError:
        raise
    except Exception as error:
        told = " ".join(str(error).split())
        raise UserError(f"--teacher {path} cannot be opened: {told}") from error
    model, log_scale = from_hf(hf, **statistics)
    length = model.context_length

    def tokenize(texts: list[str]) -> torch.Tensor:
        ids = tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return ids["input_ids"]

    return Teacher(model, tokenize, float(log_scale.exp()))


def _pixel_statistics(path: Path) -> dict[str, list[float]]:
    """What the folder's image processor says of pixels; CLIP's own where there is none."""
    if not path.is_file():
        return {}
    said = json.loads(path.read_text())
    return {"mean": said["image_mean"], "std": said["image_std"]}
