"""The trained weights in one safetensors file, whatever the ZeRO stage."""

from pathlib import Path

from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError
from fastclip.objectives.base import Objective
from fastclip.whole_files import appearing_whole


def save(objective: Objective, path: Path, ranks: Ranks) -> None:
    """Write the model's weights and buffers, and the objective's scalars as ``objective.*``.

    Weights have the dtype the model computes in. The file appears complete or not at all; every
    rank must call.
    """
    from safetensors.torch import save_file

    tensors = gather(objective.model, keep=ranks.is_first)
    if not ranks.is_first:
        return
    if objective.scalars is not None:
        for name, tensor in objective.scalars.state_dict().items():
            tensors[f"objective.{name}"] = _host(tensor)
    try:
        with appearing_whole(path) as partial:
            save_file(tensors, str(partial))
    except Exception as error:
        raise UserError(f"weights {path} could not be written: {error}") from error


def gather(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """A module's whole state on the CPU of ranks that ``keep`` it; every rank must call.

    Under ZeRO-3 one parameter at a time is whole on the device.
    """
    import deepspeed

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
