"""The trained weights in one safetensors file, whatever the ZeRO stage."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastclip.errors import UserError
from fastclip.training.distributed import Ranks


def save(engine: Any, objective: nn.Module, path: Path, ranks: Ranks) -> None:
    """Write the towers' weights and buffers, and the objective's scalars as ``objective.*``.

    Weights have the dtype the towers compute in. The file appears complete or not at all.
    """
    from safetensors.torch import save_file

    tensors = gather(engine, keep=ranks.is_first)
    if not ranks.is_first:
        return
    for name, tensor in objective.state_dict().items():
        tensors[f"objective.{name}"] = _host(tensor)
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, str(partial))
        partial.replace(path)
    except Exception as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"weights {path} could not be written: {error}") from error


def gather(engine: Any, keep: bool) -> dict[str, Tensor]:
    """The module's whole state on the CPU of ranks that ``keep`` it; every rank must call.

    Under ZeRO-3 one parameter at a time is whole on the device.
    """
    import deepspeed

    module = engine.module
    parameters = dict(module.named_parameters())
    tensors = {}
    for name, tensor in module.state_dict().items():
        parameter = parameters.get(name)
        partitioned = [parameter] if hasattr(parameter, "ds_id") else []
        with deepspeed.zero.GatheredParameters(partitioned):
            if keep:
                tensors[name] = _host(tensor if parameter is None else parameter)
    return tensors


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def load(module: nn.Module, objective: nn.Module, path: Path) -> None:
    """Load weights written by :func:`save` into a module that is not partitioned."""
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except Exception as error:
        raise UserError(f"weights {path} cannot be read: {error}") from error
    prefix = "objective."
    scalars = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    towers = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    try:
        objective.load_state_dict(scalars)
        module.load_state_dict(towers)
    except RuntimeError as error:
        raise UserError(f"weights {path} do not fit this model: {error}") from error
