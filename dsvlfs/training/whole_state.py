"""Weights and optimiser state as whole tensors on the CPU, however they are divided between processes: not at all, by
FSDP2, or by DeepSpeed's ZeRO-2. So what one layout saved, any other goes on with. Every process calls these functions.
"""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ..modeling import DSVLFSModel

_MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's


def whole_weights(model: DSVLFSModel) -> dict[str, Tensor]:
    """`trained_state_dict`, whole, in full precision where there is one."""
    weights = {name: _whole(tensor) for name, tensor in model.trained_state_dict().items()}
    if _is_zero(model):
        from deepspeed.utils import safe_get_full_fp32_param

        weights |= {name: _whole(safe_get_full_fp32_param(parameter)) for name, parameter in _trained(model).items()}
    return weights


def whole_moments(model: DSVLFSModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's state, named PARAMETER/ENTRY; of parameters that had no gradient yet there is none."""
    if not _is_zero(model):
        return {
            f"{name}/{entry}": _whole(value)
            for name, parameter in _trained(model).items()
            for entry, value in optimizer.state.get(parameter, {}).items()
        }
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(optimizer.state.values()))["step"].cpu()  # of flat partitions, which all go together
    moments = {}
    for name, parameter in _trained(model).items():
        moments[f"{name}/step"] = step.clone()
        for entry in _MOMENTS:
            moments[f"{name}/{entry}"] = _whole(safe_get_full_optimizer_state(parameter, entry))
    return moments


def restore_moments(model: DSVLFSModel, optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Puts `whole_moments` into an optimizer that has not stepped."""
    parameters = _trained(model)
    if not _is_zero(model):
        for key, value in moments.items():
            name, entry = key.rsplit("/", 1)
            optimizer.state[parameters[name]][entry] = _divided_as(value, parameters[name])
        return
    from deepspeed.utils import safe_set_full_optimizer_state

    zero = optimizer.optimizer
    step = next(value for key, value in moments.items() if key.endswith("/step"))
    for flat in zero.single_partition_of_fp32_groups:
        zero.state[flat] = {"step": step.clone()} | {entry: torch.zeros_like(flat) for entry in _MOMENTS}
    zero._lazy_init_hp_params_optimizer_state()
    for name, parameter in parameters.items():
        for entry in _MOMENTS:
            safe_set_full_optimizer_state(parameter, moments[f"{name}/{entry}"].to(parameter.device), entry)


def restore_weights(model: DSVLFSModel, weights: dict[str, Tensor]) -> None:
    """Puts the full precision of `whole_weights` back where ZeRO-2 rounded it."""
    if not _is_zero(model):
        return
    from deepspeed.utils import safe_set_full_fp32_param

    for name, parameter in _trained(model).items():
        safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))


def _trained(model: DSVLFSModel) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _is_zero(model: DSVLFSModel) -> bool:
    """Whether DeepSpeed's ZeRO keeps the parameters' full precision."""
    return any(hasattr(parameter, "_hp_mapping") for parameter in model.parameters())


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().cpu().contiguous()


def _divided_as(value: Tensor, parameter: Tensor) -> Tensor:
    """A moment, where and as divided as its parameter; a count stays on the CPU."""
    if value.ndim == 0:
        return value
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value.to(parameter.device)
