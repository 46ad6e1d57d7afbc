"""Writing a model back as an ordinary checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.files import existing_parent

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth")
DISK_RESERVE = 16 * 2**20
"""Bytes on top of the weights for tokenizer, configuration and records."""


def save_checkpoint(model: PreTrainedModel, source: Path, folder: Path) -> None:
    """Write weights under the names they have in the source, and every other file byte for byte from the source.

    The processor is copied, never saved from a live object: measuring may have changed its settings.

    Args:
        model: The model to write.
        source: Folder of the checkpoint it was loaded from.
        folder: Existing directory to write into, as a rule from :func:`kvw.files.new_directory`.

    Raises:
        OSError: The disk is full or the folder cannot be written.
        UserError: What was written does not hold the tensors of the source.
    """
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        # The writer of safetensors wraps the operating system's error in its own, as text.
        raise OSError(_error_number(str(error)), str(error)) from error
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and not any(path.match(pattern) for pattern in WEIGHT_FILES):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / relative)
    _check_tensors(model, source, folder)


def check_disk_space(model: PreTrainedModel, folder: Path) -> None:
    """Refuse before the work begins if the model will not fit on the disk.

    Raises:
        UserError: With the numbers.
    """
    needed = sum(weight.numel() * weight.element_size() for weight in model.parameters()) + DISK_RESERVE
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        raise UserError(
            f"The disk has no room for the model at {folder}.",
            found=f"{free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB needed",
            do="free space, name another --out, or keep only the edit with --no-model",
        )


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a checkpoint's safetensors files, read from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def _check_tensors(model: PreTrainedModel, source: Path, folder: Path) -> None:
    before, after = tensor_shapes(source), tensor_shapes(folder)
    # A tied weight is one tensor under two names; some checkpoints hold both, transformers writes one.
    tied = {name.rpartition(".")[0].rpartition(".")[2] for name in model.all_tied_weights_keys}
    different = sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
        and not (name not in after and name.rpartition(".")[0].rpartition(".")[2] in tied)
    )
    if before and different:
        raise UserError(
            "The saved model does not hold the tensors of its source, so other tools might not load it.",
            found=", ".join(different[:5]) + (", ..." if len(different) > 5 else ""),
            do="report this with the model's name; the edit file is unaffected",
        )


def _error_number(text: str) -> int:
    start = text.find("os error ")
    digits = text[start + len("os error ") :].split(")")[0] if start >= 0 else ""
    return int(digits) if digits.isdigit() else 0


def parameter_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters and buffers."""
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
