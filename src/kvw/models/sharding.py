"""Value matrices whose knowledge vectors are split over several processes, as transformers' ``tp_plan`` does it.

Each process then holds some columns of the weight and sees only their coefficients. Statistics and edits are always of
the whole width: sums are put together when they are measured, gates are cut when they are used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from kvw.errors import UserError
from kvw.processes import current


def sharded_weight(module: nn.Module) -> DTensor | None:
    """The weight of a value projection if its knowledge vectors are split over processes, None if all are here.

    Raises:
        UserError: The weight is split in another way.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, DTensor):
        return None
    if weight.placements not in ((Shard(1),), (Shard(-1),)):
        raise UserError(
            "A value matrix is split over processes in a way that kvw does not know.",
            found=f"placements {weight.placements}",
            do="load the model with tp_plan='auto', or unsplit",
        )
    return weight


def gathered(own: Tensor, module: nn.Module) -> Tensor:
    """One number for each knowledge vector, from the numbers for those in each process.

    Args:
        own: (own width,).
        module: The value projection.

    Returns:
        (width,), the same in every process.
    """
    weight = sharded_weight(module)
    if weight is None:
        return own
    shape = torch.Size([weight.shape[1]])
    whole = DTensor.from_local(own, weight.device_mesh, [Shard(0)], run_check=False, shape=shape, stride=(1,))
    return whole.full_tensor()


def own_part(whole: Tensor, module: nn.Module) -> Tensor:
    """The part of ``whole`` (width,) that belongs to the vectors in this process: (own width,)."""
    weight = sharded_weight(module)
    if weight is None:
        return whole
    return distribute_tensor(whole, weight.device_mesh, [Shard(0)], src_data_rank=None).to_local()


def whole_weight(module: nn.Module) -> Tensor:
    """The weight of a value projection, put together if it is split over processes."""
    weight = sharded_weight(module)
    if weight is not None:
        with torch.no_grad():
            return weight.full_tensor()
    held: Tensor = module.get_parameter("weight").detach()
    return held


def as_split(whole: Tensor, module: nn.Module) -> Tensor:
    """A weight in the form in which the module holds its own."""
    weight = sharded_weight(module)
    if weight is None:
        return whole
    return distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)


def refuse_scattered_data(model: nn.Module) -> None:
    """Refuse a model that is split over the same processes that the data are scattered over.

    Raises:
        UserError: The model is split, so no process could run a batch by itself.
    """
    if current().size > 1 and any(isinstance(weight, DTensor) for weight in model.parameters()):
        raise UserError(
            "The model is split over processes, and the data cannot be scattered over the same processes.",
            do="call kvw outside of kvw.together(): every process then runs all data through its part of the model",
        )
