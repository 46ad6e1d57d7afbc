"""GGUF files of the tiny text models, written by the library as llama.cpp's converter lays them out."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize, quantize
from tests import text_models


def write(path: Path, kind: str = "llama", type_: str = "Q4_1", *, entries: dict | None = None) -> Path:
    """Write a tiny text model.

    Args:
        path: The file.
        kind: Of :func:`tests.text_models.build`; also what llama.cpp calls its architecture.
        type_: What the weights are stored as; vectors are stored as F32.
        entries: Texts and whole numbers for the metadata, beside the architecture.
    """
    model, _ = text_models.build(kind)
    writer, layers = gguf.GGUFWriter(path, kind), model.config.num_hidden_layers
    writer.add_block_count(layers)
    for name, value in (entries or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    names = gguf.get_tensor_name_map(architecture(kind), layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        turned = kind == "gpt2" and weight.dim() == 2 and ".h." in name  # Conv1D
        values = np.ascontiguousarray((weight.T if turned else weight).numpy())
        add(writer, names.get_name(name, (".weight", ".bias")), values, type_ if values.ndim == 2 else "F32")
    close(writer)
    return path


def architecture(kind: str):
    """The library's number for an architecture."""
    return {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[kind]


def add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, type_: str) -> None:
    """Add a tensor in a type; random bytes in a type that the library cannot write."""
    number = gguf.GGMLQuantizationType[type_]
    try:
        packed = quantize(values, number)
    except NotImplementedError:
        shape = gguf.quants.quant_shape_to_byte_shape(values.shape, number)
        packed = np.random.default_rng(0).integers(0, 60, shape, np.uint8)
    writer.add_tensor(name, packed, raw_dtype=number)


def close(writer: gguf.GGUFWriter) -> None:
    """Write everything that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file as numbers."""
    return {one.name: dequantize(one.data, one.tensor_type) for one in gguf.GGUFReader(path).tensors}
