"""Edits as PEFT adapters: the same numbers, on the text decoder alone, and back again."""

from __future__ import annotations

import copy
import json
import sys

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.batches import logits, text_batch, weights
from tests.edits.test_low_rank import low_rank_edit
from tests.families import (
    NOT_ALONE,
    TEXT,
    UNTESTED,
    VISION_LANGUAGE,
    WITH_EXPERTS,
    build_family,
    family_batch,
)
from tests.fixtures import built

import kvw
from kvw.edits import EditMetadata, GateEdit, RoundedGateEdit, export_ia3, export_lora, import_adapter, invert
from kvw.edits.adapters import WEIGHTS
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

pytestmark = pytest.mark.thorough

BATCH = text_batch(2, 10, 3, seed=0)
FEW = ("paligemma", "llava_onevision", "idefics3", "gpt2", "t5")
EXPORTS = {"ia3": export_ia3, "lora": export_lora}


def gate_edit(model, depth=3.0, **metadata):
    """Two vectors in five weakened in all layers but the first."""
    generator = torch.Generator().manual_seed(0)
    logs = {}
    for matrix in find_value_matrices(model)[1:]:
        chosen = torch.rand(matrix.width, generator=generator) < 0.4
        logs[matrix.key] = -depth * torch.rand(matrix.width, generator=generator) * chosen
    return GateEdit(logs, EditMetadata(method="kvw", **metadata))


def with_adapter(model, directory):
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), directory)


def vision_language_model(family="qwen2_5_vl"):
    return copy.deepcopy(built(family)[0]).eval()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_ia3_adapter_is_the_folded_edit_bit_for_bit(family, dtype, tmp_path):
    model = vision_language_model(family).to(dtype)
    edit = gate_edit(model)
    export_ia3(edit, model, tmp_path / "adapter")
    merged = with_adapter(model, tmp_path / "adapter").merge_and_unload().state_dict()
    before = copy.deepcopy(model.state_dict())
    edit.fold(model)
    assert all(torch.equal(merged[name], weight) for name, weight in model.state_dict().items())
    changed = [name for name, weight in before.items() if not torch.equal(merged[name], weight)]
    assert changed == [f"{matrix.name}.weight" for matrix in find_value_matrices(model)[1:]]


@pytest.mark.parametrize("form", EXPORTS)
def test_an_adapter_gives_the_logits_of_the_attached_edit(qwen2_vl, form, tmp_path):
    edit, original = gate_edit(qwen2_vl), logits(qwen2_vl, BATCH)
    EXPORTS[form](edit, qwen2_vl, tmp_path / "adapter")
    with edit.attach(qwen2_vl):
        attached = logits(qwen2_vl, BATCH)
    assert (attached - original).norm() > 0.05 * original.norm()
    found = logits(with_adapter(qwen2_vl, tmp_path / "adapter"), BATCH)
    limit = {"ia3": 1e-6, "lora": 1e-5}[form]
    assert (found - attached).abs().max() <= limit * attached.abs().max()


def test_a_merged_lora_is_close_to_the_folded_edit(qwen2_vl, tmp_path):
    edit = gate_edit(qwen2_vl)
    export_lora(edit, qwen2_vl, tmp_path / "adapter")
    merged = weights(with_adapter(qwen2_vl, tmp_path / "adapter").merge_and_unload())
    before = weights(qwen2_vl)
    edit.fold(qwen2_vl)
    for key, folded in weights(qwen2_vl).items():
        # One rounding of W and one of B each: small gates lose digits that folding keeps.
        assert ((merged[key] - folded).abs() <= 2**-22 * before[key].abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_directions_go_out_as_a_lora_of_their_rank(qwen2_vl, dtype, tmp_path):
    model = qwen2_vl.to(dtype)
    edit = low_rank_edit(model, size=0.3)
    export_lora(edit, model, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["r"] == 3
    with edit.attach(model):
        attached = logits(model, BATCH)
    rounding = (logits(model, BATCH).float() - logits(copy.deepcopy(model).double(), BATCH).float()).abs().max()
    loose = 1e-5 if dtype == torch.float32 else 3 * float(rounding)
    found = logits(with_adapter(model, tmp_path / "adapter"), BATCH)
    torch.testing.assert_close(found, attached, rtol=loose, atol=loose)
    assert not torch.allclose(logits(model, BATCH), attached, rtol=loose, atol=loose)
    merged = weights(with_adapter(model, tmp_path / "adapter").merge_and_unload(), "both")
    edit.fold(model)
    if dtype == torch.float32:
        assert all(torch.equal(merged[key], folded) for key, folded in weights(model, "both").items())
    with pytest.raises(kvw.UserError, match="no form as an adapter"):
        export_ia3(edit, model, tmp_path / "ia3")


@pytest.mark.parametrize("form", EXPORTS)
def test_the_vision_tower_is_not_touched_although_its_modules_have_the_same_name(form, tmp_path):
    model = vision_language_model()
    edit = gate_edit(model)
    EXPORTS[form](edit, model, tmp_path / "adapter")
    layer_class = {"ia3": peft.tuners.ia3.IA3Layer, "lora": peft.tuners.lora.LoraLayer}[form]

    def adapted(wrapped):
        return [name for name, module in wrapped.base_model.model.named_modules() if isinstance(module, layer_class)]

    text = [matrix.name for matrix in find_value_matrices(model)[1:]]
    assert adapted(with_adapter(model, tmp_path / "adapter")) == text
    by_suffix = {
        "ia3": peft.IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
        "lora": peft.LoraConfig(target_modules=["down_proj"]),
    }[form]
    too_many = adapted(peft.get_peft_model(copy.deepcopy(model), by_suffix))
    assert [name for name in too_many if "visual" in name]
    assert set(text) < set(too_many)


def check_family(model_type, tmp_path):
    model = build_family(model_type)
    edit, batch = gate_edit(model), family_batch(model, 2, 9, seed=1)
    with edit.attach(model):
        attached = logits(model, batch)
    for form, export in EXPORTS.items():
        export(edit, model, tmp_path / form)
        wrapped = with_adapter(model, tmp_path / form)
        limit = {"ia3": 1e-6, "lora": 1e-5}[form]
        assert (logits(wrapped, batch) - attached).abs().max() <= limit * attached.abs().max(), form
        back = import_adapter(tmp_path / form, model)
        for key, logs in back.log_gates.items():
            torch.testing.assert_close(logs.exp(), edit.log_gates[key].exp(), rtol=0, atol=2e-7)
        if form == "ia3":
            folded, merged = copy.deepcopy(model), wrapped.merge_and_unload()
            edit.fold(folded)
            assert all(torch.equal(merged.state_dict()[name], value) for name, value in folded.state_dict().items())


@pytest.mark.parametrize("model_type", FEW)
def test_other_decoders_and_names(model_type, tmp_path):
    check_family(model_type, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted({*VISION_LANGUAGE, *TEXT} - {*UNTESTED, *NOT_ALONE, *WITH_EXPERTS, *FEW}))
def test_every_family(model_type, tmp_path):
    check_family(model_type, tmp_path)


@pytest.mark.parametrize("depth", [1e-4, 3.0, 40.0])
def test_ia3_gates_come_back_bit_for_bit(llava, depth, tmp_path):
    edit = gate_edit(llava, depth, base_model="owner/tiny@main", model_fingerprint="f" * 64)
    export_ia3(edit, llava, tmp_path / "adapter")
    back = import_adapter(tmp_path / "adapter", llava)
    assert back.metadata == edit.metadata
    assert set(back.log_gates) == set(edit.log_gates)
    for key, logs in edit.log_gates.items():
        assert torch.equal(back.log_gates[key].exp(), logs.exp())
        torch.testing.assert_close(back.log_gates[key], logs, rtol=1e-6, atol=2**-23)
    configuration = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
    assert configuration.base_model_name_or_path == "owner/tiny"


def test_the_base_model_can_be_named(llava, tmp_path):
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter", base_model_name="owner/other")
    assert peft.PeftConfig.from_pretrained(tmp_path / "adapter").base_model_name_or_path == "owner/other"


def test_lora_gates_come_back_closely(llava, tmp_path):
    edit = gate_edit(llava)
    edit.log_gates[MatrixKey(2)] = torch.zeros_like(edit.log_gates[MatrixKey(2)])
    export_lora(edit, llava, tmp_path / "adapter")
    back = import_adapter(tmp_path / "adapter", llava)
    assert set(back.log_gates) == {MatrixKey(1), MatrixKey(3)}
    for key, logs in back.log_gates.items():
        assert torch.equal(logs == 0, edit.log_gates[key] == 0)
        torch.testing.assert_close(logs.exp(), edit.log_gates[key].exp(), rtol=0, atol=2e-7)


@pytest.mark.parametrize("form", EXPORTS)
def test_inverses_go_out_and_come_back(llava, form, tmp_path):
    undo = invert(gate_edit(llava))
    EXPORTS[form](undo, llava, tmp_path / "adapter")
    back = import_adapter(tmp_path / "adapter", llava)
    assert back.metadata.amplifies
    assert back.metadata.undoes
    torch.testing.assert_close(back.log_gates[MatrixKey(1)], undo.log_gates[MatrixKey(1)], rtol=1e-5, atol=1e-6)


def test_a_trained_ia3_adapter_can_be_read(llava, tmp_path):
    suffixes = ["down_proj"]
    wrapped = peft.get_peft_model(
        copy.deepcopy(llava), peft.IA3Config(target_modules=suffixes, feedforward_modules=suffixes)
    )
    generator = torch.Generator().manual_seed(1)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = 0.5 + torch.rand(parameter.shape, generator=generator)
    wrapped.save_pretrained(tmp_path / "adapter")
    edit = import_adapter(tmp_path / "adapter", llava)
    assert edit.metadata == EditMetadata(
        method="adapter", settings={"peft_type": "IA3"}, model_type="llava", amplifies=True
    )
    expected = logits(wrapped, BATCH)
    with edit.attach(llava):
        torch.testing.assert_close(logits(llava, BATCH), expected, rtol=1e-5, atol=1e-5)


def rename(directory, change):
    tensors = load_file(directory / WEIGHTS)
    save_file({change(name): value for name, value in tensors.items()}, directory / WEIGHTS, {"format": "pt"})


def test_names_that_a_library_has_changed_since_are_understood(llava, tmp_path):
    edit = gate_edit(llava)
    export_ia3(edit, llava, tmp_path / "adapter")
    rename(tmp_path / "adapter", lambda name: name.replace("model.language_model.", "language_model.model."))
    back = import_adapter(tmp_path / "adapter", llava)
    assert all(torch.equal(back.log_gates[key].exp(), logs.exp()) for key, logs in edit.log_gates.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.replace("language_model.layers", "visual.blocks"),
        lambda name: name.replace("language_model", "vision_tower"),
        lambda name: name.replace("mlp.down_proj", "self_attn.k_proj"),
        lambda name: name.replace(".ia3_l", ".lora_A.weight"),
    ],
)
def test_adapters_that_act_elsewhere_are_refused(tmp_path, change):
    model = vision_language_model()
    export_ia3(gate_edit(model), model, tmp_path / "adapter")
    rename(tmp_path / "adapter", lambda name: change(name) if ".1." in name else name)
    with pytest.raises(kvw.UserError, match="more than the value projections"):
        import_adapter(tmp_path / "adapter", model)


def test_two_vectors_for_one_matrix_are_refused(llava, tmp_path):
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    former = {name.replace("model.language_model.", "language_model.model."): value for name, value in tensors.items()}
    save_file({**tensors, **{name: value.clone() for name, value in former.items()}}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(kvw.UserError, match="more than the value projections"):
        import_adapter(tmp_path / "adapter", llava)


def test_the_adapter_of_another_model_is_refused(llava, tmp_path):
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    save_file({name: value[:, 1:].contiguous() for name, value in tensors.items()}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(kvw.UserError, match=r"does not fit model\.language_model\.layers\.1"):
        import_adapter(tmp_path / "adapter", llava)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_factors_that_are_not_finite_are_refused(llava, value, tmp_path):
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    next(iter(tensors.values()))[0, 3] = value
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(kvw.UserError, match="cannot be read") as caught:
        import_adapter(tmp_path / "adapter", llava)
    assert "layers.1.mlp.down_proj" in caught.value.found


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_factors_that_have_no_logarithm_are_refused(llava, value, tmp_path):
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    next(iter(tensors.values()))[0, 3] = value
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(kvw.UserError, match="a gate is above 0") as caught:
        import_adapter(tmp_path / "adapter", llava)
    assert f"1 in model.language_model.layers.1.mlp.down_proj, such as {value:g}" in str(caught.value)


def mixing(tensors, _):
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name][0] = tensors[name][:2].sum(0)


def twice(tensors, _):
    name = next(name for name in tensors if "lora_A" in name)
    tensors[name][1] = tensors[name][0]


def turning(tensors, _):
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] += 0.1


def amplified(_, settings):
    settings["alpha_pattern"] = {name: 2 * rank for name, rank in settings["rank_pattern"].items()}


def stabilised(_, settings):
    settings["use_rslora"] = True


def halved(tensors, _):
    del tensors[next(name for name in tensors if "lora_B" in name)]


def reshaped(tensors, _):
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name] = tensors[name][:-1].contiguous()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (mixing, "mixes coefficients"),
        (twice, "mixes coefficients"),
        (turning, "turns knowledge vectors"),
        (amplified, "alpha is not its rank"),
        (stabilised, "alpha is not its rank"),
        (halved, "only .lora_A.weight"),
        (reshaped, "does not fit"),
    ],
)
def test_other_loras_are_refused(llava, damage, words, tmp_path):
    export_lora(gate_edit(llava), llava, tmp_path / "adapter")
    tensors, file = load_file(tmp_path / "adapter" / WEIGHTS), tmp_path / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text())
    damage(tensors, settings)
    save_file(tensors, tmp_path / "adapter" / WEIGHTS)
    file.write_text(json.dumps(settings))
    with pytest.raises(kvw.UserError, match=words):
        import_adapter(tmp_path / "adapter", llava)


def test_a_trained_lora_is_refused(llava, tmp_path):
    wrapped = peft.get_peft_model(copy.deepcopy(llava), peft.LoraConfig(target_modules=["down_proj"]))
    wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(kvw.UserError, match="not a set of gates"):
        import_adapter(tmp_path / "adapter", llava)


def test_folders_that_are_no_adapters(llava, tmp_path):
    with pytest.raises(kvw.UserError, match=r"no adapter_config.json and no adapter_model.safetensors"):
        import_adapter(tmp_path, llava)
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    configuration = tmp_path / "adapter" / "adapter_config.json"
    for text, words in [("{", "cannot be read"), ("[]", "not an object"), ('{"peft_type": "VERA"}', "VERA")]:
        configuration.write_text(text)
        with pytest.raises(kvw.UserError, match=words):
            import_adapter(tmp_path / "adapter", llava)
    configuration.write_text('{"peft_type": "IA3"}')
    save_file({}, tmp_path / "adapter" / WEIGHTS)
    with pytest.raises(kvw.UserError, match="empty"):
        import_adapter(tmp_path / "adapter", llava)
    (tmp_path / "adapter" / WEIGHTS).write_bytes(b"no")
    with pytest.raises(kvw.UserError, match="cannot be read"):
        import_adapter(tmp_path / "adapter", llava)


@pytest.mark.parametrize("form", EXPORTS)
def test_edits_that_have_no_form_as_an_adapter(llava, form, tmp_path):
    export = EXPORTS[form]
    with pytest.raises(kvw.UserError, match="experts, which PEFT does not reach") as caught:
        export(GateEdit({MatrixKey(1, 0): torch.zeros(3)}), llava, tmp_path / "adapter")
    assert "layer.1.expert.0" in str(caught.value)
    assert "kvw apply" in str(caught.value)
    with pytest.raises(kvw.UserError, match="'rounded gates' have no form"):
        export(RoundedGateEdit({MatrixKey(1): torch.ones(2, 3)}), llava, tmp_path / "adapter")
    with pytest.raises(kvw.UserError, match="does not fit"):
        export(GateEdit({MatrixKey(1): torch.zeros(3)}), llava, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_loras_that_cannot_be_made(llava, tmp_path):
    nothing = GateEdit({matrix.key: torch.zeros(matrix.width) for matrix in find_value_matrices(llava)})
    with pytest.raises(kvw.UserError, match="cannot be empty"):
        export_lora(nothing, llava, tmp_path / "adapter")
    edit, matrix = gate_edit(llava), find_value_matrices(llava)[1]
    matrix.module.weight = torch.nn.Parameter(torch.zeros_like(matrix.module.weight).to(torch.int8), False)
    with pytest.raises(kvw.UserError, match="quantised"):
        export_lora(edit, llava, tmp_path / "adapter")


def test_a_folder_that_holds_something_is_replaced_by_force_only(llava, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "thesis.txt").write_text("precious")
    with pytest.raises(kvw.UserError, match="not empty"):
        export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    with pytest.raises(kvw.UserError, match="does not carry kvw's mark"):
        export_ia3(gate_edit(llava), llava, tmp_path / "adapter", force=True)
    assert (tmp_path / "adapter" / "thesis.txt").read_text() == "precious"
    export_ia3(gate_edit(llava), llava, tmp_path / "ours")
    (tmp_path / "ours" / "adapter_config.json").write_text("{}")
    export_ia3(gate_edit(llava), llava, tmp_path / "ours", force=True)
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["peft_type"] == "IA3"


def test_without_peft_the_message_says_how_to_get_it(llava, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for export in EXPORTS.values():
        with pytest.raises(kvw.UserError, match=r'pip install "kvw\[peft\]"'):
            export(gate_edit(llava), llava, tmp_path / "adapter")


def test_adapters_hold_no_path_of_this_machine(llava, tmp_path):
    llava.config._name_or_path = str(tmp_path)
    export_ia3(gate_edit(llava), llava, tmp_path / "adapter")
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in (tmp_path / "adapter").iterdir())
    with safe_open(tmp_path / "adapter" / WEIGHTS, "pt") as file:
        assert set(file.metadata()) == {"format", "kvw"}


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (lambda value: value.to(torch.complex64), "complex64"),
        (lambda value: value.to(torch.float8_e4m3fn), "float8_e4m3fn"),
        (lambda value: value.to(torch.int64), "int64"),
        (lambda value: value * torch.nan, "empty or not finite"),
        (lambda value: value[:0], "empty or not finite"),
        (lambda value: value[0, 0], "does not fit"),
    ],
)
@pytest.mark.parametrize("form", [export_ia3, export_lora])
def test_tensors_that_no_adapter_has_are_refused(llava, tmp_path, form, tensor, words):
    form(gate_edit(llava), llava, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor(value).contiguous() for name, value in tensors.items()}, file)
    with pytest.raises(kvw.UserError, match=words):
        kvw.import_adapter(tmp_path / "adapter", llava)


@pytest.mark.parametrize(
    "settings",
    [{"rank_pattern": 3}, {"alpha_pattern": []}, {"r": "x", "rank_pattern": {}}, {"r": 10**400, "rank_pattern": None}],
)
def test_loras_with_senseless_ranks_are_refused(llava, tmp_path, settings):
    export_lora(gate_edit(llava), llava, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(kvw.UserError, match="not a set of gates"):
        kvw.import_adapter(tmp_path / "adapter", llava)
