"""Defects of other repositories' training code, each as a test of ours under the defect's name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.gradient import (
    ALTERNATIVES,
    FORGET,
    LORA,
    RETAIN,
    changed,
    forget_by,
    fresh,
    sets,
    training,
    weights_of,
)
from tests.tiny_models import noise_png

from kvw.data import prepare
from kvw.errors import UserError
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.dpo import DpoSettings
from kvw.methods.gradient.grad_diff import GradDiffSettings
from kvw.methods.gradient.idk_nll import IdkNllSettings
from kvw.methods.gradient.manu import ManuSettings
from kvw.methods.gradient.mmunlearner import MmUnlearnerSettings, mmunlearner
from kvw.methods.gradient.npo import NpoSettings
from kvw.methods.gradient.pruning import _Look, neurons
from kvw.models.finding import find_value_matrices
from kvw.training.answers import answers
from kvw.training.losses import ascent_loss
from kvw.training.settings import TrainingSettings
from kvw.training.trainee import in_training


def weights_after(method, forget=FORGET, retain=RETAIN, settings=None, **changes):
    model, processor = fresh()
    unlearn(model, processor, forget, retain, method, settings, training(**changes))
    return weights_of(model)


def same(left, right):
    return all(torch.equal(value, right[name]) for name, value in left.items())


def rows_of(model, processor, examples):
    with in_training(model, processor, training(), sets(processor)) as trainee:
        return trainee.rows(prepare(examples, processor), range(len(examples)))


def test_kvw_a_bare_except_hides_the_batches_that_fail(tmp_path):
    damaged = noise_png(9)
    damaged = damaged[: len(damaged) // 2]
    forget = [*FORGET[:3], replace(FORGET[3], images=(damaged,))]
    with pytest.raises(UserError, match="forget:4"):
        weights_after("ga", forget)


def test_offside_failed_items_are_dropped_from_the_average():
    model, processor = fresh()
    with torch.no_grad():
        model.model.language_model.embed_tokens.weight[sets(processor)["forget"][3].answer_ids[0]] = math.nan
    with pytest.raises(UserError, match="not finite"):
        unlearn(model, processor, FORGET, RETAIN, "grad-diff", None, training())


def test_kvw_model_and_reference_are_one_object_so_that_the_ratio_is_always_zero():
    model, processor = fresh()
    with pytest.raises(UserError, match="would change with it"):
        unlearn(model, processor, FORGET, RETAIN, "npo", None, training(), reference=model)
    _, result = forget_by("npo", batch_size=4, epochs=2)
    at_zero = 2 / 0.1 * math.log(2)
    assert result.history[0].losses["forget"] == pytest.approx(at_zero)
    assert result.history[1].losses["forget"] != pytest.approx(at_zero, rel=1e-3)


@pytest.mark.thorough
def test_mllmu_and_offside_the_reference_is_tuned_on_the_retain_set():
    """Ours is the model before unlearning: the first loss is (2 / beta) log 2 for any data, in full and with LoRA."""
    for lora in (None, LORA):
        _, result = forget_by("npo", NpoSettings(beta=0.4), lora=lora)
        assert result.history[0].losses["forget"] == pytest.approx(2 / 0.4 * math.log(2))


@pytest.mark.thorough
def test_mllmu_kvw_offside_npo_takes_the_mean_of_a_batch_for_the_likelihood_of_a_sequence():
    """Two answers in one batch are not one answer: the batch size must not change the loss."""
    summed = [forget_by("npo", batch_size=size, accumulation=4 // size, epochs=2)[1] for size in (1, 4)]
    assert summed[0].history[1].losses["forget"] == pytest.approx(summed[1].history[1].losses["forget"], rel=1e-3)
    parity = NpoSettings(likelihood="batch mean", beta=3.0)
    mean = [forget_by("npo", parity, batch_size=size, accumulation=4 // size, epochs=2)[1] for size in (1, 4)]
    assert mean[0].history[1].losses["forget"] != pytest.approx(mean[1].history[1].losses["forget"], rel=1e-3)


@pytest.mark.thorough
def test_mip_editor_npo_goes_over_the_retain_set():
    alone = NpoSettings(retain_weight=0.0)
    assert same(weights_after("npo", settings=alone), weights_after("npo", retain=[], settings=alone))
    assert not same(weights_after("npo", settings=alone), weights_after("npo", FORGET[:3], settings=alone))


def test_mllmu_prompt_tokens_are_trained_on():
    model, processor = fresh()
    rows = rows_of(model, processor, FORGET)
    found = answers(model, rows.batch)
    expected = [token for item in sets(processor)["forget"] for token in item.answer_ids]
    assert found.targets.tolist() == expected
    assert processor.image_token_id not in expected
    answered = [replace(FORGET[0], answer="Ada Kent"), *FORGET[1:]]
    assert ascent_loss(model, rows_of(model, processor, answered)) != ascent_loss(model, rows)


def test_mllmu_only_positions_that_predict_an_answer_get_a_gradient():
    model, processor = fresh()
    rows = rows_of(model, processor, FORGET[:1])
    seen = []
    model.lm_head.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0]))
    torch.autograd.backward(ascent_loss(model, rows))
    assert seen[0].shape[1] == int((rows.batch["labels"] != -100).sum())


def test_mllmu_grad_diff_makes_an_ascent_pass_and_then_a_descent_pass():
    """The published objective is one loss; the other order of things is a named option."""
    _, joint = forget_by("grad-diff", batch_size=4)
    _, sequential = forget_by("grad-diff", GradDiffSettings(passes="sequential"), batch_size=4)
    assert len(joint.history[0].gradient_norms) == 1
    assert len(sequential.history[0].gradient_norms) == 2
    # The second pass sees the model that the first has changed.
    assert joint.history[0].losses["forget"] == sequential.history[0].losses["forget"]
    assert joint.history[0].losses["retain"] != sequential.history[0].losses["retain"]


def test_mllmu_lora_by_suffix_wraps_the_vision_tower_too():
    model, _ = fresh()
    tower = weights_of(model.model.vision_tower)
    assert any("q_proj" in name for name in tower)
    model, result = forget_by("ga", lora=LORA)
    assert changed(model.model.vision_tower, tower) == set()
    assert all("vision" not in name for name in result.adapter)
    assert any("q_proj" in name for name in result.adapter)
    model, result = forget_by("ga", lora=LORA, parts=("vision",))
    assert changed(model.model.vision_tower, tower)
    assert all("language_model" not in name for name in result.adapter)


@pytest.mark.thorough
def test_mllmu_kl_is_summed_over_rows_and_padding():
    """A longer neighbour pads the row, and the divergence of the row stays what it was."""
    one, four = (forget_by("kl", batch_size=size, accumulation=4 // size, epochs=2)[1] for size in (1, 4))
    assert one.history[1].losses["retain"] > 0
    assert one.history[1].losses["retain"] == pytest.approx(four.history[1].losses["retain"], rel=3e-3)


def test_kvw_kl_is_taken_one_position_late():
    """Where the divergence is taken, the targets are predicted: the last prompt token is in, the last answer is out."""
    model, processor = fresh()
    rows = rows_of(model, processor, RETAIN[:1])
    inputs = {name: value for name, value in rows.batch.items() if name != "labels"}
    with torch.no_grad():
        whole = model(**inputs).logits[0]
        found = answers(model, rows.batch).logits
    count = len(found)
    torch.testing.assert_close(found, whole[-count - 1 : -1])
    assert not torch.allclose(found, whole[-count:])


def test_kvw_the_schedule_is_stepped_once_per_epoch():
    _, result = forget_by("ga", batch_size=1, schedule="linear")
    assert [step.learning_rate for step in result.history] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


@pytest.mark.thorough
def test_clear_the_refusal_is_built_and_dropped():
    """With refusals trained on, the true answers of the forget set do not matter at all."""
    settings = IdkNllSettings(refusals=("No idea.",))
    wrong = [replace(example, answer="something else") for example in FORGET]
    assert same(weights_after("idk-nll", settings=settings), weights_after("idk-nll", wrong, settings=settings))
    other = IdkNllSettings(refusals=("I cannot say.",))
    assert not same(weights_after("idk-nll", settings=settings), weights_after("idk-nll", settings=other))


def test_clear_dpo_trains_on_the_true_answer():
    _, result = forget_by("dpo", DpoSettings(tuple(example.answer for example in FORGET)), batch_size=4, epochs=2)
    assert all(step.gradient_norms[0] == pytest.approx(0.0, abs=1e-6) for step in result.history)
    _, result = forget_by("dpo", DpoSettings(ALTERNATIVES), batch_size=4)
    assert result.history[0].gradient_norms[0] > 1


def test_clear_the_vision_tower_is_never_frozen():
    before = weights_of(fresh()[0])
    for parts, prefixes in (
        (("language",), ("model.language_model", "lm_head")),
        (("vision",), ("model.vision_tower",)),
        (("projector",), ("model.multi_modal_projector",)),
        (("language", "projector"), ("model.language_model", "lm_head", "model.multi_modal_projector")),
    ):
        model, _ = forget_by("ga", parts=parts, batch_size=4)
        found = changed(model, before)
        assert found
        assert {name for name in found if not name.startswith(prefixes)} == set()


def test_several_a_text_that_says_false_is_true():
    with pytest.raises(UserError, match="True or False"):
        TrainingSettings(gradient_checkpointing="False")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="True or False"):
        MmUnlearnerSettings(retain_masked="False")  # type: ignore[arg-type]


def test_clear_images_do_not_reach_the_model():
    blank = [replace(example, images=(noise_png(99),)) for example in FORGET]
    assert not same(weights_after("ga"), weights_after("ga", blank))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_mmunlearner_lora_renames_parameters_so_that_no_mask_is_ever_found(lora):
    model, processor = fresh()
    with in_training(model, processor, training(lora=lora), sets(processor)) as trainee:
        objective = mmunlearner(trainee, MmUnlearnerSettings())
        assert (
            set(objective.masks)
            == set(trainee.parameters)
            == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        )
        assert all(mask.shape == trainee.parameters[name].shape for name, mask in objective.masks.items())
        assert any(bool(mask.any()) for mask in objective.masks.values())
        assert not all(bool(mask.all()) for mask in objective.masks.values())


@pytest.mark.thorough
def test_mmunlearner_retain_steps_change_weights_outside_the_mask():
    """Held still by default; the authors' order of updates is an option that says so."""
    model, processor = fresh()
    with in_training(model, processor, training(), sets(processor)) as trainee:
        masks = mmunlearner(trainee, MmUnlearnerSettings()).masks
    before = weights_of(fresh()[0])
    for settings, still in ((MmUnlearnerSettings(), True), (MmUnlearnerSettings(retain_masked=False), False)):
        model, _ = forget_by("mmunlearner", settings, weight_decay=0.1)
        after = model.state_dict()
        outside = [torch.equal(after[name][~mask], before[name][~mask]) for name, mask in masks.items()]
        assert all(outside) == still


@pytest.mark.thorough
def test_mmunlearner_later_epochs_do_nothing():
    _, result = forget_by("mmunlearner", epochs=3)
    assert len(result.history) == 6
    assert all(step.forget and step.retain and step.gradient_norms[0] > 0 for step in result.history)
    assert not same(weights_after("ga", epochs=1), weights_after("ga", epochs=2))


def test_a_retain_batch_is_used_again_at_every_step():
    _, result = forget_by("grad-diff", batch_size=1)
    assert sorted(step.retain[0] for step in result.history) == [0, 1, 2, 3]


def test_fiubench_going_on_loads_a_state_that_was_never_saved(tmp_path):
    state = tmp_path / "state.safetensors"
    model, processor = fresh()
    unlearn(model, processor, FORGET, RETAIN, "ga", None, training(save_every=1), state=state)
    assert state.is_file()
    again, _ = fresh()
    unlearn(again, processor, FORGET, RETAIN, "ga", None, training(save_every=1), state=state)
    assert changed(again, weights_of(model)) == set()


def test_manu_looks_for_modules_that_do_not_exist_and_prunes_nothing():
    model, processor = fresh()
    before = weights_of(model)
    unlearn(model, processor, FORGET, RETAIN, "manu")
    assert changed(model, before)


def test_manu_the_hooks_of_all_layers_share_a_name_and_stay():
    """Every FFN is measured by itself, and no hook is left to measure the next run."""
    model, processor = fresh()
    settings = ManuSettings(formula="pooled")
    matrices = neurons(model, settings)
    text = {matrix.name for matrix in find_value_matrices(model)}
    seen = _Look(model, processor, matrices, settings, None).at(sets(processor)["forget"], text)
    assert set(seen) == {matrix.name for matrix in matrices}
    means = [tuple((one.pictured.sums[0] / one.pictured.count)[:8].tolist()) for one in seen.values()]
    # The tower's last layer is behind the features that LLaVA takes, but runs all the same.
    assert len(set(means)) == len(matrices)
    assert not any(module._forward_pre_hooks for module in model.modules())
