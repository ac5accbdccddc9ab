"""What a finished run is to its user."""

from typing import Any

from torch import nn

from fastclip.data.text import Tokenizer


class Trained(tuple):
    """``model`` in evaluation mode, its ``tokenizer`` and what else the objective learned.

    Runs with a contrastive loss have ``logit_scale``, the factor, beside ``log_logit_scale``, and
    SigLIP's ``logit_bias``; they unpack as ``model, tokenizer, logit_scale = trained``, others as
    ``model, tokenizer = trained``. ``objective`` is the name of the objective.
    """

    objective: str
    model: nn.Module
    tokenizer: Tokenizer
    logit_scale: float
    log_logit_scale: float
    logit_bias: float

    def __new__(
        cls, objective: str, model: nn.Module, tokenizer: Tokenizer, scalars: dict[str, Any]
    ) -> "Trained":
        scale = [scalars["logit_scale"]] if "logit_scale" in scalars else []
        self = super().__new__(cls, (model, tokenizer, *scale))
        self.__dict__.update(scalars, objective=objective, model=model, tokenizer=tokenizer)
        return self

    def __getnewargs__(self) -> tuple[str, nn.Module, Tokenizer, dict[str, Any]]:
        known = ("objective", "model", "tokenizer")
        scalars = {k: v for k, v in self.__dict__.items() if k not in known}
        return self.objective, self.model, self.tokenizer, scalars

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a run of objective {self.__dict__.get('objective')} has no {name!r}")

    def __repr__(self) -> str:
        facts = {k: v for k, v in self.__dict__.items() if k not in ("model", "tokenizer")}
        return f"Trained({type(self.model).__name__}, {facts})"
