"""Value matrices in a GGUF file, the format of llama.cpp and Ollama: where they lie, as numbers, and as bytes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvw.errors import UserError
from kvw.models.checkpoint import first_line
from kvw.models.value_matrix import MatrixKey
from kvw.optional import optional

ADAPTER = "make an adapter for the file as it is: kvw edit export EDIT FILE.gguf --format gguf-lora --out ADAPTER.gguf"


@dataclass(frozen=True)
class GgufMatrix:
    """One value matrix in a GGUF file, always of shape (hidden, width)."""

    key: MatrixKey
    name: str
    """Name of the tensor that holds it."""
    stored: Any
    """The library's tensor."""
    vectors_first: bool = False

    @property
    def type(self) -> str:
        """How its numbers are stored: ``Q4_1``, ``F16``."""
        return str(self.stored.tensor_type.name)

    @property
    def width(self) -> int:
        """Number of knowledge vectors."""
        return int(self.stored.shape[0])

    @property
    def packed(self) -> Any:
        """Its bytes as they lie in the file: an array with an axis for the rows, (hidden, ...)."""
        return self.stored.data if self.key.expert is None else self.stored.data[self.key.expert]

    @property
    def offset(self) -> int:
        """Where its first byte lies in the file."""
        return int(self.stored.data_offset) + int(self.packed.nbytes) * (self.key.expert or 0)

    def along_vectors(self, gates: Tensor) -> Tensor:
        """Gates (width,) in the shape in which a product with the weight scales knowledge vectors."""
        return gates

    def read(self) -> Tensor:
        """The numbers: (hidden, width), float32.

        Raises:
            UserError: The library cannot read this type.
        """
        try:
            return torch.from_numpy(np.array(_quants().dequantize(self.packed, self.stored.tensor_type), np.float32))
        except NotImplementedError as error:
            raise UserError(
                f"{self.name} is of a type that the package gguf cannot read.",
                found=self.type,
                do="use a file of another type, such as Q8_0 or F16",
            ) from error

    def rounded(self, weight: Tensor) -> Tensor:
        """What is left of numbers (hidden, width), float32, when they are stored in this type and read again."""
        packed = _quants().quantize(weight.numpy(), self.stored.tensor_type)
        return torch.from_numpy(np.array(_quants().dequantize(packed, self.stored.tensor_type), np.float32))

    def pack(self, weight: Tensor) -> bytes:
        """The bytes of other numbers (hidden, width), float32; blocks whose numbers are the file's keep their bytes."""
        quantised = self.stored.tensor_type
        packed = _quants().quantize(weight.numpy(), quantised)
        size = _gguf().GGML_QUANT_SIZES[quantised][0]
        same = (weight == self.read()).reshape(-1, size).all(1).numpy()
        blocks, before = packed.view(np.uint8).reshape(len(same), -1), np.ascontiguousarray(self.packed)
        return np.where(same[:, None], before.view(np.uint8).reshape(len(same), -1), blocks).tobytes()

    def check_writable(self) -> None:
        """Refuse a type that numbers cannot be stored in again.

        Raises:
            UserError: The library has no way to do it.
        """
        size = _gguf().GGML_QUANT_SIZES[self.stored.tensor_type][0]
        try:
            _quants().quantize(np.zeros((1, size), np.float32), self.stored.tensor_type)
        except NotImplementedError as error:
            raise UserError(
                f"{self.name} is stored as {self.type}, which the package gguf can read and not write.",
                found="it writes F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1 and Q4_0",
                do=f"{ADAPTER}; or apply the edit to a file of the model in F16 or Q8_0, and quantise that with "
                "llama-quantize",
            ) from error


class GgufFile:
    """A language model in a GGUF file.

    Args:
        path: The file.

    Raises:
        UserError: It is damaged, no model of one file, or the package gguf is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        optional("gguf", use="GGUF files need", extra="gguf")
        try:
            self._reader = _gguf().GGUFReader(path)
        except (ValueError, KeyError, IndexError, OverflowError, TypeError, MemoryError, OSError) as error:
            raise UserError(
                f"{path} is no intact GGUF file.", found=first_line(error), do="get an intact copy of it"
            ) from error
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._check_kind()

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the family of the model: ``llama``, ``qwen2``."""
        return str(self.field("general.architecture") or "")

    def field(self, name: str) -> Any:
        """An entry of the metadata; None if there is none of this name."""
        field = self._reader.get_field(name)
        return None if field is None else field.contents()

    def layout(self) -> dict[str, tuple[str, tuple[int, ...], int]]:
        """Type, shape and place of every tensor."""
        return {
            name: (tensor.tensor_type.name, tuple(map(int, tensor.shape)), int(tensor.data_offset))
            for name, tensor in self.tensors.items()
        }

    def value_matrices(self, widths: Mapping[MatrixKey, int]) -> dict[MatrixKey, GgufMatrix]:
        """The value matrices of an edit.

        Args:
            widths: How many knowledge vectors the edit expects in each.

        Raises:
            UserError: One is not there, has another width, or is multiplied by numbers of its own.
        """
        found = {key: self._find(key) for key in widths}
        wrong = [
            f"{key}: {width} in the edit, {'missing' if (matrix := found[key]) is None else matrix.width} in the file"
            for key, width in widths.items()
            if found[key] is None or found[key].width != width  # type: ignore[union-attr]
        ]
        if wrong:
            raise UserError(
                f"The edit does not fit the model in {self.path.name} ({self.architecture}).",
                found="; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else ""),
                do="give the GGUF file of the model that the edit was made on",
            )
        matrices = {key: matrix for key, matrix in found.items() if matrix is not None}
        for matrix in matrices.values():
            scale = matrix.name.removesuffix("weight") + "scale"
            if scale in self.tensors:
                raise UserError(
                    f"{matrix.name} is multiplied by numbers of its own, which kvw does not know how to change.",
                    found=scale,
                    do="use a file of another type, such as Q8_0 or F16",
                )
        return matrices

    def _find(self, key: MatrixKey) -> GgufMatrix | None:
        kinds = _gguf().MODEL_TENSOR
        if key.attention:
            candidates = [kinds.ATTN_OUT]
        elif key.expert is not None:
            candidates = [kinds.FFN_DOWN_EXP]
        else:
            candidates = [kinds.FFN_DOWN, kinds.FFN_DOWN_SHEXP]
        names = [f"{_gguf().TENSOR_NAMES[kind].format(bid=key.layer)}.weight" for kind in candidates]
        there = [self.tensors[name] for name in names if name in self.tensors]
        if len(there) != 1:
            return None
        axes = [int(size) for size in there[0].shape]
        if len(axes) != (2 if key.expert is None else 3) or (key.expert or 0) >= axes[-1]:
            return None
        return GgufMatrix(key, there[0].name, there[0])

    def _check_kind(self) -> None:
        kind, parts = self.field("general.type") or "model", self.field("split.count") or 1
        if kind != "model" or self.architecture in ("", "clip"):
            raise UserError(
                f"{self.path} holds no language model.",
                found=f"general.type {kind}, general.architecture {self.architecture or 'absent'}",
                do="give the file of the language model; the vision tower (mmproj) lies in another one",
            )
        if parts > 1:
            raise UserError(
                f"{self.path} is a part of a model.",
                found=f"{parts} files",
                do="put them together with: llama-gguf-split --merge FIRST-PART.gguf MODEL.gguf",
            )
        if self._reader.byte_order != "I":
            raise UserError(f"{self.path} has the byte order of another kind of machine.", do="get one of this kind")


def write_gguf_lora(path: Path, architecture: str, factors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Write an adapter as llama.cpp reads it.

    It multiplies B A by alpha / rank, the rank being that of the tensors, and by 1 if alpha is 0. So alpha is 0 here.

    Args:
        path: The file.
        architecture: That of the model, as the model's own file calls it.
        factors: A (rank, width) and B (hidden, rank), float32, by the name of the tensor that they change.
    """
    gguf = _gguf()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 0.0)
    for name, (a, b) in factors.items():
        writer.add_tensor(f"{name}.lora_a", a.float().contiguous().numpy())
        writer.add_tensor(f"{name}.lora_b", b.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf() -> Any:
    return optional("gguf", use="GGUF files need", extra="gguf")


def _quants() -> Any:
    return optional("gguf.quants", use="GGUF files need", extra="gguf")
