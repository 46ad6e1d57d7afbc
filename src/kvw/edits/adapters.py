"""Edits as PEFT adapters: gates as the vector of IA3 on the input of the value projection, or any as a LoRA."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kvw.claim import new_directory
from kvw.edits.edit import Edit, EditMetadata
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.edits.served_adapters import Engine, served
from kvw.edits.weight_edit import WeightEdit
from kvw.errors import UserError
from kvw.files import write_bytes
from kvw.models.value_matrix import MatrixKey, ValueMatrix

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts in front of the module names of the model that it wraps."""
IA3 = ".ia3_l"
LORA_A, LORA_B = ".lora_A.weight", ".lora_B.weight"
HEADER = "kvw"
"""Name under which the weight file keeps the edit's metadata."""

Weights = Callable[[ValueMatrix], Tensor]


def export_ia3(
    edit: Edit, model: PreTrainedModel, directory: Path | str, *, base_model_name: str = "", force: bool = False
) -> None:
    """Write an edit as an IA3 adapter that ``peft.PeftModel.from_pretrained(model, directory)`` loads.

    The gates (float32) become the vector by which IA3 multiplies the input of a feed-forward layer, on the edited
    value projections and nothing else. Merged, the adapter gives the weights of :meth:`Edit.fold` bit for bit.

    Args:
        edit: Gates.
        model: The model that the edit is for, or its skeleton without weights; it is not changed.
        directory: Folder to write.
        base_model_name: What the adapter says it is for; the edit's own base model if empty.
        force: Replace what the folder holds.

    Raises:
        UserError: The edit is for another model or kind, the folder holds something, or PEFT is not installed.
    """
    if not isinstance(edit, GateEdit):
        raise _no_adapter(edit)
    matrices = _modules(edit, model)
    pattern = _pattern(matrices)
    configuration = _peft().IA3Config(
        target_modules=pattern,
        feedforward_modules=pattern,
        fan_in_fan_out=_transposed(matrices),
        base_model_name_or_path=base_model_name or _base_name(edit),
        inference_mode=True,
    )
    tensors = {
        f"{PREFIX}{matrix.name}{IA3}": edit.log_gates[key].exp()[None, :].contiguous()
        for key, matrix in matrices.items()
    }
    _write(Path(directory), configuration, tensors, edit.metadata, force)


def export_lora(
    edit: Edit,
    model: PreTrainedModel,
    directory: Path | str,
    *,
    base_model_name: str = "",
    weights: Weights = ValueMatrix.read,
    engine: Engine | None = None,
    force: bool = False,
) -> None:
    """Write an edit as a LoRA, W' = W + B A: the form of edits by directions as an adapter.

    The file and the memory take rank x (width + hidden) float32 numbers for each matrix. The rank of directions is
    their number; the rank of gates is the number of scaled vectors, several GB for a model of 7 B parameters.

    Args:
        edit: Gates or directions.
        model: The model that the edit is for; its skeleton is enough if ``weights`` does not look at it.
        directory: Folder to write.
        base_model_name: What the adapter says it is for; the edit's own base model if empty.
        weights: Gives the original weight of a value matrix, in any floating dtype.
        engine: Which engine is to serve it, see :mod:`kvw.edits.served_adapters`; None for PEFT.
        force: Replace what the folder holds.

    Raises:
        UserError: As of :func:`export_ia3`; or the edit scales nothing, or needs weights that are quantised.
    """
    if not isinstance(edit, GateEdit | LowRankEdit):
        raise _no_adapter(edit)
    matrices, factors = {}, {}
    for key, matrix in _modules(edit, model).items():
        pair = lora_factors(edit, key, knowledge_vectors(matrix, weights(matrix)))
        if len(pair[0]):
            matrices[key], factors[matrix.name] = matrix, pair
    if not matrices:
        raise UserError("The edit scales nothing, and a LoRA cannot be empty.", do="use --format ia3")
    target: str | list[str] = _pattern(matrices)
    ranks = {name: len(a) for name, (a, _) in factors.items()}
    largest = max(ranks.values())
    if engine:
        largest, factors = served(factors)
        # Engines go by the names of the tensors, and of this entry know only a list of last names.
        ranks, target = {}, sorted({name.rpartition(".")[2] for name in factors})
    configuration = _peft().LoraConfig(
        target_modules=target,
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,  # equal to the ranks: PEFT multiplies B A by alpha / rank
        lora_dropout=0.0,
        fan_in_fan_out=_transposed(matrices),
        base_model_name_or_path=base_model_name or _base_name(edit),
        inference_mode=True,
    )
    tensors = {
        f"{PREFIX}{name}{half}": tensor
        for name, pair in factors.items()
        for half, tensor in zip((LORA_A, LORA_B), pair, strict=True)
    }
    _write(Path(directory), configuration, tensors, edit.metadata, force)


def lora_rank(edit: GateEdit | LowRankEdit, key: MatrixKey) -> int:
    """The rank that a value matrix of an edit takes in a LoRA."""
    if isinstance(edit, LowRankEdit):
        return edit.directions[key].rank
    return int((edit.log_gates[key] != 0).sum())


def lora_factors(edit: GateEdit | LowRankEdit, key: MatrixKey, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """A (rank, width) and B (hidden, rank), float32, for a value matrix with knowledge vectors v: (hidden, width).

    Of gates, row k of A picks the k-th scaled coefficient j, and column k of B is (g_j - 1) v_j. Of directions, A is
    V^T and B is W U (g - 1).
    """
    if isinstance(edit, LowRankEdit):
        directions = edit.directions[key]
        # In float32 and in this order, as in folding, so that the merged LoRA has the same bits.
        outputs = (vectors.float() @ directions.patterns) * directions.changes(edit.strength)
        return directions.filters.T.contiguous(), outputs.contiguous()
    columns = (edit.log_gates[key] != 0).nonzero().flatten()
    scaled = vectors[:, columns] * torch.expm1(edit.log_gates[key][columns].double())
    return picking_rows(columns, vectors.shape[1]), scaled.float().contiguous()


def _no_adapter(edit: Edit) -> UserError:
    return UserError(
        f"Edits of kind '{edit.kind}' have no form as an adapter of this kind.",
        do="write them into a checkpoint: kvw apply",
    )


def _modules(edit: WeightEdit, model: PreTrainedModel) -> dict[MatrixKey, ValueMatrix]:
    """The modules that an adapter of the edit would change."""
    experts = [str(key) for key in edit.widths if key.expert is not None]
    if experts:
        raise UserError(
            "The edit scales experts, which PEFT does not reach: they are kept as one parameter and not as modules.",
            found=", ".join(experts[:3]),
            do="attach the edit, or write it into a checkpoint with: kvw apply",
        )
    return edit.value_matrices(model)


def _pattern(matrices: Mapping[MatrixKey, ValueMatrix]) -> str:
    """A regular expression that matches the names of these modules and no others.

    A list of suffixes would not do: PEFT would find the FFNs of the vision tower too.
    """
    layers: dict[tuple[str, str], list[int]] = {}
    for key, matrix in matrices.items():
        before, _, after = matrix.name.partition(f".{key.layer}.")
        layers.setdefault((before, after), []).append(key.layer)
    return "|".join(
        rf"{re.escape(before)}\.({'|'.join(map(str, numbers))})\.{re.escape(after)}"
        for (before, after), numbers in layers.items()
    )


def _transposed(matrices: Mapping[MatrixKey, ValueMatrix]) -> bool:
    return any(isinstance(matrix.module, Conv1D) for matrix in matrices.values())


def _base_name(edit: Edit) -> str:
    return edit.metadata.base_model.partition("@")[0]


def knowledge_vectors(matrix: ValueMatrix, weight: Tensor) -> Tensor:
    """The knowledge vectors as columns: (hidden, width), float64, on the CPU."""
    if not weight.is_floating_point():
        raise UserError(
            f"{matrix.name} holds quantised weights, and a LoRA is made of the original ones.",
            found=str(weight.dtype),
            do="use --format ia3, or the full-precision checkpoint",
        )
    upright = weight.T if isinstance(matrix.module, Conv1D) else weight
    return upright.cpu().double()


def picking_rows(columns: Tensor, width: int) -> Tensor:
    """Rows of the identity that pick coefficients: (columns, width), float32."""
    rows = torch.zeros(len(columns), width)
    rows[torch.arange(len(columns)), columns] = 1
    return rows


def _write(
    directory: Path, configuration: Any, tensors: Mapping[str, Tensor], metadata: EditMetadata, force: bool
) -> None:
    with new_directory(directory, "adapter", force=force) as folder:
        configuration.save_pretrained(folder)
        header = {"format": "pt", HEADER: metadata.model_dump_json()}
        write_bytes(folder / WEIGHTS, safetensors.torch.save(dict(tensors), header))


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise UserError("Adapters need the peft package.", found=str(error), do='pip install "kvw[peft]"') from error
    return peft
