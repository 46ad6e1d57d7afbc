"""Models in half precision and in packed weights: measured and edited by hook; packed ones are never rewritten."""

from __future__ import annotations

import copy
import functools
import json

import pytest
import torch
from bitsandbytes.nn import Linear8bitLt
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.batches import logits, text_batch
from tests.quantised import FULL, HIDDEN, LAYERS, SCHEMES, WIDTH, full_precision, reference, save_compressed
from torch import nn

import kvw
from kvw.edits import RoundedGateEdit
from kvw.edits.rounded_gates import KeptWeights
from kvw.models.finding import find_value_matrices
from kvw.models.loading import check_finite, find_checkpoint, load_model
from kvw.models.quantised import packed_shape, plain_tensors, quantisation, refuse_quantised, stored_quantisation
from kvw.models.saving import parameter_bytes
from kvw.models.value_matrix import linear_shape

pytestmark = pytest.mark.thorough

FORGET, RETAIN = text_batch(3, 12, 3, seed=0), text_batch(4, 12, 4, seed=1)
EXACT = {"float32", "torchao int8", "torchao int4", "compressed-tensors int8", "compressed-tensors int4"}
"""Compute in float32 from their packed weights. The others round activations: to sixteen bits, or to eight."""


@functools.cache
def shared(name):
    return {**FULL, **SCHEMES}[name]()


@pytest.fixture(params=[*FULL, *SCHEMES])
def name(request):
    return request.param


def gates(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrices = find_value_matrices(model)
    return kvw.GateEdit({matrix.key: -2 * torch.rand(matrix.width, generator=generator) for matrix in matrices})


def stored(model):
    return {
        f"{prefix}.{name}": tensor.clone()
        for prefix, module in model.named_modules()
        for name, tensor in plain_tensors(module)
    }


def hooked(model, batch):
    """Mean absolute inputs of the value projections where an answer token is predicted, by hooks of our own."""
    seen = {}
    handles = [
        layer.mlp.down_proj.register_forward_pre_hook(lambda _, inputs, index=index: seen.update({index: inputs[0]}))
        for index, layer in enumerate(model.model.layers)
    ]
    logits(model, batch)
    for handle in handles:
        handle.remove()
    predicting = batch["labels"][:, 1:] != -100
    return {index: value[:, :-1][predicting].double().abs().mean(0) for index, value in seen.items()}


def test_value_matrices_are_found_and_measured(name):
    model = shared(name)
    matrices = find_value_matrices(model)
    assert [(matrix.width, matrix.hidden) for matrix in matrices] == [(WIDTH, HIDDEN)] * LAYERS
    assert all((quantisation(matrix.module) is None) == (name in FULL) for matrix in matrices)
    forget, retain = hooked(model, FORGET), hooked(model, RETAIN)
    statistics = kvw.measure(model, [FORGET])
    edit = kvw.weaken(model, [FORGET], [RETAIN], kvw.KvwSettings(seed=None, gamma=0.5, layers=(0, LAYERS - 1)))
    for matrix in matrices:
        layer = matrix.key.layer
        torch.testing.assert_close(statistics.coefficients(matrix.key), forget[layer], rtol=1e-6, atol=0)
        # One batch is one step, which sees the model as it was.
        accessor = (torch.log(forget[layer] + 1e-12) - torch.log(retain[layer] + 1e-12)).clamp(min=0)
        torch.testing.assert_close(edit.log_gates[matrix.key].double(), -0.5 * accessor, rtol=1e-5, atol=1e-6)


def test_an_attached_edit_changes_the_output_by_what_the_unpacked_weights_say(name):
    """Against the same functions in float32 with the edit folded in once; no edit, or two, would be far off."""
    model = shared(name)
    edit, exact = gates(model), reference(model)
    original = logits(model, FORGET)
    before = stored(model)
    with edit.attach(model):
        found = logits(model, FORGET).float() - original.float()
    assert torch.equal(logits(model, FORGET), original)
    assert all(torch.equal(before[part], tensor) for part, tensor in stored(model).items())

    unedited = logits(exact, FORGET)
    edit.fold(exact)
    once = logits(exact, FORGET) - unedited
    edit.fold(exact)
    twice = logits(exact, FORGET) - unedited
    tolerance = 1e-4 if name in EXACT else 0.1
    assert (found - once).norm() < tolerance * once.norm()
    assert (found - twice).norm() > 0.25 * once.norm()
    assert (once - twice).norm() > 3 * tolerance * once.norm()


@pytest.mark.parametrize("name", FULL)
def test_folding_into_any_full_precision_is_what_attaching_does(name):
    model = copy.deepcopy(shared(name))
    edit = gates(model)
    original = logits(model, FORGET).float()
    with edit.attach(model):
        attached = logits(model, FORGET).float() - original
    edit.fold(model)
    folded = logits(model, FORGET).float() - original
    assert (folded - attached).norm() < (1e-4 if name in EXACT else 0.05) * attached.norm()


@pytest.mark.parametrize("name", SCHEMES)
def test_packed_weights_are_never_rewritten(name):
    model = shared(name)
    logits(model, FORGET)  # some libraries pack anew, or unpack, on the first forward
    before = stored(model)
    edit, matrix = gates(model), find_value_matrices(model)[1]
    rounded = RoundedGateEdit({key: value.exp()[None] for key, value in edit.log_gates.items()})
    attempts = [
        lambda: edit.fold(model),
        lambda: rounded.fold(model),
        lambda: rounded.attach(model),
        lambda: KeptWeights([matrix]),
        matrix.read,
        lambda: matrix.write(torch.zeros(HIDDEN, WIDTH)),
        lambda: kvw.weaken(model, [FORGET], [RETAIN], kvw.KvwSettings(seed=None, layers=(0, 1), parity=True)),
    ]
    for attempt in attempts:
        with pytest.raises(kvw.UserError, match="quantised weights") as caught:
            attempt()
        assert "attach the edit instead" in caught.value.do
        assert "kvw apply" in caught.value.do
        assert name.split()[0] in caught.value.found
    assert all(torch.equal(before[part], tensor) for part, tensor in stored(model).items())


def test_nothing_is_folded_if_a_later_layer_is_packed():
    model = copy.deepcopy(full_precision())
    model.model.layers[3].mlp.down_proj = Linear8bitLt(WIDTH, HIDDEN, bias=False, has_fp16_weights=False)
    before = stored(model)
    with pytest.raises(kvw.UserError, match=r"layers\.3\.mlp\.down_proj holds quantised weights"):
        gates(model).fold(model)
    assert all(torch.equal(before[part], tensor) for part, tensor in stored(model).items())


class PackedLinear(nn.Module):
    """What the classes of GPTQ and AWQ have in common: two widths, integers, scales, and no weight."""

    def __init__(self, linear, names):
        super().__init__()
        for attribute, size in zip(names, (linear.in_features, linear.out_features), strict=True):
            setattr(self, attribute, size)
        scales = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scales", scales)
        self.register_buffer("qweight", (linear.weight.detach() / scales).round().to(torch.int8))

    def forward(self, inputs):
        return inputs @ (self.qweight * self.scales).T


@pytest.mark.parametrize("names", [("in_features", "out_features"), ("infeatures", "outfeatures")])
def test_linear_maps_of_a_class_of_their_own(names):
    model = copy.deepcopy(full_precision())
    for layer in model.model.layers:
        for place in ("up_proj", "down_proj"):
            setattr(layer.mlp, place, PackedLinear(getattr(layer.mlp, place), names))
    exact = copy.deepcopy(full_precision())
    for layer, packed in zip(exact.model.layers, model.model.layers, strict=True):
        for place in ("up_proj", "down_proj"):
            part = getattr(packed.mlp, place)
            getattr(layer.mlp, place).weight.data = part.qweight * part.scales
    edit = gates(model)
    with edit.attach(model):
        attached = logits(model, FORGET)
    edit.fold(exact)
    torch.testing.assert_close(attached, logits(exact, FORGET), rtol=1e-4, atol=1e-5)
    with pytest.raises(kvw.UserError, match="quantised") as caught:
        edit.fold(model)
    assert "PackedLinear" in caught.value.found


def test_what_only_looks_like_a_packed_map_is_none():
    class Router(nn.Module):
        in_features, out_features = 4, 2

    assert packed_shape(Router()) is linear_shape(Router()) is quantisation(Router()) is None
    assert packed_shape(nn.LayerNorm(4)) is None
    plain = nn.Linear(4, 2)
    assert quantisation(plain) is None
    refuse_quantised("plain", plain)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_plain_module_with_a_packed_weight(dtype):
    linear = nn.Linear(4, 2)
    linear.weight = nn.Parameter(torch.zeros(2, 4).to(dtype), requires_grad=False)
    assert quantisation(linear) == f"Linear in {str(dtype).removeprefix('torch.')}"


def test_packed_weights_are_counted_as_packed():
    linear = HIDDEN * WIDTH * 3 + HIDDEN * HIDDEN * 3
    full = parameter_bytes(shared("float32"))
    for name, bits in (("bitsandbytes 8-bit", 8), ("bitsandbytes nf4", 4), ("torchao int8", 8)):
        saved = full - parameter_bytes(shared(name))
        assert saved == pytest.approx(linear * LAYERS * (4 - bits / 8), rel=0.05), name


@pytest.fixture(params=["bitsandbytes 8-bit", "bitsandbytes nf4", "torchao int8", "compressed-tensors int4"])
def packed_folder(request, tmp_path):
    """A checkpoint whose files hold packed weights."""
    if request.param.startswith("compressed"):
        save_compressed(tmp_path, 4)
    else:
        SCHEMES[request.param]().save_pretrained(tmp_path)
    return tmp_path


def test_packed_checkpoints_are_loaded(packed_folder):
    assert stored_quantisation(packed_folder) in ("bitsandbytes", "torchao", "compressed-tensors")
    model = load_model(find_checkpoint(str(packed_folder)), "cpu")
    assert all(quantisation(matrix.module) for matrix in find_value_matrices(model))
    kvw.measure(model, [FORGET])
    with pytest.raises(kvw.UserError, match="is quantised already"):
        load_model(find_checkpoint(str(packed_folder)), quantise="8bit")


def test_packed_checkpoints_with_broken_scales_are_refused(packed_folder):
    weights = load_file(packed_folder / "model.safetensors")
    place = "layers.2.mlp.down_proj"
    scale = next(
        name
        for name, value in weights.items()
        if place in name and value.is_floating_point() and ("scale" in name or "SCB" in name or "absmax" in name)
    )
    weights[scale].view(-1)[0] = float("nan")
    with safe_open(packed_folder / "model.safetensors", "pt") as file:
        header = file.metadata()
    save_file(weights, packed_folder / "model.safetensors", header)
    with pytest.raises(kvw.UserError, match="NaN or infinity") as caught:
        load_model(find_checkpoint(str(packed_folder)), "cpu")
    assert place in caught.value.found


def test_a_scheme_inside_the_text_configuration_is_seen(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"quantization_config": {"bits": 4}}}))
    assert stored_quantisation(tmp_path) == "unnamed"
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"hidden_size": 4}}))
    assert stored_quantisation(tmp_path) is None


def test_nan_in_eight_bit_floats_is_found(tmp_path):
    model = copy.deepcopy(full_precision())
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data = weight.data.to(torch.float8_e4m3fn)
    check_finite(model)
    weight.data.view(torch.uint8)[0, 0] = 0x7F
    with pytest.raises(kvw.UserError, match=r"NaN or infinity\.\nfound: model\.layers\.1\.mlp\.down_proj\.weight"):
        check_finite(model)


@pytest.mark.parametrize(("quantise", "scheme"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
def test_quantising_while_loading(tmp_path, quantise, scheme, monkeypatch):
    full_precision().save_pretrained(tmp_path)
    checkpoint = find_checkpoint(str(tmp_path))
    assert quantisation(find_value_matrices(load_model(checkpoint))[0].module) is None
    model = load_model(checkpoint, quantise=quantise)
    assert quantisation(find_value_matrices(model)[0].module) == f"bitsandbytes {scheme}"
    monkeypatch.setattr(f"transformers.quantizers.quantizer_bnb_{quantise[0]}bit.is_bitsandbytes_available", bool)
    with pytest.raises(kvw.UserError, match="need a package that is not installed") as caught:
        load_model(checkpoint, quantise=quantise)
    assert "bitsandbytes" in caught.value.found
    assert "kvw[quantised]" in caught.value.do
