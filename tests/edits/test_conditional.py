"""Gates in force for some samples only."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.batches import logits, weights
from tests.edit_files import write
from tests.edits.test_steering import ROWS, answers, prompts, steering_edit
from tests.families import build_family, family_batch
from tests.fixtures import TWO

import kvw
from kvw.edits import Condition, ConditionalGateEdit, EditMetadata, GateEdit, attach_where, export_ia3
from kvw.edits.prompts import NO_PROMPT, prompt_ends
from kvw.edits.weight_edit import weight_edit
from kvw.models.finding import find_value_matrices
from kvw.models.forward_names import cache_name
from kvw.models.layer_inputs import decoder_layers, on_input


@pytest.fixture(params=TWO, scope="session")
def family(request):
    return request.param


def gate_edit(model, first=1):
    generator = torch.Generator().manual_seed(5)
    matrices = find_value_matrices(model)
    return GateEdit(
        {
            matrix.key: -2 * torch.rand(matrix.width, generator=generator)
            for matrix in matrices
            if matrix.key.layer >= first
        }
    )


def condition_for(model, batch, chosen, layer=1):
    """One that holds for the chosen rows alone."""
    states = []
    handle = on_input(decoder_layers(model)[layer], layer, lambda seen: states.append(seen[:, -1].double()))
    logits(model, batch)
    handle.remove()
    wanted = torch.zeros(len(states[0]), dtype=torch.float64)
    wanted[list(chosen)] = 1.0
    found = torch.linalg.lstsq(states[0], wanted, driver="gelsd").solution
    return Condition(layer, found.float())


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 2}])
def test_chosen_samples_are_weakened_and_others_are_not_touched(model, options):
    edit, batch = gate_edit(model), prompts()
    plain = answers(model, batch, **options)
    with edit.attach(model):
        weakened = answers(model, batch, **options)
    assert not torch.allclose(plain[1][:, 0], weakened[1][:, 0], atol=1e-2)
    with attach_where(edit, model, condition_for(model, batch, {1})):
        tokens, scores = answers(model, batch, **options)
    beams = options.get("num_beams", 1)
    for row in range(len(ROWS)):
        expected = weakened if row == 1 else plain
        assert torch.equal(tokens[row], expected[0][row])
        rows = slice(row * beams, (row + 1) * beams)
        assert torch.equal(scores[rows], expected[1][rows])
    assert torch.equal(answers(model, batch, **options)[1], plain[1])


def test_the_threshold_decides(llava):
    edit, batch = gate_edit(llava), prompts()
    plain = logits(llava, batch)
    with edit.attach(llava):
        weakened = logits(llava, batch)
    found = condition_for(llava, batch, {0, 2})
    for threshold, expected in ((2.0, plain), (-1.0, weakened)):
        with attach_where(edit, llava, Condition(1, found.filter, threshold)):
            assert torch.equal(logits(llava, batch), expected)


def test_text_that_nobody_asked_for_is_left_alone(llava):
    batch = prompts()
    ends = torch.full((len(batch["input_ids"]),), NO_PROMPT)
    plain = logits(llava, batch)
    with attach_where(gate_edit(llava), llava, Condition(1, condition_for(llava, batch, {0}).filter, -9.0)):
        assert not torch.equal(logits(llava, batch), plain)
        with prompt_ends(llava, ends):
            assert torch.equal(logits(llava, batch), plain)


def test_experts_see_rows_out_of_order():
    model = copy.deepcopy(build_family("qwen3_moe"))
    edit, batch = gate_edit(model), family_batch(model, 3, 9, 0)
    batch.pop("labels")
    plain = logits(model, batch)
    with edit.attach(model):
        weakened = logits(model, batch)
    with attach_where(edit, model, condition_for(model, batch, {2})):
        found = logits(model, batch)
    torch.testing.assert_close(found[:2], plain[:2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2], weakened[2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(plain[2], weakened[2], atol=1e-3)


def test_it_costs_no_forward_of_its_own(llava):
    edit, batch = gate_edit(llava), prompts()
    calls = []
    handle = llava.register_forward_pre_hook(lambda *_: calls.append(1))
    with attach_where(edit, llava, Condition(1, torch.zeros(48))):
        answers(llava, batch)
    handle.remove()
    assert len(calls) == 6


def test_a_steering_edit_gives_its_filter(llava):
    edit = steering_edit(llava)
    found = Condition.of(edit, 2, 0.3)
    assert (found.layer, found.threshold) == (2, 0.3)
    assert torch.equal(found.filter, edit.steers[2].filter)
    with pytest.raises(kvw.UserError, match="does nothing in layer 0"):
        Condition.of(edit, 0)


def test_gates_before_the_decision_are_refused(llava):
    with pytest.raises(kvw.UserError, match="before layer 2") as caught:
        attach_where(gate_edit(llava, first=1), llava, Condition(2, torch.zeros(48)))
    assert "layers 1" in str(caught.value)


@pytest.mark.parametrize("condition", [Condition(1, torch.zeros(5)), Condition(4, torch.zeros(48))])
def test_a_condition_of_another_model_is_refused(llava, condition):
    with pytest.raises(kvw.UserError, match="condition does not fit"):
        attach_where(GateEdit({}), llava, condition)


def test_the_edit_of_another_model_is_refused(llava, qwen2_vl):
    with pytest.raises(kvw.UserError, match="does not fit"):
        attach_where(gate_edit(llava), qwen2_vl, Condition(1, torch.zeros(32)))


def test_generated_tokens_in_other_rows_are_refused(llava):
    with attach_where(gate_edit(llava), llava, Condition(1, torch.zeros(48))), torch.no_grad():
        name = cache_name(llava)
        cache = llava(input_ids=prompts()["input_ids"], use_cache=True)[name]
        cache.batch_select_indices(torch.tensor([0, 1]))
        with pytest.raises(kvw.UserError, match="unknown who is affected"):
            llava(input_ids=torch.tensor([[5], [6]]), **{name: cache})


def conditional_edit(model, threshold=0.5, layer=1):
    condition = condition_for(model, prompts(), {1}, layer)
    return ConditionalGateEdit(
        GateEdit(gate_edit(model).log_gates, EditMetadata(method="conditional-kvw", base_model="tiny")),
        Condition(layer, condition.filter, threshold),
    )


def test_an_edit_is_its_gates_under_its_condition(llava):
    edit, batch = conditional_edit(llava), prompts()
    with attach_where(gate_edit(llava), llava, edit.condition):
        expected = answers(llava, batch)
    plain = answers(llava, batch)
    with edit.attach(llava):
        found = answers(llava, batch)
    assert torch.equal(found[1], expected[1])
    assert not torch.equal(found[1][1], plain[1][1])
    assert torch.equal(answers(llava, batch)[1], plain[1])
    assert [layer.key for layer in edit.describe()] == ["layer.1", "layer.2", "layer.3"]
    assert edit.widths == {}


def test_a_file_brings_back_the_edit(llava, tmp_path):
    edit = conditional_edit(llava, 0.25)
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert isinstance(loaded, ConditionalGateEdit)
    assert (loaded.metadata, loaded.condition.layer, loaded.condition.threshold) == (edit.metadata, 1, 0.25)
    assert loaded.tensors().keys() == edit.tensors().keys()
    assert all(torch.equal(loaded.tensors()[name], value) for name, value in edit.tensors().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"condition.filter": torch.full((48,), float("nan"))}, "finite"),
        ({"condition.filter": torch.zeros(2, 24)}, "dimensions"),
        ({"condition.threshold": torch.tensor(float("inf"), dtype=torch.float64)}, "finite"),
        ({"layer.1.log_gates": torch.ones(80)}, "above 1"),
    ],
)
def test_files_that_make_no_sense_are_refused(llava, tmp_path, change, reason):
    edit = conditional_edit(llava)
    write(tmp_path / "edit.safetensors", edit.kind, edit.tensors() | change)
    with pytest.raises(kvw.UserError, match="not an edit file") as caught:
        kvw.load_edit(tmp_path / "edit.safetensors")
    assert reason in str(caught.value)


def test_it_can_be_scaled_and_not_folded(llava, tmp_path):
    edit = conditional_edit(llava)
    half = kvw.scale(edit, 0.5)
    assert isinstance(half, ConditionalGateEdit)
    assert (half.condition, half.metadata.method, half.metadata.parents) == (edit.condition, "scale", (edit.metadata,))
    for key, value in edit.gates.log_gates.items():
        assert torch.equal(half.gates.log_gates[key], value / 2)
    before = weights(llava)
    for refused in (
        lambda: edit.fold(llava),
        lambda: weight_edit(edit),
    ):
        with pytest.raises(kvw.UserError, match="there are no weights"):
            refused()
    assert all(torch.equal(weights(llava)[key], value) for key, value in before.items())
    with pytest.raises(kvw.UserError, match="no form as an adapter"):
        export_ia3(edit, llava, tmp_path / "adapter")


def test_a_model_is_checked_before_it_is_asked(llava, qwen2_vl):
    edit = conditional_edit(llava)
    edit.check_model(llava)
    for use in (edit.check_model, edit.attach):
        with pytest.raises(kvw.UserError, match="does not fit this Qwen2VL"):
            use(qwen2_vl)
    with pytest.raises(kvw.UserError, match="before layer 2"):
        conditional_edit(llava, layer=2).check_model(llava)
