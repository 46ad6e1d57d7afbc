"""PEFT adapters read as gates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.adapters import (
    CONFIGURATION,
    HEADER,
    IA3,
    LORA_A,
    LORA_B,
    PREFIX,
    WEIGHTS,
    Weights,
    knowledge_vectors,
    picking_rows,
)
from kvw.edits.edit import EditMetadata, read_metadata
from kvw.edits.gates import GateEdit
from kvw.errors import UserError
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import ValueMatrix

TOLERANCE = 1e-5
"""How far a LoRA may be from columns of the weights times a factor, relative to each column's length."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Data types in which adapters are stored."""
LARGEST_RANK = 1e9


def import_adapter(directory: Path | str, model: PreTrainedModel, *, weights: Weights = ValueMatrix.read) -> GateEdit:
    """Read an adapter folder as gates: an IA3 of value projections, or a LoRA that :func:`export_lora` wrote.

    Gates from IA3 come back bit for bit if kvw wrote them, and within one rounding otherwise; log-gates may differ in
    the last digits, because many have the same exponential. Gates from a LoRA come back within 2e-7. What kvw stored
    of the edit's origin comes back too.

    Args:
        directory: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        model: The model that the adapter is for; for IA3 its skeleton is enough.
        weights: Gives the original weight of a value matrix; used for a LoRA only.

    Raises:
        UserError: The folder is no such adapter, acts on anything but value projections of this model's text
            decoder, or is no set of positive gates.
    """
    directory = Path(directory)
    settings, tensors, metadata = _read(directory)
    kind = settings.get("peft_type")
    if kind == "IA3":
        gates = _ia3_gates(tensors, model)
    elif kind == "LORA":
        gates = _lora_gates(settings, tensors, model, weights)
    else:
        raise UserError(
            f"{directory.name} is not an adapter that can be read as gates.", found=str(kind), do="use IA3 or LORA"
        )
    for matrix, value in gates.items():
        if not bool((value > 0).all() and value.isfinite().all()):
            wrong = value[~((value > 0) & value.isfinite())]
            raise UserError(
                "The adapter has factors that no gate can have: a gate is above 0.",
                found=f"{wrong.numel()} in {matrix.name}, such as {float(wrong[0]):g}",
                do="load the adapter with PEFT instead",
            )
    logs = {matrix.key: _logarithms(value) for matrix, value in gates.items()}
    amplifies = any(bool((value > 0).any()) for value in logs.values())
    origin = metadata or EditMetadata(
        method="adapter", settings={"peft_type": kind}, model_type=model.config.model_type
    )
    return GateEdit(logs, origin.model_copy(update={"amplifies": amplifies}))


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Tensor], EditMetadata | None]:
    missing = [name for name in (CONFIGURATION, WEIGHTS) if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"{directory} is not a PEFT adapter.",
            found=f"no {' and no '.join(missing)}",
            do="name a folder that save_pretrained of PEFT or kvw edit export has written",
        )
    try:
        settings = json.loads((directory / CONFIGURATION).read_text("utf-8"))
        with safe_open(directory / WEIGHTS, "pt") as file:
            stored = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = read_metadata(stored) if stored else None
        for name, tensor in tensors.items():
            if tensor.dtype not in DTYPES:
                raise ValueError(f"{name[:60]} is in {tensor.dtype}, not in {', '.join(map(str, DTYPES))}")
            if not tensor.numel() or not bool(tensor.isfinite().all()):
                raise ValueError(f"{name[:60]} is empty or not finite")
    except (SafetensorError, OSError, ValueError, OverflowError, RuntimeError) as error:
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(
            f"The adapter {directory} cannot be read.", found=found, do="download or write the adapter again"
        ) from error
    if not isinstance(settings, dict):
        raise UserError(
            f"The adapter {directory} cannot be read.",
            found=f"{CONFIGURATION} is not an object",
            do="download or write the adapter again",
        )
    return settings, tensors, metadata


def _ia3_gates(tensors: Mapping[str, Tensor], model: PreTrainedModel) -> dict[ValueMatrix, Tensor]:
    gates = {}
    for matrix, parts in _by_matrix(tensors, (IA3,), model).items():
        vector = parts[IA3]
        if vector.shape != (1, matrix.width):
            raise _unfit(matrix, f"IA3 vector of shape {tuple(vector.shape)}", f"(1, {matrix.width})")
        gates[matrix] = vector[0].float()
    return gates


def _lora_gates(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], model: PreTrainedModel, weights: Weights
) -> dict[ValueMatrix, Tensor]:
    gates = {}
    for matrix, parts in _by_matrix(tensors, (LORA_A, LORA_B), model).items():
        rows, vectors = (parts[ending].double() for ending in (LORA_A, LORA_B))
        rank = rows.shape[0] if rows.ndim else 0
        if rows.shape != (rank, matrix.width) or vectors.shape != (matrix.hidden, rank):
            raise _unfit(matrix, f"LoRA of shapes {tuple(rows.shape)}, {tuple(vectors.shape)}", "its width and rank")
        if _scaling(settings, matrix.name) != 1:
            raise _not_gates(matrix, "a LoRA whose alpha is not its rank")
        columns = rows.argmax(1)
        if not torch.equal(rows, picking_rows(columns, matrix.width).double()) or len(set(columns.tolist())) != rank:
            raise _not_gates(matrix, "a LoRA that mixes coefficients")
        originals = knowledge_vectors(matrix, weights(matrix))[:, columns]
        squares = (originals**2).sum(0)
        factors = (vectors * originals).sum(0) / squares.where(squares > 0, 1)
        if bool(((vectors - originals * factors).norm(dim=0) > TOLERANCE * squares.sqrt()).any()):
            raise _not_gates(matrix, "a LoRA that turns knowledge vectors, or one made from other weights")
        gates[matrix] = torch.ones(matrix.width).index_copy(0, columns, (1 + factors).float())
    return gates


def _scaling(settings: Mapping[str, Any], name: str) -> float:
    """The factor by which PEFT would multiply B A; 0 if the configuration does not state it correctly."""

    def stated(pattern: str, default: str) -> Any:
        by_module = settings.get(pattern)
        return by_module.get(name, settings.get(default)) if isinstance(by_module, Mapping) else settings.get(default)

    rank, alpha = stated("rank_pattern", "r"), stated("alpha_pattern", "lora_alpha")
    unusual = any(settings.get(option) for option in ("use_rslora", "use_dora", "lora_bias"))
    numbers = all(isinstance(value, int | float) and 0 < value < LARGEST_RANK for value in (rank, alpha))
    return 0.0 if unusual or not numbers else alpha / rank


def _by_matrix(
    tensors: Mapping[str, Tensor], endings: tuple[str, ...], model: PreTrainedModel
) -> dict[ValueMatrix, dict[str, Tensor]]:
    """Sort an adapter's tensors by the value matrix that they act on."""
    matrices = {matrix.name: matrix for matrix in find_value_matrices(model, "both")}
    modules = {name for name, _ in model.named_modules()}
    found: dict[ValueMatrix, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in endings if name.endswith(ending)), None)
        module = name.removeprefix(PREFIX).removesuffix(ending or "")
        matrix = _resolve(module, matrices, modules) if ending else None
        if matrix is None or ending is None or ending in found.get(matrix, {}):
            raise UserError(
                "The adapter acts on more than the value projections of the text decoder.",
                found=name,
                do="load it with PEFT instead; an edit scales knowledge vectors only",
            )
        found.setdefault(matrix, {})[ending] = tensor
    for matrix, parts in found.items():
        if len(parts) < len(endings):
            raise _unfit(matrix, f"only {', '.join(parts)}", ", ".join(endings))
    if not found:
        raise UserError("The adapter is empty.", do="give an adapter that changes something")
    return found


def _resolve(module: str, matrices: Mapping[str, ValueMatrix], modules: set[str]) -> ValueMatrix | None:
    """The value matrix of this name, or, where the model has no such module, of the name that it had formerly.

    Libraries move and rename the front of module names (``language_model.model.layers`` became
    ``model.language_model.layers``). A former name has the same end, from the list of layers on, and no part in
    front of it that the name of today lacks.
    """
    if module in modules:
        return matrices.get(module)
    for name, matrix in matrices.items():
        parts, former = name.split("."), module.split(".")
        tail = len(parts) - parts.index(str(matrix.key.layer)) + 1
        if former[-tail:] == parts[-tail:] and set(former[:-tail]) <= set(parts[:-tail]):
            return matrix
    return None


def _logarithms(gates: Tensor) -> Tensor:
    """Log-gates whose float32 exponentials are the given gates, where there are such; else the nearest."""
    logs = gates.double().log().float()
    best = logs.clone()
    for candidate in _neighbours(logs):
        better = (candidate.exp() - gates).abs() < (best.exp() - gates).abs()
        best = torch.where(better, candidate, best)
    return best


def _neighbours(values: Tensor) -> list[Tensor]:
    up, down = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    above, below = values.nextafter(up), values.nextafter(down)
    return [above, below, above.nextafter(up), below.nextafter(down)]


def _unfit(matrix: ValueMatrix, found: str, needed: str) -> UserError:
    return UserError(
        f"The adapter does not fit {matrix.name}.", found=found, do=f"expected {needed}: use it with its base model"
    )


def _not_gates(matrix: ValueMatrix, found: str) -> UserError:
    return UserError(
        "This LoRA is not a set of gates on the value projections, and only such a one can be an edit.",
        found=f"{found}, at {matrix.name}",
        do="load it with PEFT instead",
    )
