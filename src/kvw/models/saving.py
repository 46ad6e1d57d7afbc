"""Where a checkpoint's files hold the value matrices, and whether an edited copy of it is right."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.errors import Unwritable, UserError
from kvw.files import existing_parent
from kvw.models.quantised import plain_tensors
from kvw.models.stored import StoredMatrix
from kvw.models.value_matrix import MatrixKey
from kvw.models.weight_files import weight_files

SUMMATION = 2.0**-14
"""What the order of a sum of ten thousand float32 products may change, relative to the largest, generously."""
DISK_RESERVE = 16 * 2**20
"""Bytes on top of the weights for tokenizer, configuration and records."""


def check_saved(folder: Path, stored: Mapping[MatrixKey | str, StoredMatrix]) -> None:
    """Read the written value matrices back and compare them with the live ones they should be.

    Args:
        folder: What :func:`kvw.models.patching.save_checkpoint` wrote.
        stored: Its live matrices, with the edit folded in.

    Raises:
        UserError: One of them differs by more than rounding can explain.
    """
    for entry in stored.values():
        if not equal_up_to_rounding(entry.read(folder), entry.matrix.read().cpu()):
            raise UserError(
                f"{entry.name} in the written model is not the weight that was scored.",
                do="report this with the model's name",
            )


def equal_up_to_rounding(written: Tensor, live: Tensor) -> bool:
    """Whether two results of one edit differ by nothing but rounding, element by element and all together.

    They need not be equal to the bit: an accelerator adds up products in another order than the CPU, so here and
    there a sum lies on the other side of a rounding. Of different dtypes, they were made from originals that were
    rounded differently.

    Args:
        written: As it is in the file.
        live: As the model that was scored has it, on the CPU.
    """
    same = written.dtype == live.dtype
    eps = max(torch.finfo(written.dtype).eps, torch.finfo(live.dtype).eps)
    found, expected = written.double(), live.double()
    largest = float(expected.abs().max())
    if not torch.allclose(found, expected, rtol=2 * eps, atol=(SUMMATION if same else eps) * largest):
        return False
    # Few elements are rounded differently if the dtypes are the same: an edit that is missing changes them all.
    share = max(eps / 8, SUMMATION) if same else eps / 2
    return bool((found - expected).norm() <= share * expected.norm())


def check_disk_space(source: Path, folder: Path, instead: str, *, without: Collection[str] = ()) -> None:
    """Refuse before the work begins if the copy of a checkpoint will not fit on the disk.

    Args:
        source: The checkpoint.
        folder: Where the copy is to be.
        instead: What else the user can do, for the message.
        without: Names of weight files that need no room: written earlier, or shared with the source.

    Raises:
        Unwritable: With the numbers.
    """
    needed = sum(path.stat().st_size for path in weight_files(source) if path.name not in without)
    check_room(folder, needed + DISK_RESERVE, "the model", f", or {instead}")


def check_room(folder: Path, needed: int, what: str, instead: str = "") -> None:
    """Refuse before the work begins if something will not fit on the disk.

    Args:
        folder: Where it is to be.
        needed: Its bytes.
        what: What it is, for the message.
        instead: What else the user can do, for the message.

    Raises:
        Unwritable: With the numbers.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    if free < needed:
        raise Unwritable(
            f"The disk has no room for {what} at {folder}.",
            found=f"{free / 1e9:.2f} GB free, {needed / 1e9:.2f} GB needed",
            do=f"free space, name another --out{instead}",
        )


def parameter_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters and buffers, in the form in which they are kept."""
    tensors = {id(tensor): tensor for module in model.modules() for _, tensor in plain_tensors(module)}  # tied: once
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
