"""Which way the layers are measured: in passes over the whole model, or one layer at a time over waiting states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.methods.subspace.memory import SINGLE
from kvw.methods.subspace.settings import Path, SubspaceSettings
from kvw.models.layer_inputs import decoder_layers
from kvw.models.placement import free_memory, layer_device
from kvw.models.value_matrix import ValueMatrix
from kvw.processes import current

ROOM = 0.8
"""How much of the free memory second moments and a solve may take; batches need some, too."""


def chosen_path(model: PreTrainedModel, matrices: Sequence[ValueMatrix], settings: SubspaceSettings) -> Path:
    """The path that the settings name, or if they leave it open the one that runs layers least often.

    Joint, one pass over the whole model runs each layer once and shares what questions about one image have in common.
    So it is taken wherever the second moments of all layers fit, and layer by layer where they do not: several passes
    would run early layers again and again. Sequential, the whole model takes a pass for each layer whatever fits, so
    layer by layer is taken, as it is for a sample of retain rows. Several processes share batches of the whole model.

    How much waiting states take is known only when the batches are; a dry run says it.

    Args:
        model: A loaded model.
        matrices: What is to be weakened.
        settings: With ``path`` or without.

    Raises:
        UserError: Layer by layer, or a sample of retain rows, is asked of several processes.
    """
    processes = current().size
    asked_for = settings.path == "layer by layer" or settings.retain_rows is not None
    if asked_for and processes > 1:
        raise UserError(
            "Layer by layer runs in one process.",
            found=f"{processes} processes",
            do="use path 'whole model' and full second moments, or one process",
        )
    if asked_for or settings.path is not None:
        return settings.path or "layer by layer"
    if settings.layers_per_pass is not None or processes > 1:
        return "whole model"
    if settings.schedule == "sequential" or layers_that_fit(model, matrices, settings) < _layers(matrices):
        return "layer by layer"
    return "whole model"


def layers_that_fit(model: PreTrainedModel, matrices: Sequence[ValueMatrix], settings: SubspaceSettings) -> int:
    """How many layers' second moments fit into the memory that is free now, on every device; at least 1.

    Args:
        model: A loaded model.
        matrices: What is to be weakened.
        settings: Say how many folds there are.
    """
    needed: dict[torch.device, int] = {}
    largest: dict[torch.device, int] = {}
    layers = decoder_layers(model)
    for matrix in matrices:
        device = layer_device(layers[matrix.key.layer])
        square = matrix.width**2 * SINGLE
        needed[device] = needed.get(device, 0) + square * settings.folds
        largest[device] = max(largest.get(device, 0), square)
    shares = [(ROOM * free_memory(device) - 3 * largest[device]) / needed[device] for device in needed]
    return max(1, int(_layers(matrices) * min([1.0, *shares])))


def _layers(matrices: Sequence[ValueMatrix]) -> int:
    return len({matrix.key.layer for matrix in matrices})
