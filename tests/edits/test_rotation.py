"""Rotations: states that are turned out of a subspace, keep their length, and stay where they lie in another."""

from __future__ import annotations

import math

import pytest
import torch
from tests.batches import logits, text_batch, weights
from tests.edits.test_steering import answers, prompts, seen_by_layers

import kvw
from kvw.edits import Rotation, RotationEdit
from kvw.edits.rotation import rotated

HIDDEN = 24


def orthonormal(columns, seed, hidden=HIDDEN):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(hidden, columns, generator=generator, dtype=torch.float64)).Q


def some_states(seed=0, rows=40, hidden=HIDDEN):
    return torch.randn(rows, hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angles(first, second):
    return torch.nn.functional.cosine_similarity(first, second, dim=-1).clamp(-1, 1).acos()


def rotation_edit(model, layers=(1, 2, 3), angle=20.0, threshold=2.0, retained=2, **more):
    hidden = model.config.get_text_config().hidden_size
    rotations = {
        layer: Rotation(orthonormal(3, layer, hidden), orthonormal(retained, 50 + layer, hidden), threshold)
        for layer in layers
    }
    return RotationEdit(rotations, angle, **more)


def test_without_a_limit_states_leave_the_forget_subspace_and_keep_their_length():
    states, forget = some_states(), orthonormal(3, 1)
    turned = rotated(states, forget, forget[:, :0], 2.0, math.pi)
    torch.testing.assert_close(turned.norm(dim=1), states.norm(dim=1))
    assert float((turned @ forget).abs().max()) < 1e-12
    expected = states - states @ forget @ forget.T
    torch.testing.assert_close(angles(turned, expected), torch.zeros(40, dtype=torch.float64), atol=1e-7, rtol=0)


def test_what_lies_in_the_retain_subspace_is_only_scaled():
    states, forget, retain = some_states(), orthonormal(3, 1), orthonormal(4, 2)
    turned = rotated(states, forget, retain, 2.0, math.pi)
    ratios = (turned @ retain) / (states @ retain)
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios))
    assert not torch.allclose(turned, states, atol=1e-3)


def test_no_state_turns_further_than_the_angle_and_all_that_must_turn_as_far():
    states, forget = some_states(), orthonormal(3, 1)
    full = angles(states, states - states @ forget @ forget.T)
    limit = float(full.median())
    turned = angles(states, rotated(states, forget, forget[:, :0], 2.0, limit))
    torch.testing.assert_close(turned, full.clamp(max=limit), atol=1e-7, rtol=0)


def test_states_with_a_large_share_in_the_retain_subspace_stay():
    states, forget, retain = some_states(), orthonormal(3, 1), orthonormal(4, 2)
    shares = (states @ retain).norm(dim=1) / states.norm(dim=1)
    threshold = float(shares.median())
    changed = (rotated(states, forget, retain, threshold, 0.3) != states).any(1)
    assert torch.equal(changed, shares < threshold)


def test_states_without_a_direction_to_turn_to_stay():
    inside, outside = orthonormal(6, 1).split(3, dim=1)
    for states in (inside.T, outside.T, torch.zeros_like(inside.T)):
        assert torch.equal(rotated(states, inside, inside[:, :0], 2.0, 1.0), states)


def test_only_what_writes_the_answer_is_turned(llava):
    edit, batch = rotation_edit(llava, layers=(2,)), text_batch(2, 9, 3, seed=1)
    before = seen_by_layers(llava, {name: batch[name] for name in ("input_ids", "attention_mask")})
    with edit.attach(llava), kvw.edits.prompts.prompt_ends(llava, torch.tensor([5, 5])):
        after = seen_by_layers(llava, batch)
    one = edit.rotations[2]
    assert torch.equal(after[2][:, :5], before[2][:, :5])
    expected = rotated(before[2], one.forget, one.retain, one.threshold, math.radians(20))
    torch.testing.assert_close(after[2][:, 5:], expected[:, 5:])
    assert not torch.allclose(after[2][:, 5:], before[2][:, 5:], atol=1e-3)


@pytest.mark.thorough
def test_cached_uncached_and_single_rows_generate_the_same(model):
    batch, plain = prompts(), answers(model, prompts())
    with rotation_edit(model, angle=60.0).attach(model):
        tokens, scores = answers(model, batch)
        uncached = answers(model, batch, use_cache=False)
        alone = [answers(model, {name: value[row : row + 1] for name, value in batch.items()}) for row in range(3)]
    assert not torch.allclose(scores, plain[1], atol=1e-3)
    for other in (uncached, tuple(torch.cat(parts) for parts in zip(*alone, strict=True))):
        assert torch.equal(tokens, other[0])
        torch.testing.assert_close(scores, other[1], rtol=1e-3, atol=1e-3)


def test_detaching_and_strength_0_leave_the_model_bit_for_bit(llava):
    batch = text_batch(2, 10, 3, seed=0)
    before, original = weights(llava), logits(llava, batch)
    edit = rotation_edit(llava)
    with edit.attach(llava):
        assert not torch.allclose(logits(llava, batch), original, atol=1e-4)
    for idle in (edit.scaled(0.0), rotation_edit(llava, threshold=0.0), rotation_edit(llava, angle=0.0)):
        assert idle.does_nothing
        with idle.attach(llava):
            assert torch.equal(logits(llava, batch), original)
    assert torch.equal(logits(llava, batch), original)
    assert all(torch.equal(weights(llava)[key], value) for key, value in before.items())


def test_a_file_brings_back_the_edit_and_scaling_its_angle(llava, tmp_path):
    edit = rotation_edit(llava, retained=0).scaled(0.5)
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert (loaded.angle, loaded.strength, loaded.kind) == (20.0, 0.5, "rotations")
    assert loaded.digest() == edit.digest()
    assert [one.angle for one in loaded.describe()] == [10.0] * 3
    batch = text_batch(2, 10, 3, seed=0)
    with loaded.attach(llava):
        half = logits(llava, batch)
    with rotation_edit(llava, retained=0, angle=10.0).attach(llava):
        assert torch.equal(logits(llava, batch), half)


def test_what_makes_no_sense_is_refused(llava, qwen2_vl):
    with pytest.raises(ValueError, match="no finite number"):
        rotation_edit(llava, angle=-1.0)
    with pytest.raises(ValueError, match="do not fit together"):
        Rotation(torch.ones(3, 1), torch.ones(4, 1), 0.5)
    with pytest.raises(kvw.UserError, match="does not fit"):
        rotation_edit(llava, layers=(99,)).attach(llava)
    with pytest.raises(kvw.UserError, match="cannot be inverted"):
        kvw.edits.invert(rotation_edit(llava))
    with pytest.raises(kvw.UserError, match="no weights"):
        rotation_edit(llava).fold(llava)
