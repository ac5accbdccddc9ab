"""A finished run as a model to use."""

from pathlib import Path
from typing import NamedTuple

from fastclip.data.text import Tokeniser, load_tokeniser
from fastclip.errors import UserError
from fastclip.models import DualEncoder
from fastclip.objectives.contrastive import Contrastive
from fastclip.training import session, weights
from fastclip.training.config import TrainConfig, load_recipe


class Trained(NamedTuple):
    """``model`` in evaluation mode, its ``tokenizer``, and the ``logit_scale`` it learned."""

    model: DualEncoder
    tokenizer: Tokeniser
    logit_scale: float


def load_run(folder: Path | str) -> Trained:
    """The model of a run's folder, on the CPU. Raises :class:`UserError` if it holds none."""
    folder = Path(folder)
    for name in ("config.yaml", "tokenizer.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: expected the folder of a finished run")
    cfg = TrainConfig(**load_recipe(folder / "config.yaml"))
    tokenizer = load_tokeniser(folder / "tokenizer.json")
    model = session.build_model(cfg, tokenizer)
    objective = Contrastive(siglip=cfg.siglip, workspace_bytes=cfg.workspace_mib << 20)
    weights.load(model, objective, folder / "model.safetensors")
    return Trained(model.eval(), tokenizer, float(objective.logit_scale.detach().exp()))
