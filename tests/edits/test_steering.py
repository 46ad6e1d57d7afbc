"""Steering: shifts by hook, with a strength that each prompt decides."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from tests.batches import logits, padded, text_batch, weights
from tests.edit_files import write
from tests.families import build_family
from tests.fixtures import TWO
from torch import nn

import kvw
from kvw.cli import main
from kvw.edits import Directions, EditMetadata, GateEdit, LowRankEdit, Steer, SteeringEdit, export_ia3, export_lora
from kvw.edits.prompts import prompt_ends
from kvw.edits.steering import _Shift
from kvw.edits.weight_edit import weight_edit
from kvw.evaluation.probability import score_batch
from kvw.models.forward_names import cache_name
from kvw.models.layer_inputs import decoder_layers, on_input
from kvw.models.value_matrix import MatrixKey
from kvw.training.answers import answers as training_answers

ROWS = ((11, 23, 45, 31, 52, 17, 29, 38, 44), (33, 21, 47, 15, 26, 58), (19, 28, 37, 46, 55, 12, 24, 36))
PADDING = 3


@pytest.fixture(params=TWO, scope="session")
def family(request):
    return request.param


def steering_edit(model, layers=(1, 2, 3), strength=0.05, **options):
    hidden = model.config.get_text_config().hidden_size
    generator = torch.Generator().manual_seed(0)
    steers = {
        layer: Steer(torch.randn(hidden, generator=generator), torch.randn(hidden, generator=generator))
        for layer in layers
    }
    return SteeringEdit(steers, strength, EditMetadata(method="steering", base_model="tiny"), **options)


def prompts(rows=ROWS, side="left"):
    longest = max(len(row) for row in rows)
    ids, mask = [], []
    for row in rows:
        filler = [PADDING] * (longest - len(row))
        ids.append([*filler, *row] if side == "left" else [*row, *filler])
        mask.append([int(token != PADDING) for token in ids[-1]])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def answers(model, batch, **options):
    """New tokens and their scores."""
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, **options}
    found = model.generate(**batch, return_dict_in_generate=True, output_logits=True, **options)
    return found.sequences[:, batch["input_ids"].shape[1] :], torch.stack(found.logits, 1)


def seen_by_layers(model, batch):
    """What enters every layer, with whatever is attached in force."""
    found = {}

    def keep(layer):
        return lambda states: found.update({layer: states.clone()})

    handles = [on_input(module, layer, keep(layer)) for layer, module in enumerate(decoder_layers(model))]
    logits(model, batch)
    for handle in handles:
        handle.remove()
    return found


def test_a_layer_is_given_h_plus_t_times_a_h_times_d(model):
    edit, batch = steering_edit(model, layers=(2,)), text_batch(3, 8, 2, seed=1)
    batch.pop("labels")
    before = seen_by_layers(model, batch)
    with edit.attach(model):
        after = seen_by_layers(model, batch)
    steer = edit.steers[2]
    amounts = 0.05 * before[2][:, -1] @ steer.filter
    torch.testing.assert_close(after[2], before[2] + amounts[:, None, None] * steer.direction)
    assert all(torch.equal(after[layer], before[layer]) for layer in (0, 1))
    assert not torch.allclose(after[3], before[3], atol=1e-3)


def test_attaching_and_detaching_leave_the_model_bit_for_bit(model):
    batch = text_batch(2, 10, 3, seed=0)
    before, original = weights(model), logits(model, batch)
    attachment = steering_edit(model).attach(model)
    assert not torch.allclose(logits(model, batch), original, atol=1e-3)
    assert "generate" in vars(model)
    attachment.detach()
    attachment.detach()
    assert torch.equal(logits(model, batch), original)
    assert all(torch.equal(weights(model)[key], value) for key, value in before.items())
    assert "generate" not in vars(model)
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_strength_0_is_the_plain_model(model):
    batch, original = prompts(), answers(model, prompts())
    with steering_edit(model, strength=0.0).attach(model):
        assert not any(layer._forward_pre_hooks for layer in decoder_layers(model))
        tokens, scores = answers(model, batch)
    assert torch.equal(tokens, original[0])
    assert torch.equal(scores, original[1])


@pytest.mark.thorough
@pytest.mark.parametrize("where", ["prompt", "last"])
@pytest.mark.parametrize("decoding", [False, True])
def test_cached_and_uncached_generation_agree(model, where, decoding):
    batch, plain = prompts(), answers(model, prompts())
    with steering_edit(model, where=where, decoding=decoding).attach(model):
        tokens, scores = answers(model, batch)
        uncached = answers(model, batch, use_cache=False)
        static = answers(model, batch, cache_implementation="static")
    for other in (uncached, static):
        assert torch.equal(tokens, other[0])
        torch.testing.assert_close(scores, other[1], rtol=1e-4, atol=1e-4)
    assert (scores[:, 0] - plain[1][:, 0]).abs().max() > 1e-2


def test_the_two_options_change_what_is_steered(llava):
    batch = prompts()
    found = {}
    for where in ("prompt", "last"):
        for decoding in (False, True):
            with steering_edit(llava, where=where, decoding=decoding).attach(llava):
                found[where, decoding] = answers(llava, batch)[1]
    assert (found["prompt", False][:, 0] - found["last", False][:, 0]).abs().max() > 1e-2
    for where in ("prompt", "last"):
        assert torch.equal(found[where, False][:, 0], found[where, True][:, 0])
        assert (found[where, False][:, 1] - found[where, True][:, 1]).abs().max() > 1e-2


@pytest.mark.thorough
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("decoding", [False, True])
def test_each_row_of_a_batch_gets_what_it_gets_alone(model, side, decoding):
    """In the forward over the prompts, and for left padding in generation, which needs it."""
    with steering_edit(model, decoding=decoding).attach(model):
        together = logits(model, prompts(side=side))
        for number, row in enumerate(ROWS):
            alone = logits(model, prompts([row]))[0]
            begin = together.shape[1] - len(row) if side == "left" else 0
            torch.testing.assert_close(together[number, begin : begin + len(row)], alone, rtol=1e-3, atol=1e-4)
        if side == "left":
            tokens, scores = answers(model, prompts())
            for number, row in enumerate(ROWS):
                one_token, one_score = answers(model, prompts([row]))
                assert torch.equal(tokens[number], one_token[0])
                torch.testing.assert_close(scores[number], one_score[0], rtol=1e-3, atol=1e-4)


def test_rows_padded_on_the_right_decide_by_their_own_last_token(llava):
    """Generation of right-padded prompts goes on behind the padding; the first scores are those at the prompt's end."""
    batch = prompts(side="right")
    with steering_edit(llava).attach(llava):
        cached, uncached = answers(llava, batch), answers(llava, batch, use_cache=False)
    assert torch.equal(cached[0], uncached[0])
    torch.testing.assert_close(cached[1], uncached[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
@pytest.mark.parametrize("decoding", [False, True])
def test_beams_of_a_sample_share_its_strength(llava, options, decoding):
    with steering_edit(llava, decoding=decoding).attach(llava):
        together = llava.generate(**prompts(), do_sample=False, max_new_tokens=5, min_new_tokens=5, **options)
        uncached = llava.generate(
            **prompts(), do_sample=False, max_new_tokens=5, min_new_tokens=5, use_cache=False, **options
        )
        assert torch.equal(together, uncached)
        returned = options.get("num_return_sequences", 1)
        for number, row in enumerate(ROWS):
            alone = llava.generate(**prompts([row]), do_sample=False, max_new_tokens=5, min_new_tokens=5, **options)
            rows = slice(number * returned, (number + 1) * returned)
            assert torch.equal(together[rows, -5:], alone[:, -5:])


def test_generate_finds_the_prompt_without_a_mask_and_from_embeddings(llava):
    ids = torch.tensor([ROWS[0]])
    with steering_edit(llava).attach(llava):
        expected = answers(llava, prompts([ROWS[0]]))[0]
        assert torch.equal(llava.generate(ids, do_sample=False, max_new_tokens=6, min_new_tokens=6)[:, 9:], expected)
        for use_cache in (True, False):
            found = llava.generate(
                input_ids=ids, do_sample=False, max_new_tokens=6, min_new_tokens=6, use_cache=use_cache
            )
            assert torch.equal(found[:, 9:], expected)
        embedded = llava.get_input_embeddings()(ids)
        found = llava.generate(inputs_embeds=embedded, do_sample=False, max_new_tokens=6, min_new_tokens=6)
        assert torch.equal(found, expected)


def test_a_loop_of_plain_forwards_is_generation_too(llava):
    with steering_edit(llava).attach(llava), torch.no_grad():
        expected = answers(llava, prompts([ROWS[0]]))[0][0].tolist()
        found, tokens, cache = [], torch.tensor([ROWS[0]]), None
        for _ in range(6):
            output = llava(input_ids=tokens, **{cache_name(llava): cache}, use_cache=True)
            cache = output[cache_name(llava)]
            tokens = output.logits[:, -1:].argmax(-1)
            found.append(int(tokens))
    assert found[:5] == expected[:5]


def test_answers_that_are_given_are_no_prompt(model):
    """Teacher forcing scores what generation would say; labels, or prompt_ends, say where the prompt ends."""
    prompt, answer = list(ROWS[0]), [22, 34, 41]
    batch = {"input_ids": torch.tensor([prompt + answer]), "labels": torch.tensor([[-100] * len(prompt) + answer])}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    name = cache_name(model)
    with steering_edit(model).attach(model), torch.no_grad():
        cached = model(input_ids=torch.tensor([prompt]), use_cache=True)
        rows = [cached.logits[0, -1]]
        for token in answer[:-1]:
            earlier = {name: cached[name]}
            cached = model(input_ids=torch.tensor([[token]]), **earlier, use_cache=True)
            rows.append(cached.logits[0, -1])
        expected = torch.stack(rows)
        torch.testing.assert_close(model(**batch).logits[0, 8:11], expected, rtol=1e-4, atol=1e-4)
        with prompt_ends(model, torch.tensor([8])):
            torch.testing.assert_close(logits(model, batch)[0, 8:11], expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits(model, batch)[0, 8:11], expected, atol=1e-2)
        log_probabilities = expected.log_softmax(-1)[range(3), answer]
        for left, right in ((0, 0), (2, 0), (0, 2)):
            (scores,) = score_batch(model, padded(batch, left, right))
            torch.testing.assert_close(torch.tensor(scores.log_probabilities), log_probabilities, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoding", [False, True])
def test_text_that_nobody_asked_for_is_left_alone(llava, decoding):
    """It has no prompt that could decide: its first token says nothing of it."""
    ids = torch.tensor([ROWS[0]] * 2)
    labels = ids.clone()
    labels[0, :1] = labels[1, :2] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    plain = score_batch(llava, batch)
    with steering_edit(llava, decoding=decoding).attach(llava):
        text, asked = score_batch(llava, batch)
    assert text == plain[0]
    assert asked != plain[1]


def test_prompt_ends_matters_to_nobody_without_such_an_edit(llava):
    batch = text_batch(2, 10, 3, seed=0)
    original = logits(llava, batch)
    with prompt_ends(llava, torch.tensor([4, 4])):
        assert torch.equal(logits(llava, batch), original)


class ByName(nn.Module):
    """A decoder layer that is given its states as a keyword."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def __call__(self, states, **named):
        return super().__call__(hidden_states=states, **named)

    def forward(self, attention_mask=None, hidden_states=None, **others):
        return self.layer(hidden_states, attention_mask=attention_mask, **others)


def test_layers_of_other_signatures_are_steered_alike(llava):
    edit, batch = steering_edit(llava), text_batch(2, 9, 2, seed=0)
    with edit.attach(llava):
        expected = logits(llava, batch)
    layers = llava.model.language_model.layers
    for number, layer in enumerate(layers):
        layers[number] = ByName(layer)
        layers[number].attention_type = getattr(layer, "attention_type", None)
    with edit.attach(llava):
        assert torch.equal(logits(llava, batch), expected)


def test_states_are_found_by_the_name_of_the_first_parameter():
    class First(nn.Module):
        def forward(self, x, factor=1.0):
            return x * factor

    layer, states = First(), torch.ones(1, 2, 3)
    handle = on_input(layer, 0, lambda seen: seen + 1)
    assert torch.equal(layer(states), states + 1)
    assert torch.equal(layer(x=states, factor=2.0), 2 * (states + 1))
    handle.remove()
    assert torch.equal(layer(states), states)


def test_a_layer_that_is_given_no_states_is_refused():
    layer = nn.Linear(3, 3)
    on_input(layer, 4, lambda seen: None)
    assert inspect.signature(layer.forward).parameters
    with pytest.raises(kvw.UserError, match="Layer 4 of the decoder is not given hidden states") as caught:
        layer(torch.ones(2, 3))
    assert "a tensor (2, 3)" in str(caught.value)


def test_it_goes_together_with_edits_of_value_matrices(llava):
    batch, matrix = text_batch(2, 10, 3, seed=0), MatrixKey(2)
    generator = torch.Generator().manual_seed(3)
    gates = GateEdit({matrix: -torch.rand(80, generator=generator)})
    picked = torch.eye(80)[:, :3]
    directions = LowRankEdit({MatrixKey(3): Directions(picked, picked, torch.tensor([-1.0, -2.0, -0.5]))})
    edit, other = steering_edit(llava), steering_edit(llava, layers=(1,), strength=-0.1)
    folded = copy.deepcopy(llava)
    gates.fold(folded)
    directions.fold(folded)
    with edit.attach(folded):
        expected = logits(folded, batch)
    with edit.attach(llava), gates.attach(llava), directions.attach(llava):
        torch.testing.assert_close(logits(llava, batch), expected, rtol=1e-4, atol=1e-4)
    with directions.attach(llava), gates.attach(llava), edit.attach(llava):
        torch.testing.assert_close(logits(llava, batch), expected, rtol=1e-4, atol=1e-4)
    # Two steering edits share one observer of prompts, whichever is detached first.
    with edit.attach(llava):
        alone = logits(llava, batch)
    first, second = edit.attach(llava), other.attach(llava)
    assert not torch.allclose(logits(llava, batch), alone, atol=1e-3)
    first.detach()
    assert "generate" in vars(llava)
    second.detach()
    assert "generate" not in vars(llava)


def test_a_generate_of_the_users_own_comes_back(llava):
    own = llava.generate
    llava.generate = own
    with steering_edit(llava).attach(llava):
        assert llava.generate is not own
    assert vars(llava)["generate"] is own


def test_half_precision_is_rounded_once(llava):
    llava.to(torch.bfloat16)
    edit, batch = steering_edit(llava, layers=(2,)), prompts([ROWS[0]])
    before = seen_by_layers(llava, batch)[2].double()
    with edit.attach(llava):
        after = seen_by_layers(llava, batch)[2].double()
    steer = edit.steers[2]
    amount = edit.strength * (before[0, -1] @ steer.filter.double())
    exact = before + amount * steer.direction.double()
    assert bool(((after - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all())


def test_gradients_flow_after_inference_mode(llava):
    """Vectors moved to a device in inference mode must not break later gradients."""
    with steering_edit(llava).attach(llava):
        with torch.inference_mode():
            llava(input_ids=torch.tensor([ROWS[0]]))
        llava(input_ids=torch.tensor([ROWS[0]])).logits.sum().backward()
    assert llava.get_input_embeddings().weight.grad is not None


@pytest.mark.parametrize("where", ["prompt", "last"])
@pytest.mark.parametrize("decoding", [False, True])
def test_a_file_brings_back_the_edit(llava, tmp_path, where, decoding):
    edit = steering_edit(llava, where=where, decoding=decoding)
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert isinstance(loaded, SteeringEdit)
    assert (loaded.metadata, loaded.strength, loaded.where, loaded.decoding) == (edit.metadata, 0.05, where, decoding)
    assert loaded.tensors().keys() == edit.tensors().keys()
    assert all(torch.equal(loaded.tensors()[name], value) for name, value in edit.tensors().items())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer.1.filter": torch.zeros(5)}, "do not fit"),
        ({"layer.1.direction": torch.full((48,), float("nan"))}, "not finite"),
        ({"strength": torch.tensor(float("inf"), dtype=torch.float64)}, "not finite"),
        ({"layer.9.filter": torch.zeros(48)}, "direction"),
    ],
)
def test_files_that_make_no_sense_are_refused(llava, tmp_path, change, reason):
    edit = steering_edit(llava)
    write(tmp_path / "edit.safetensors", edit.kind, edit.tensors() | change)
    with pytest.raises(kvw.UserError, match="not an edit file") as caught:
        kvw.load_edit(tmp_path / "edit.safetensors")
    assert reason in str(caught.value)


def test_scaling_multiplies_the_strength_and_inverting_turns_it(llava):
    edit, batch = steering_edit(llava, where="last", decoding=True), prompts([ROWS[0]])
    half = kvw.scale(edit, 0.5)
    assert (half.strength, half.where, half.decoding, half.metadata.method) == (0.025, "last", True, "scale")
    assert half.metadata.parents == (edit.metadata,)
    assert kvw.invert(edit).strength == -0.05
    before = seen_by_layers(llava, batch)
    shifts = []
    for one in (SteeringEdit({1: edit.steers[1]}, 0.05), SteeringEdit({1: edit.steers[1]}, -0.05)):
        with one.attach(llava):
            shifts.append(seen_by_layers(llava, batch)[1] - before[1])
    torch.testing.assert_close(shifts[0], -shifts[1], rtol=1e-3, atol=1e-5)


def test_a_summary_says_how_far_states_move(llava):
    edit = steering_edit(llava, layers=(1, 3), strength=-0.5)
    found = edit.describe()
    assert [layer.key for layer in found] == ["layer.1", "layer.3"]
    assert [layer.shift for layer in found] == pytest.approx(
        [0.5 * float(edit.steers[layer].direction.norm()) for layer in (1, 3)]
    )
    assert {layer.weakened for layer in found} == {0}


def test_there_are_no_weights_to_fold_it_into(llava, tmp_path):
    edit = steering_edit(llava)
    before = weights(llava)
    for refused in (
        lambda: edit.fold(llava),
        lambda: weight_edit(edit),
    ):
        with pytest.raises(kvw.UserError, match="there are no weights"):
            refused()
    assert all(torch.equal(weights(llava)[key], value) for key, value in before.items())
    for export in (export_ia3, export_lora):
        with pytest.raises(kvw.UserError, match="have no form as an adapter"):
            export(edit, llava, tmp_path / "adapter")


def test_what_the_algebra_cannot_do_is_said(llava):
    edit = steering_edit(llava)
    with pytest.raises(kvw.UserError, match="cannot be composed"):
        kvw.compose(edit, edit)
    with pytest.raises(kvw.UserError, match="different kinds"):
        kvw.compose(edit, GateEdit({MatrixKey(1): torch.zeros(80)}))
    with pytest.raises(kvw.UserError, match="cannot be mixed"):
        kvw.mix(edit, 0.5)
    with pytest.raises(kvw.UserError, match="cannot be compared"):
        kvw.diff(edit, edit)


def test_the_edit_of_another_model_is_refused(llava, qwen2_vl):
    with pytest.raises(kvw.UserError, match="does not fit this Qwen2VL") as caught:
        steering_edit(llava).attach(qwen2_vl)
    assert "layer.1: 48 in the edit, 32 in the model" in str(caught.value)
    with pytest.raises(kvw.UserError, match=r"layer\.4: 48 in the edit, missing in the model"):
        steering_edit(llava, layers=(1, 4)).attach(llava)
    first = steering_edit(llava)
    second = SteeringEdit(first.steers, metadata=EditMetadata(model_fingerprint="b" * 64))
    first.metadata = first.metadata.model_copy(update={"model_fingerprint": "a" * 64})
    with pytest.raises(kvw.UserError, match="models with different weights"):
        kvw.compose(first, second)


def test_encoder_decoders_are_refused():
    model = copy.deepcopy(build_family("t5"))
    edit = SteeringEdit({1: Steer(torch.zeros(32), torch.zeros(32))})
    with pytest.raises(kvw.UserError, match="reads prompts in an encoder"):
        edit.attach(model)


@pytest.mark.parametrize("where", ["everywhere", ""])
def test_an_unknown_place_is_refused(where):
    with pytest.raises(kvw.UserError, match="no such place"):
        SteeringEdit({}, where=where)


def test_prompts_in_pieces_are_refused(llava):
    ids, mask = torch.tensor([ROWS[0]]), torch.ones(1, 9, dtype=torch.int64)
    with steering_edit(llava).attach(llava), torch.no_grad():
        with pytest.raises(kvw.UserError, match="comes in pieces"):
            llava.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2, prefill_chunk_size=4)
        name = cache_name(llava)
        filled = {name: llava(input_ids=ids[:, :5], use_cache=True)[name]}
        with pytest.raises(kvw.UserError, match="4 tokens after 5 in the cache"):
            llava(input_ids=ids[:, 5:], **filled)
        with pytest.raises(kvw.UserError, match="comes in pieces"):
            llava.generate(input_ids=ids, attention_mask=mask, **filled, max_new_tokens=2)


def test_layers_without_the_model_around_them_are_refused(llava):
    with steering_edit(llava).attach(llava):
        logits(llava, text_batch(1, 5, 2, seed=0))
        with pytest.raises(kvw.UserError, match="outside of a forward of the model"):
            llava.model(input_ids=torch.tensor([ROWS[0]]))


def test_a_mask_that_says_nothing_of_tokens_is_refused(llava):
    with steering_edit(llava).attach(llava), pytest.raises(kvw.UserError, match="which tokens of the prompt are"):
        llava(input_ids=torch.tensor([ROWS[0]]), attention_mask=torch.zeros(1, 1, 9, 9))


def test_generated_tokens_in_other_rows_are_refused(llava):
    with steering_edit(llava, decoding=True).attach(llava), torch.no_grad():
        name = cache_name(llava)
        cache = llava(input_ids=prompts()["input_ids"], use_cache=True)[name]
        cache.batch_select_indices(torch.tensor([0, 1]))
        with pytest.raises(kvw.UserError, match="in other rows than their prompts"):
            llava(input_ids=torch.tensor([[5], [6]]), **{name: cache})


def test_the_command_line_shows_and_scales_it(llava, tmp_path, capsys):
    file, half = tmp_path / "edit.safetensors", tmp_path / "half.safetensors"
    edit = steering_edit(llava, layers=(1, 3))
    edit.save(file)
    for arguments in (["show", str(file)], ["scale", str(file), "--strength", "0.5", "--out", str(half)]):
        with pytest.raises(SystemExit) as stopped:
            main(["edit", *arguments])
        assert not stopped.value.code
    shown = capsys.readouterr().out
    assert "steering" in shown
    for layer in (1, 3):
        assert f"layer.{layer}" in shown
        assert f"{0.05 * float(edit.steers[layer].direction.norm()):.4g}" in shown
    assert f"{half} steers 2 layers." in shown
    assert kvw.load_edit(half).strength == 0.025


@pytest.mark.parametrize(("decoding", "expected"), [(False, [9] * 3), (True, [9] * 3 + [1] * 15)])
def test_generated_tokens_that_are_not_steered_cost_no_hook(llava, monkeypatch, decoding, expected):
    tokens, shift = [], _Shift.__call__

    def counted(self, states):
        tokens.append(states.shape[1])
        return shift(self, states)

    monkeypatch.setattr(_Shift, "__call__", counted)
    with steering_edit(llava, decoding=decoding).attach(llava):
        answers(llava, prompts([ROWS[0]]))
    assert tokens == expected


def test_compiling_is_off_however_generate_is_told_its_settings(llava):
    told = []
    llava.generate = lambda **named: told.append(named)
    try:
        config = copy.copy(llava.generation_config)
        before = config.disable_compile
        with steering_edit(llava).attach(llava):
            llava.generate(input_ids=torch.tensor([ROWS[0]]), generation_config=config)
            llava.generate(input_ids=torch.tensor([ROWS[0]]), max_new_tokens=2)
    finally:
        del llava.generate
    assert told[0].keys() == {"input_ids", "generation_config"}
    assert told[0]["generation_config"].disable_compile is True
    assert config.disable_compile == before
    assert told[1]["disable_compile"] is True


def test_training_sees_the_question_as_the_prompt(llava):
    """What relearning trains on is the function that is asked."""
    batch = text_batch(2, 10, 4, seed=0)
    with steering_edit(llava).attach(llava), torch.no_grad():
        trained = training_answers(llava, batch).log_likelihoods
        scored = torch.tensor([sum(row.log_probabilities) for row in score_batch(llava, batch)])
        whole = {name: value for name, value in batch.items() if name != "labels"}
        unlike = torch.log_softmax(llava(**whole).logits, -1)[:, :-1].gather(2, batch["input_ids"][:, 1:, None])[..., 0]
        told_nothing = (unlike * (batch["labels"][:, 1:] != -100)).sum(1)
    torch.testing.assert_close(trained.double(), scored.double(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(told_nothing, trained, rtol=1e-3)


@pytest.mark.parametrize("detached", [False, True])
def test_ctrl_c_in_a_forward_leaves_nothing_behind(llava, detached):
    batch = text_batch(2, 8, 2, seed=1)
    plain = logits(llava, batch)
    attached = steering_edit(llava).attach(llava)
    steered = logits(llava, batch)
    stop = decoder_layers(llava)[3].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        logits(llava, batch)
    stop.remove()
    if detached:
        attached.detach()
    assert torch.equal(logits(llava, batch), plain if detached else steered)
    attached.detach()
    assert torch.equal(logits(llava, batch), plain)
