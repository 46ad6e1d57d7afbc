"""The state of a training that has not ended: one safetensors file, no pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from kvw.errors import UserError
from kvw.files import new_file

FORMAT = "kvw training 3"


@dataclass(frozen=True)
class StepRecord:
    """What happened in one optimiser step.

    Args:
        step: 0-based.
        forget: Positions of its forget examples in the set.
        retain: Positions of its retain examples in the set.
        losses: Mean loss on each set before the update, unweighted, in the method's own terms; ``watched retain`` is
            the negative log-likelihood that the retain ceiling is compared with.
        gradient_norms: Norm of the gradient before clipping, for each update of the step.
        learning_rate: Learning rate of the step.
    """

    step: int
    forget: tuple[int, ...]
    retain: tuple[int, ...]
    losses: dict[str, float]
    gradient_norms: tuple[float, ...]
    learning_rate: float


@dataclass
class Progressed:
    """How far training has come.

    Args:
        history: One record per step that was made.
        stopped: Why it stopped early; empty if it did not.
        active: Positions of the forget examples that this epoch trains; None for all.
    """

    history: list[StepRecord] = field(default_factory=list)
    stopped: str = ""
    active: list[int] | None = None


def save_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progressed: Progressed,
    identity: Mapping[str, str],
    beside: Mapping[str, Tensor] = {},
) -> None:
    """Write weights, optimiser state and position as one file that replaces the one before.

    Random numbers need no state: those of a step are seeded with its number.

    Raises:
        UserError: The place cannot be written; an older file there is untouched.
    """
    tensors = {f"weights.{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = value.contiguous()
    tensors |= {f"beside.{name}": value.detach().contiguous() for name, value in beside.items()}
    header = {
        "format": FORMAT,
        "identity": json.dumps(identity),
        "history": json.dumps([asdict(record) for record in progressed.history]),
        "stopped": progressed.stopped,
        "active": json.dumps(progressed.active),
    }
    write_tensors(path, tensors, header | {"sha256": state_digest(tensors, header)})


def state_digest(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, and over a header."""
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode("utf-8"))
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically, without a second copy of the tensors in memory.

    Raises:
        UserError: The place cannot be written; an older file there is untouched.
    """
    try:
        with new_file(path) as temporary:
            save_file(dict(tensors), temporary, dict(header) if header else None)
    except SafetensorError as error:
        raise UserError(f"{path} could not be written.", found=str(error), do="free space or name another") from error


def load_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, str],
    beside: Mapping[str, Tensor] = {},
) -> Progressed:
    """Put weights and optimiser state back as they were saved.

    Args:
        path: What :func:`save_state` wrote.
        parameters: What is trained; filled in.
        optimizer: Over these parameters; filled in.
        identity: What the training depends on, part by part; must be what it was.
        beside: See :class:`~kvw.training.objective.Objective`; filled in.

    Returns:
        How far training had come.

    Raises:
        UserError: The file cannot be read, is damaged, or belongs to another training; the message says what differs.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise UserError(
                    f"{path} is not a saved training.",
                    found=f"format {header.get('format')!r}",
                    do="name another place for the state, or remove the file",
                )
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if header.pop("sha256", "") != state_digest(stored, header):
                found = "another SHA-256"
                raise UserError(f"{path} is damaged.", found=found, do="remove it to start the training anew")
            _same(path, json.loads(header["identity"]), identity)
            _fill(stored, parameters, optimizer)
            with torch.no_grad():
                for name, value in beside.items():
                    value.copy_(stored[f"beside.{name}"])
    except SafetensorError as error:
        raise UserError(f"{path} is not a saved training.", found=str(error), do="remove it to start anew") from error
    history = [_record(entry) for entry in json.loads(header["history"])]
    return Progressed(history, header["stopped"], json.loads(header["active"]))


def _same(path: Path, saved: Mapping[str, str], identity: Mapping[str, str]) -> None:
    different = [name for name in identity if saved.get(name) != identity[name]]
    if different:
        raise UserError(
            f"{path} was saved by another training, which this one cannot go on with.",
            found=f"different: {', '.join(different)}",
            do="give what the earlier one was given (the model as it was before it), or another place for the state",
        )


def _fill(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    state: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for stored, value in tensors.items():
        kind, _, rest = stored.partition(".")
        if kind == "optimizer":
            key, _, name = rest.partition(".")
            # AdamW keeps its count of steps on the CPU.
            state[name][key] = value if key == "step" else value.to(parameters[name].device)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weights.{name}"])
            if state[name]:
                optimizer.state[parameter] = state[name]


def _record(entry: Mapping[str, Any]) -> StepRecord:
    lists = {name: tuple(entry[name]) for name in ("forget", "retain", "gradient_norms")}
    return StepRecord(entry["step"], losses=entry["losses"], learning_rate=entry["learning_rate"], **lists)
