"""Where a model's weights lie and where it computes: one device, several, or offloaded to memory and disk."""

from __future__ import annotations

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

from kvw.errors import UserError

AUTO = "auto"
"""Spread over all accelerators, then main memory, then disk, as accelerate finds room."""


def device_map(device: torch.device | str | None) -> str | dict[str, torch.device]:
    """What transformers is told about where to put a model.

    Args:
        device: A device or its name, :data:`AUTO`, or None for the accelerator if there is one.

    Raises:
        UserError: This machine has no such device.
    """
    return AUTO if device == AUTO else {"": find_device(device)}


def find_device(device: torch.device | str | None) -> torch.device:
    """A device of this machine.

    Args:
        device: A device or its name; None for the current accelerator if there is one, else the CPU. Several processes
            on one machine have one accelerator each.

    Raises:
        UserError: There is none of that name.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    cpu = torch.device("cpu")
    if device is None:
        return torch.device(accelerator.type, torch.accelerator.current_device_index()) if accelerator else cpu
    count = torch.accelerator.device_count() if accelerator else 0
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen == cpu or (chosen and accelerator and chosen.type == accelerator.type and (chosen.index or 0) < count):
        return chosen
    names = [f"{accelerator.type}:{index}" for index in range(count)] if accelerator else []
    raise UserError(
        f"This machine has no device '{device}'.", found=", ".join([*names, "cpu"]), do=f"name one of them, or {AUTO}"
    )


def execution_device(model: PreTrainedModel) -> torch.device:
    """Where the first layers compute; of an offloaded model, whose weights lie elsewhere, where they are brought to."""
    for module in model.modules():
        device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return model.device


def layer_device(layer: nn.Module) -> torch.device:
    """Where one layer computes, also if its weights lie elsewhere between forwards."""
    hooks = (getattr(module, "_hf_hook", None) for module in layer.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    chosen = next((device for device in devices if device is not None), None)
    return torch.device(chosen) if chosen is not None else next(layer.parameters()).device


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken there now; on accelerators with what torch keeps in reserve."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    free, _ = torch.accelerator.get_memory_info(device)
    return int(free + torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device))


def accelerators(model: PreTrainedModel) -> list[torch.device]:
    """The accelerators that a model lies or computes on, in order."""
    used = {parameter.device for parameter in model.parameters()} | {execution_device(model)}
    return sorted((device for device in used if device.type not in ("cpu", "meta")), key=str)


def describe_devices(model: PreTrainedModel) -> str:
    """The devices a model computes on, and whether some of its weights are offloaded."""
    names = [str(device) for device in accelerators(model)] or ["cpu"]
    offloaded = any(parameter.device.type == "meta" for parameter in model.parameters())
    return ", ".join(names) + (", weights partly offloaded" if offloaded else "")
