"""GPTQ and AWQ checkpoints, packed by hand and loaded by the library that runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.batches import logits, text_batch
from tests.quantised import full_precision, reference
from torch import Tensor, nn

import kvw
from kvw.models.finding import find_value_matrices
from kvw.models.loading import find_checkpoint, load_model
from kvw.models.quantised import quantisation

REASON = "not a dependency of the tests: compiles its kernels for minutes and sets environment variables on import"
GROUP, ZERO = 32, 8
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
BATCH = text_batch(3, 12, 3, seed=0)
CONFIGURATIONS = {
    "gptq": {"desc_act": False, "sym": True, "checkpoint_format": "gptq"},
    "awq": {"zero_point": True, "version": "gemm"},
}


def nibbles(values: Tensor, axis: int) -> Tensor:
    """Eight numbers of four bits in each int32, along an axis."""
    first = values.long().movedim(axis, 0).unflatten(0, (-1, 8))
    packed = sum(first[:, place] << (4 * place) for place in range(8))
    return torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32).movedim(0, axis).contiguous()


def packed(name: str, weight: Tensor, method: str) -> dict[str, Tensor]:
    """One linear map as the files of the method hold it."""
    grouped = weight.T.unflatten(0, (-1, GROUP))  # (groups, GROUP, out)
    scales = grouped.abs().amax(1, keepdim=True) / 7.5
    numbers = ((grouped / scales).round().clamp(-8, 7) + ZERO).flatten(0, 1)
    zeros = torch.full_like(scales.squeeze(1), ZERO)
    if method == "gptq":  # packed along the inputs; zeros are stored less one
        parts = {"qweight": nibbles(numbers, 0), "qzeros": nibbles(zeros - 1, 1)}
        parts["g_idx"] = (torch.arange(len(numbers)) // GROUP).int()
    else:
        numbers, zeros = (part.unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1) for part in (numbers, zeros))
        parts = {"qweight": nibbles(numbers, 1), "qzeros": nibbles(zeros, 1)}
    return {f"{name}.{part}": value for part, value in {**parts, "scales": scales.squeeze(1).half()}.items()}


def save(folder: Path, method: str) -> None:
    model, tensors = full_precision(), {}
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    for name, value in model.state_dict().items():
        module = name.removesuffix(".weight")
        tensors |= packed(module, value, method) if module in linear else {name: value.half()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    scheme = {"quant_method": method, "bits": 4, "group_size": GROUP, **CONFIGURATIONS[method]}
    config = {**model.config.to_dict(), "dtype": "float16", "quantization_config": scheme}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize("method", CONFIGURATIONS)
def test_gptq_and_awq_checkpoints_are_measured_and_edited_by_hook(method, tmp_path):
    pytest.importorskip("gptqmodel", reason=REASON)
    pytest.importorskip("optimum", reason=REASON)
    save(tmp_path, method)
    model = load_model(find_checkpoint(str(tmp_path)), "cpu")
    matrices = find_value_matrices(model)
    assert all(quantisation(matrix.module).startswith("gptqmodel ") for matrix in matrices)
    edit = kvw.weaken(
        model, [BATCH], [text_batch(4, 12, 4, seed=1)], kvw.KvwSettings(seed=None, gamma=2.0, layers=(0, 3))
    )
    exact, original = reference(model), logits(model, BATCH)
    with edit.attach(model):
        found = logits(model, BATCH).float() - original.float()
    assert torch.equal(logits(model, BATCH), original)
    unedited = logits(exact, BATCH)
    edit.fold(exact)
    expected = logits(exact, BATCH) - unedited
    assert (found - expected).norm() < 0.05 * expected.norm()
    with pytest.raises(kvw.UserError, match="quantised weights"):
        edit.fold(model)
