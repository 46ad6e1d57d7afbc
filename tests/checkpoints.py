"""Checkpoints of any size and number of files, written tensor by tensor: no model is ever in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from tests import tiny_models

import kvw
from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import Directions
from kvw.models.finding import find_value_matrices
from kvw.models.headers import read_header
from kvw.models.loading import Checkpoint, find_checkpoint, skeleton
from kvw.models.weight_files import INDEX

PIECE = 4 * 2**20


def sharded(folder: Path, *, shards: int, hidden: int, width: int, layers: int, vocabulary: int = 500) -> Checkpoint:
    """Write a LLaVA checkpoint of random bfloat16 weights in shards of like size.

    Args:
        folder: Where to.
        shards: Number of weight files; the tensors are spread over them in the order of their names.
        hidden: Hidden width of the decoder; a multiple of 64.
        width: Knowledge vectors in each value matrix.
        layers: Decoder layers.
        vocabulary: Rows of the embedding.
    """
    tiny_models.save("llava", folder)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 64, "head_dim": 64}
    config["text_config"] |= {"hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers, **heads}
    config["text_config"]["vocab_size"] = vocabulary
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = find_checkpoint(str(folder))
    shapes = {name: list(value.shape) for name, value in skeleton(checkpoint).state_dict().items()}
    total = sum(map(_size, shapes.values()))
    files: list[dict[str, list[int]]] = [{} for _ in range(shards)]
    position = 0
    for name in sorted(shapes):
        files[(position + _size(shapes[name]) // 2) * shards // total][name] = shapes[name]
        position += _size(shapes[name])
    index = {}
    for number, part in enumerate(files):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        _write(folder / file, part, seed=number)
        index |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return checkpoint


def _size(shape: list[int]) -> int:
    return 2 * torch.Size(shape).numel()


def _write(path: Path, shapes: dict[str, list[int]], seed: int) -> None:
    header, position = {}, 0
    for name, shape in shapes.items():
        size = _size(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    content = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    content += b" " * (-len(content) % 8)
    generator = torch.Generator().manual_seed(seed)
    # The same piece again and again is quickly made, and shifted by an odd number no two tensors are alike.
    piece = torch.randn(PIECE // 2 - 1, generator=generator).mul(0.02).bfloat16().view(torch.uint8).numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for begin in range(0, position, len(piece)):
            file.write(piece[: position - begin])
        file.flush()
        os.fsync(file.fileno())


def gate_edit(checkpoint: Checkpoint, *layers: int, seed: int = 0) -> kvw.GateEdit:
    """Random gates for some layers of a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [matrix for matrix in find_value_matrices(skeleton(checkpoint)) if matrix.key.layer in layers]
    gates = {matrix.key: -torch.rand(matrix.width, generator=generator) for matrix in matrices}
    return kvw.GateEdit(gates, EditMetadata(method="kvw", base_model=checkpoint.name))


def low_rank_edit(checkpoint: Checkpoint, *layers: int, seed: int = 0) -> kvw.LowRankEdit:
    """Random directions for some layers of a checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [matrix for matrix in find_value_matrices(skeleton(checkpoint)) if matrix.key.layer in layers]
    found = {}
    for matrix in matrices:
        basis = torch.linalg.qr(torch.randn(matrix.width, 4, generator=generator)).Q
        found[matrix.key] = Directions(basis, basis, -torch.rand(4, generator=generator))
    return kvw.LowRankEdit(found, metadata=EditMetadata(method="subspace", base_model=checkpoint.name))


def tensor_bytes(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor in a folder's weight files, by name."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        found |= {name: content[tensor.begin : tensor.end] for name, tensor in read_header(path).items()}
    return found
