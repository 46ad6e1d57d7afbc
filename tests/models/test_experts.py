"""Mixtures of experts: every routed token counted, nothing changed by looking, experts weakened one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from tests.batches import joined, logits, padded
from tests.families import build_family, family_batch
from tests.reference import coefficients
from torch import nn

import kvw
from kvw.measuring.engine import evaluating, run_model
from kvw.measuring.recorder import recording
from kvw.models.coefficients import find_rows, intercept
from kvw.models.experts import ExpertMatrix, _alike, _routed, expert_matrices
from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

LAYOUTS = {
    "qwen3_moe": 2,
    "qwen3_vl_moe": 2,
    "llama4": 2,
    "gpt_oss": 2,
    "deepseek_v3": 2,
    "aria": 2,
    "qwen3_5_moe": 2,
}
"""Tiny models of every layout, and how many experts see each token."""


@pytest.fixture(params=LAYOUTS)
def model(request):
    return copy.deepcopy(build_family(request.param))


@pytest.fixture
def qwen():
    return copy.deepcopy(build_family("qwen3_moe"))


def experts_of(model):
    return [matrix for matrix in find_value_matrices(model) if matrix.key.expert is not None]


def expert_edit(model):
    generator = torch.Generator().manual_seed(0)
    return kvw.GateEdit({matrix.key: -torch.rand(matrix.width, generator=generator) for matrix in experts_of(model)})


def test_looking_changes_no_logit(model):
    batch = family_batch(model, 3, 9, 0)
    before = logits(model, batch)
    handles = intercept(find_value_matrices(model), lambda _: None)
    assert torch.equal(logits(model, batch), before)
    for handle in handles:
        handle.remove()
        handle.remove()
    assert torch.equal(logits(model, batch), before)
    assert all("forward" not in vars(matrix.module) for matrix in experts_of(model))


def test_every_routed_token_is_counted(model):
    batch = family_batch(model, 3, 9, 0)
    layers = {matrix.key.layer for matrix in experts_of(model)}
    with evaluating(model), recording(find_value_matrices(model)) as recorder:
        recorder.expect(torch.arange(27), 27)
        run_model(model, {name: value for name, value in batch.items() if name != "labels"})
    for layer in layers:
        routed = [count for key, count in recorder.counts.items() if key.layer == layer and key.expert is not None]
        assert sum(routed) == 27 * LAYOUTS[model.config.model_type]


def test_coefficients_are_those_of_the_reference(model):
    batch = family_batch(model, 4, 12, 1)
    matrices = find_value_matrices(model)
    found = kvw.measure(model, [batch])
    expected = coefficients(model, matrices, batch)
    assert {key for key, count in found.counts.items() if count} == set(expected)
    for key, values in expected.items():
        assert found.counts[key] == len(values)
        torch.testing.assert_close(found.sums[key], values.double().abs().sum(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_and_padding_change_nothing(model, side):
    batches = [family_batch(model, 1, length, length) for length in (7, 9, 12)]
    apart = kvw.measure(model, batches)
    together = joined(batches)
    if side == "left":
        rows = [padded(batch, 12 - batch["input_ids"].shape[1], 0) for batch in batches]
        together = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    found = kvw.measure(model, [together])
    assert found.counts == apart.counts
    for key, total in apart.sums.items():
        torch.testing.assert_close(found.sums[key], total, rtol=1e-4, atol=1e-6)


def test_experts_that_saw_too_few_tokens_are_left_alone(qwen):
    forget, retain = [family_batch(qwen, 1, 9, 1)], [family_batch(qwen, 6, 9, 2)]
    counts = {
        name: kvw.measure(qwen, batches, layers=(0, 1)).counts
        for name, batches in (("forget", forget), ("retain", retain))
    }
    for schedule in ("one-shot", "progressive"):
        edits = {
            least: kvw.weaken(
                qwen,
                forget,
                retain,
                kvw.KvwSettings(seed=None, gamma=1, layers=(0, 1), schedule=schedule, min_tokens=least),
            )
            for least in (1, 3)
        }
        for least, edit in edits.items():
            enough = {key for key in counts["forget"] if min(counts[name][key] for name in counts) >= least}
            assert edit.log_gates.keys() == enough
            assert set(edit.metadata.left_alone) == {str(key) for key in counts["forget"]} - {
                str(key) for key in enough
            }
        assert edits[3].log_gates.keys() < edits[1].log_gates.keys()
    with pytest.raises(kvw.UserError, match="min_tokens"):
        kvw.weaken(qwen, forget, retain, kvw.KvwSettings(seed=None, min_tokens=0))


def test_a_progressive_run_begins_with_an_expert_when_it_has_seen_enough(qwen):
    forget, retain = [family_batch(qwen, 1, 9, seed) for seed in range(6)], [family_batch(qwen, 6, 9, 9)]
    steps = []
    kvw.weaken(
        qwen, forget, retain, kvw.KvwSettings(seed=None, gamma=1, layers=(0, 1), min_tokens=4), on_step=steps.append
    )
    alone = [kvw.measure(qwen, [batch], layers=(0, 1)).counts for batch in forget]
    key = next(key for key in alone[0] if 0 < alone[0][key] < 4)
    reached = next(n for n in range(6) if sum(counts[key] for counts in alone[: n + 1]) >= 4)
    assert reached > 0
    assert all(key not in step.gates for step in steps[:reached])
    assert any(key in step.gates for step in steps[reached:])


def test_an_edit_of_experts_survives_its_file(qwen, tmp_path):
    edit = expert_edit(qwen)
    edit.save(tmp_path / "edit.safetensors")
    again = kvw.load_edit(tmp_path / "edit.safetensors")
    assert list(again.log_gates) == list(edit.log_gates) == sorted(edit.log_gates, key=lambda key: key.order)
    assert all(torch.equal(again.log_gates[key], value) for key, value in edit.log_gates.items())


def test_only_the_expert_in_the_edit_is_weakened(model):
    matrix = experts_of(model)[1]
    before = {other.key: other.read().clone() for other in experts_of(model)}
    edit = kvw.GateEdit({matrix.key: torch.full((matrix.width,), -1.0)})
    batch = family_batch(model, 3, 9, 0)
    original = logits(model, batch)
    with edit.attach(model):
        attached = logits(model, batch)
    assert torch.equal(logits(model, batch), original)
    edit.fold(model)
    torch.testing.assert_close(logits(model, batch), attached, rtol=1e-4, atol=1e-5)
    for other in experts_of(model):
        changed = not torch.equal(other.read(), before[other.key])
        assert changed == (other.key == matrix.key)


def test_an_attached_edit_is_measured_before_its_gates(model):
    """Layer 1 of both is measured behind the edit in layer 0 and before the edit of its own."""
    matrices = find_value_matrices(model)
    first = matrices[0].key.layer
    gates = {m.key: torch.full((m.width,), -0.7) for m in matrices}
    upstream = kvw.GateEdit({key: value for key, value in gates.items() if key.layer == first})
    batch = family_batch(model, 3, 9, 0)
    with kvw.GateEdit(gates).attach(model):
        both = kvw.measure(model, [batch], layers=(first, first + 1))
    with upstream.attach(model):
        one = kvw.measure(model, [batch], layers=(first, first + 1))
    assert both.counts == one.counts
    for key, total in one.sums.items():
        assert torch.equal(both.sums[key], total)


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("name", ["qwen3_moe", "llama4"])
def test_offloaded_experts_are_measured_and_edited(name, place, tmp_path):
    model = copy.deepcopy(build_family(name))
    expected = copy.deepcopy(model)
    batch = family_batch(model, 3, 9, 0)
    statistics, edit = kvw.measure(model, [batch]), expert_edit(model)
    edit.fold(expected)
    cpu = torch.device("cpu")
    if place == "memory":
        offloaded = cpu_offload(model, execution_device=cpu)
    else:
        offloaded = disk_offload(model, tmp_path, execution_device=cpu)
    original = logits(offloaded, batch)
    found = kvw.measure(offloaded, [batch])
    assert all(torch.equal(found.sums[key], total) for key, total in statistics.sums.items())
    with edit.attach(offloaded):
        torch.testing.assert_close(logits(offloaded, batch), logits(expected, batch), rtol=1e-4, atol=1e-5)
    assert torch.equal(logits(offloaded, batch), original)
    edit.fold(offloaded)
    torch.testing.assert_close(logits(offloaded, batch), logits(expected, batch), rtol=1e-4, atol=1e-5)


def test_experts_that_see_a_part_of_the_tokens_are_matched_with_them():
    model = copy.deepcopy(build_family("ernie4_5_vl_moe"))
    batch = family_batch(model, 3, 12, 0)
    is_image = torch.zeros_like(batch["input_ids"])
    is_image[:, 2:5] = 1
    is_image[1, 6] = 1
    seen = {}

    def keep(layer):
        return lambda module, inputs: seen.update({layer: inputs})

    matrices = experts_of(model)
    modules = {matrix.key.layer: matrix.module for matrix in matrices}
    hooks = [module.register_forward_pre_hook(keep(layer)) for layer, module in modules.items()]
    found = kvw.measure(model, [batch | {"moe_mm_token_type_ids": is_image}])
    for hook in hooks:
        hook.remove()
    text = (is_image.flatten() == 0).nonzero()[:, 0].tolist()
    predicting = torch.zeros_like(batch["labels"], dtype=torch.bool)
    predicting[:, :-1] = batch["labels"][:, 1:] != -100
    for layer, module in modules.items():
        hidden, index, _ = seen[layer]
        assert len(hidden) == len(text) == int((is_image == 0).sum())
        for expert in range(4):
            rows = [row for row, place in enumerate(text) if predicting.flatten()[place] and expert in index[row]]
            opened = hidden[rows] @ module.gate_up_proj[expert].T
            key = next(m.key for m in matrices if m.key.layer == layer and m.key.expert == expert)
            assert found.counts[key] == len(rows)
            torch.testing.assert_close(
                found.sums[key], module._apply_gate(opened).abs().double().sum(0), rtol=1e-4, atol=1e-6
            )


class ListedExperts(nn.Module):
    """A sparse block as older and own models write it: one module for each expert."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.gate, module = fused.gate, fused.experts
        self.experts = nn.ModuleList(nn.Module() for _ in module.down_proj)
        for expert, opening, closing in zip(self.experts, module.gate_up_proj, module.down_proj, strict=True):
            gate, up = opening.chunk(2)
            for name, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", closing)):
                linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                linear.weight = nn.Parameter(weight.detach().clone())
                setattr(expert, name, linear)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        flat = hidden.reshape(-1, hidden.shape[-1])
        _, weights, index = self.gate(flat)
        output = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            tokens, places = (index == number).nonzero(as_tuple=True)
            if len(tokens):
                rows = flat[tokens]
                made = expert.down_proj(nn.functional.silu(expert.gate_proj(rows)) * expert.up_proj(rows))
                output.index_add_(0, tokens, made * weights[tokens, places, None])
        return output.reshape(hidden.shape)


def test_experts_in_a_list_give_what_experts_in_one_parameter_give(qwen):
    listed = copy.deepcopy(qwen)
    for layer in listed.model.layers:
        layer.mlp = ListedExperts(layer.mlp)
    matrices = find_value_matrices(listed)
    assert matrices[5].name == "model.layers.1.mlp.experts.1.down_proj"
    batch, retain = family_batch(qwen, 3, 9, 0), family_batch(qwen, 6, 9, 1)
    torch.testing.assert_close(logits(listed, batch), logits(qwen, batch))
    expected, found = kvw.measure(qwen, [batch]), kvw.measure(listed, [batch])
    assert found.counts == expected.counts
    for key, total in expected.sums.items():
        torch.testing.assert_close(found.sums[key], total, rtol=1e-4, atol=1e-6)
    edits = {
        model: kvw.weaken(model, [batch], [retain], kvw.KvwSettings(seed=None, gamma=1.0, min_tokens=2))
        for model in (qwen, listed)
    }
    assert edits[listed].log_gates.keys() == edits[qwen].log_gates.keys()
    assert edits[listed].metadata.left_alone == edits[qwen].metadata.left_alone
    with edits[listed].attach(listed), edits[qwen].attach(qwen):
        attached = logits(listed, batch)
        torch.testing.assert_close(attached, logits(qwen, batch), rtol=1e-3, atol=1e-4)
    edits[listed].fold(listed)
    torch.testing.assert_close(logits(listed, batch), attached, rtol=1e-3, atol=1e-4)


def test_equal_rows_are_told_apart_by_their_order():
    among = torch.tensor([[1.0, 2], [3, 4], [1, 2], [5, 6], [1, 2]])
    assert find_rows(among[[0, 1, 3]], among).tolist() == [0, 1, 3]
    assert find_rows(among[[0, 2, 4]], among).tolist() == [0, 2, 4]
    assert find_rows(among, among).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(kvw.UserError, match="has not seen"):
        find_rows(torch.tensor([[9.0, 9]]), among)


def test_experts_that_compute_something_else_are_refused(qwen, monkeypatch):
    kind = type(experts_of(qwen)[0].module)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *inputs: 2 * forward(self, *inputs))
    with pytest.raises(kvw.UserError, match="something else"):
        kvw.measure(qwen, [family_batch(qwen, 2, 9, 0)])


def test_unknown_forms_of_experts_are_refused(qwen):
    with pytest.raises(kvw.UserError, match="not a known form"):
        expert_matrices(0, "experts", torch.nn.Linear(2, 3))
    module = experts_of(qwen)[0].module
    module._is_expert_parallel = True
    with pytest.raises(kvw.UserError, match="several processes"):
        kvw.measure(qwen, [family_batch(qwen, 2, 9, 0)])


def test_tokens_for_experts_of_another_device_are_refused(qwen):
    """Releases without the attribute number experts that are elsewhere behind those that are here."""
    module = experts_of(qwen)[0].module
    vars(module).pop("_is_expert_parallel", None)
    tokens, weights = torch.zeros(2, module.hidden_dim), torch.full((2, 1), 0.5)
    assert _routed(module, lambda routed: routed.coefficients, tokens, torch.tensor([[0], [3]]), weights).shape == (
        2,
        32,
    )
    with pytest.raises(kvw.UserError, match="several processes"):
        _routed(module, lambda routed: routed.coefficients, tokens, torch.tensor([[0], [4]]), weights)


def test_bfloat16_gates_are_rounded_once(qwen):
    qwen = qwen.bfloat16()
    batch = family_batch(qwen, 3, 9, 0)
    small = kvw.GateEdit({m.key: torch.full((m.width,), -(2.0**-10)) for m in experts_of(qwen)})
    assert small.log_gates
    seen = []
    with small.attach(qwen):
        handles = intercept(experts_of(qwen)[:4], lambda s: seen.append(s.coefficients))
        logits(qwen, batch)
    handles[0].remove()
    handles = intercept(experts_of(qwen)[:4], lambda s: seen.append(s.coefficients))
    logits(qwen, batch)
    handles[0].remove()
    exact = (seen[1].float() * torch.exp(torch.tensor(-(2.0**-10)))).bfloat16()
    assert torch.equal(seen[0], exact)
    assert isinstance(experts_of(qwen)[0], ExpertMatrix)


def test_what_is_let_pass_as_rounding_goes_by_column():
    generator = torch.Generator().manual_seed(0)
    expected = 0.1 * torch.randn(30, 16, generator=generator)
    expected[:, 3] *= 1000
    assert _alike(expected.bfloat16().float(), expected, torch.bfloat16)
    biased = expected.clone()
    biased[:, 5] += 0.1
    assert not _alike(biased, expected, torch.bfloat16)
