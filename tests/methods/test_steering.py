"""Steering from examples to an edit, on tiny models."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests.batches import logits, text_batch
from tests.fixtures import built
from tests.tiny_models import noise_png

import kvw
from kvw.data import Example, answer_batch, prepare, prompt_batch, to_model
from kvw.evaluation.loaded import Loaded
from kvw.methods.gradient.refusals import REFUSALS, with_refusals
from kvw.methods.registry import get_method
from kvw.methods.steering.diagnosis import Diagnosis, diagnose
from kvw.methods.steering.direction import ContrastPairs, find_directions, pairs_of, read_pairs, refusal_pairs
from kvw.methods.steering.gate_plot import plot_gates
from kvw.methods.steering.method import steering
from kvw.methods.steering.neutral import SHAPES, neutral_pairs
from kvw.methods.steering.null_space import null_space, solve_filter
from kvw.methods.steering.perturbation import PixelRange, perturbed, to_8_bits
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.steering.states import read_states, readings
from kvw.models.layer_inputs import decoder_layers
from kvw.models.loading import find_checkpoint
from kvw.report.tables import what_changed
from kvw.runs.apply import apply
from kvw.runs.edits import summarise
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.unlearning import unlearn
from kvw.runs.weights import check_weights

pytestmark = pytest.mark.thorough


def examples(count, seed, *, image=True):
    places = ("Kuwait City", "Paris", "the image", "a city", "the author")
    return [
        Example(
            f"Where was person {seed * 100 + number} born?",
            places[number % len(places)],
            (noise_png(seed * 100 + number),) if image else (),
            f"example {number}",
        )
        for number in range(count)
    ]


def block_inputs(model, processor, example, layer):
    """By the library's own account: hidden_states[layer] at the last token."""
    inputs = to_model(prompt_batch(prepare([example], processor), processor), model)
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[layer][0, -1]


def test_states_are_what_enters_a_layer_at_the_last_prompt_token(model, processor):
    samples = examples(3, 0) + examples(2, 1, image=False)
    layers = [0, 2, 3]
    prepared = prepare(samples, processor)
    found = read_states(model, readings(prepared, processor), layers)
    outputs = read_states(model, readings(prepared, processor), layers, outputs=True)
    for layer in layers:
        for number, sample in enumerate(samples):
            expected = block_inputs(model, processor, sample, layer)
            torch.testing.assert_close(found[layer][number], expected, rtol=1e-3, atol=1e-4)
            expected = block_inputs(model, processor, sample, layer + 1)
            torch.testing.assert_close(outputs[layer][number], expected, rtol=1e-3, atol=1e-4)


def test_answers_are_read_at_their_own_tokens(llava, llava_processor):
    prepared = prepare(examples(3, 0), llava_processor)
    found = read_states(llava, readings(prepared, llava_processor, answers=True), [2])[2]
    for number, item in enumerate(prepared):
        batch = answer_batch([item], llava_processor)
        chosen = batch.pop("labels")[0] != -100
        with torch.no_grad():
            states = llava(**batch, output_hidden_states=True, use_cache=False).hidden_states[2][0]
        assert int(chosen.sum()) == len(item.answer_ids)
        torch.testing.assert_close(found[number], states[chosen].mean(0), rtol=1e-3, atol=1e-4)


def test_the_edit_is_made_of_directions_and_filters(llava, llava_processor):
    forget, retain = examples(6, 0), examples(12, 1)
    recall, erasure = examples(3, 2), examples(4, 3)
    pairs = pairs_of(recall, erasure, llava_processor)
    settings = SteeringSettings(layers=(1, 3), skipped=(2,), strength=0.4, ratio=0.5, where="last", decoding=True)
    reports, seen = [], []
    edit = steering(
        llava,
        forget,
        retain,
        settings,
        processor=llava_processor,
        pairs=pairs,
        on_layer=reports.append,
        progress=lambda *done: seen.append(done),
    )
    assert list(edit.steers) == [1, 3]
    assert (edit.strength, edit.where, edit.decoding, edit.metadata.method) == (0.4, "last", True, "steering")
    assert edit.metadata.settings["layers"] == (1, 3)
    assert [report.layer for report in reports] == [1, 3]
    assert seen[-1] == (2, 2)
    for layer, steer in edit.steers.items():

        def states(samples, layer=layer):
            return torch.stack([block_inputs(llava, llava_processor, one, layer) for one in samples]).double()

        torch.testing.assert_close(
            steer.direction.double(), states(erasure).mean(0) - states(recall).mean(0), rtol=1e-3, atol=1e-4
        )
        basis, _ = null_space(states(retain), ratio=0.5)
        gates = states(forget) @ solve_filter(states(forget), basis, 0.1)
        torch.testing.assert_close(states(forget) @ steer.filter.double(), gates, rtol=1e-2, atol=1e-3)


def test_the_model_stays_as_it_was(llava, llava_processor):
    batch = text_batch(2, 10, 3, seed=0)
    original = logits(llava, batch)
    llava.train()
    edit = steering(
        llava, examples(4, 0), examples(6, 1), SteeringSettings(epsilon=0.05, steps=1), processor=llava_processor
    )
    assert llava.training
    llava.eval()
    assert torch.equal(logits(llava, batch), original)
    assert not any(layer._forward_pre_hooks for layer in decoder_layers(llava))
    assert all(parameter.grad is None for parameter in llava.parameters())
    with edit.attach(llava):
        assert not torch.equal(logits(llava, batch), original)


def test_pairs_can_be_made_from_the_forget_set(llava, llava_processor):
    forget = examples(4, 0)
    pairs = refusal_pairs(forget, llava_processor, seed=3)
    assert pairs.answers
    assert [item.example for item in pairs.recall] == forget
    drawn = with_refusals(prepare(forget, llava_processor), llava_processor, REFUSALS, 3)
    assert [item.example for item in pairs.erasure] == [item.example for item in drawn]
    assert {item.example.answer for item in pairs.erasure} <= set(REFUSALS)
    found = find_directions(llava, llava_processor, pairs, [1, 2], SteeringSettings())
    settings = SteeringSettings(layers=(1, 2), seed=3, pairs="forget")
    edit = steering(llava, forget, examples(6, 1), settings, processor=llava_processor)
    for layer in (1, 2):
        torch.testing.assert_close(edit.steers[layer].direction, found[layer].float())


def test_a_refusal_that_does_not_fit_is_a_user_error(llava, llava_processor, monkeypatch):
    forget = examples(4, 0)
    longest = max(item.length for item in prepare(forget, llava_processor, llava.config))
    monkeypatch.setattr(llava.config.text_config, "max_position_embeddings", longest)
    prepare(forget, llava_processor, llava.config)
    with pytest.raises(kvw.UserError, match="the prompt with its answer is longer than the model's context"):
        steering(llava, forget, examples(6, 1), {"pairs": "forget"}, processor=llava_processor)


def test_the_neutral_pairs_are_the_default_and_hold_nothing_of_the_forget_set(llava, llava_processor):
    retain, settings = examples(6, 1), SteeringSettings(layers=(2, 3))
    neutral = pairs_of(*neutral_pairs(llava.config), llava_processor)
    expected = find_directions(llava, llava_processor, neutral, [2, 3], settings)
    for seed in (0, 7):
        edit = steering(llava, examples(4, seed), retain, settings, processor=llava_processor)
        for layer in (2, 3):
            torch.testing.assert_close(edit.steers[layer].direction, expected[layer].float())


def test_the_preset_has_the_numbers_of_each_family_and_leaves_what_is_given():
    llava_, qwen = (SteeringSettings(preset="paper").for_model(name) for name in ("llava", "qwen2_5_vl"))
    assert (llava_.ratio, llava_.ridge, llava_.strength) == (0.3, 0.1, 0.25)
    assert (qwen.ratio, qwen.ridge, qwen.strength) == (0.4, 1.0, 0.27)
    for one in (llava_, qwen):
        assert (one.epsilon, one.step, one.steps, one.parity) == (16 / 255, 2 / 255, 10, True)
    assert SteeringSettings(preset="paper", ratio=0.5).for_model("qwen2_5_vl").ratio == 0.5
    plain = SteeringSettings()
    assert plain.for_model("anything") is plain
    with pytest.raises(kvw.UserError, match="two families only"):
        SteeringSettings(preset="paper").for_model("idefics3")


def test_the_preset_perturbs_pictures_and_reads_pairs_without_any_as_they_are(llava, llava_processor):
    seen = []

    def watched(model, processor, item, settings, seed):
        seen.append((item.image_count, settings.epsilon, settings.steps))
        return perturbed(model, processor, item, replace(settings, steps=1), seed=seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvw.methods.steering.direction.perturbed", watched)
        settings = SteeringSettings(preset="paper", layers=(1, 2))
        edit = steering(llava, examples(4, 0), examples(9, 1), settings, processor=llava_processor)
    assert seen == [(1, 16 / 255, 10)] * (2 * len(SHAPES))
    assert edit.metadata.settings["ridge"] == 0.1
    assert edit.metadata.settings["parity"] is True


def test_the_seed_acts_where_something_is_drawn():
    idle = get_method("steering").idle
    base = {"pairs": "neutral", "epsilon": 0.1}
    assert idle(base) == {"seed"}
    assert idle({**base, "pairs": "forget"}) == idle({**base, "random_start": True}) == set()


def test_pairs_come_from_files_too(llava_processor, tmp_path):
    for name, count in (("recall", 2), ("erasure", 3)):
        lines = [json.dumps({"question": f"{name} {number}?", "answer": "yes"}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    pairs = read_pairs(tmp_path / "recall.jsonl", tmp_path / "erasure.jsonl", llava_processor)
    assert [item.example.question for item in pairs.recall] == ["recall 0?", "recall 1?"]
    assert len(pairs.erasure) == 3
    assert not pairs.answers


def test_parity_reads_directions_from_block_outputs(llava, llava_processor):
    pairs = pairs_of(examples(3, 2), examples(3, 3), llava_processor)
    plain = find_directions(llava, llava_processor, pairs, [1, 2, 3], SteeringSettings())
    parity = find_directions(llava, llava_processor, pairs, [1, 2, 3], SteeringSettings(parity=True))
    for layer in (1, 2):
        torch.testing.assert_close(parity[layer], plain[layer + 1], rtol=1e-4, atol=1e-5)
    edit = steering(
        llava,
        examples(4, 0),
        examples(9, 1),
        SteeringSettings(parity=True, ratio=0.3),
        processor=llava_processor,
        pairs=pairs,
    )
    assert list(edit.steers) == [1, 3]


@pytest.fixture(scope="module")
def edits_by_default():
    """What was made with the defaults so far."""
    return {}


@pytest.mark.parametrize(
    "values",
    [
        {"ratio": 0.9},
        {"energy": 0.5},
        {"ridge": 100.0},
        {"layers": (1, 2)},
        {"skipped": (2,)},
        {"seed": 5, "pairs": "forget"},
        {"pairs": "forget"},
        {"preset": "paper", "steps": 1},
        {"epsilon": 0.1, "steps": 2},
        {"parity": True},
    ],
)
def test_every_setting_changes_the_edit(llava, llava_processor, values, edits_by_default):
    def made(**settings):
        return steering(
            llava, examples(3, 0), examples(12, 1), SteeringSettings(**settings), processor=llava_processor
        ).tensors()

    # The model has the same weights in every test, so its default edit is made once.
    beside = {"pairs": "forget"} if "seed" in values else {}
    if str(beside) not in edits_by_default:
        edits_by_default[str(beside)] = made(**beside)
    default, changed = edits_by_default[str(beside)], made(**values)
    assert default.keys() != changed.keys() or any(not torch.equal(default[name], changed[name]) for name in default)


@pytest.mark.parametrize("values", [{"step": 0.05}, {"steps": 3}, {"random_start": True}, {"target": "Paris"}])
def test_every_setting_of_the_perturbation_changes_it(llava, llava_processor, values):
    (item,) = prepare(examples(1, 0), llava_processor)
    default = SteeringSettings(epsilon=0.1, step=0.01, steps=2)
    first = perturbed(llava, llava_processor, item, default)
    assert torch.equal(perturbed(llava, llava_processor, item, default), first)
    assert not torch.equal(perturbed(llava, llava_processor, item, replace(default, **values)), first)


def test_a_perturbed_image_is_8_bit_within_epsilon_and_says_the_target(model, processor):
    (item,) = prepare(examples(1, 0), processor)
    settings = SteeringSettings(epsilon=16 / 255, step=4 / 255, steps=8, target="Sure, here is")
    clean = prompt_batch([item], processor)["pixel_values"]
    found = perturbed(model, processor, item, settings)
    assert found.shape == clean.shape
    span = PixelRange.measure(item, processor)
    levels = [255 * span.brightness(pixels.float()).double() for pixels in (clean, found)]
    torch.testing.assert_close(levels[1], levels[1].round(), rtol=0, atol=1e-3)
    assert float(levels[1].min()) >= -1e-3
    assert float(levels[1].max()) <= 255.001
    moved = (levels[1] - levels[0]).abs()
    assert 8 < float(moved.max()) <= 16.01

    def loss(pixels):
        batch = answer_batch(prepare([replace(item.example, answer=settings.target)], processor), processor)
        with torch.no_grad():
            return float(model(**{**batch, "pixel_values": pixels}).loss)

    assert loss(found) < loss(clean) - 0.05
    unchanged = perturbed(model, processor, item, replace(settings, epsilon=0.0))
    assert torch.equal(unchanged, clean.float())


def test_the_range_is_that_of_the_processor(llava_processor):
    (item,) = prepare(examples(1, 0), llava_processor)
    span = PixelRange.measure(item, llava_processor)
    mean = torch.tensor(llava_processor.image_processor.image_mean)[:, None, None]
    std = torch.tensor(llava_processor.image_processor.image_std)[:, None, None]
    torch.testing.assert_close(span.black[0], (-mean / std).expand(3, 28, 28))
    torch.testing.assert_close(span.white[0], ((1 - mean) / std).expand(3, 28, 28))
    assert span.pixels == 3 * 28 * 28
    noise = torch.rand(span.black.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(span.brightness(span.values(noise)), noise, rtol=0, atol=1e-5)


def test_images_that_are_repeated_in_time_stay_equal(qwen2_vl):
    processor = built("qwen2_vl")[1]
    (item,) = prepare(examples(1, 0), processor)
    span = PixelRange.measure(item, processor)
    assert span.pixels == span.black.numel() // 2
    settings = SteeringSettings(epsilon=0.1, step=0.02, steps=2, random_start=True)
    found = perturbed(qwen2_vl, processor, item, settings)
    patches = span.brightness(found).view(len(found), 3, 2, 7, 7)
    torch.testing.assert_close(patches[:, :, 0], patches[:, :, 1], rtol=0, atol=1e-6)


def test_rounding_stays_within_epsilon():
    clean = torch.tensor([0.0, 0.5, 100 / 255, 1.0])
    assert torch.equal(to_8_bits(clean + 0.4 / 255, clean, 0.0), clean)
    found = to_8_bits(torch.tensor([0.9, 0.9, 0.9, 0.1]), clean, 16 / 255)
    torch.testing.assert_close(255 * found, torch.tensor([16.0, 143.0, 116.0, 239.0]))


def test_what_cannot_be_perturbed_is_said(llava, llava_processor):
    text = prepare(examples(1, 0, image=False), llava_processor)[0]
    with pytest.raises(kvw.UserError, match="no image to perturb"):
        perturbed(llava, llava_processor, text, SteeringSettings(epsilon=0.1))
    (item,) = prepare(examples(1, 0), llava_processor)
    llava.requires_grad_(False)
    llava.get_input_embeddings().register_forward_hook(lambda *_: None)
    llava.model.vision_tower.register_forward_pre_hook(
        lambda _, inputs, named: (tuple(value.detach() for value in inputs), named), with_kwargs=True
    )
    llava.model.multi_modal_projector.register_forward_pre_hook(
        lambda _, inputs: tuple(value.detach() for value in inputs)
    )
    with pytest.raises(kvw.UserError, match="cannot be differentiated"):
        perturbed(llava, llava_processor, item, SteeringSettings(epsilon=0.1))


def test_bad_input_is_refused(llava, llava_processor):
    forget, retain = examples(4, 0), examples(6, 1)
    for name, sets in (("forget", ([], retain)), ("retain", (forget, []))):
        with pytest.raises(kvw.UserError, match=f"The {name} set is empty"):
            steering(llava, *sets, processor=llava_processor)
    with pytest.raises(kvw.UserError, match="more examples on the recall side"):
        pairs_of(examples(1, 2), examples(3, 3), llava_processor)
    with pytest.raises(kvw.UserError, match="more examples on the erasure side"):
        pairs_of(examples(3, 2), [], llava_processor)
    with pytest.raises(kvw.UserError, match="more examples on the recall side"):
        steering(llava, forget[:1], retain, {"pairs": "forget"}, processor=llava_processor)
    same = prepare(forget, llava_processor)
    with pytest.raises(kvw.UserError, match="do not differ in layer 1"):
        steering(llava, forget, retain, processor=llava_processor, pairs=ContrastPairs(same, same))
    with pytest.raises(kvw.UserError, match="leaves no direction of layer 1 free"):
        steering(llava, forget, examples(60, 1), SteeringSettings(energy=0.0), processor=llava_processor)
    with pytest.raises(kvw.UserError, match="does not fit this model"):
        steering(llava, forget, retain, SteeringSettings(layers=(2, 9)), processor=llava_processor)


def test_plain_text_has_no_question_that_could_decide(llava, llava_processor):
    forget, retain = examples(4, 0), examples(6, 1)
    plain = Example("", "The kettle whistled in the kitchen.", identifier="a sentence", plain=True)
    edits = [steering(llava, forget, kept, processor=llava_processor) for kept in (retain, [plain, *retain])]
    assert all(torch.equal(steer.filter, edits[1].steers[layer].filter) for layer, steer in edits[0].steers.items())
    with pytest.raises(kvw.UserError, match="no question at whose end") as caught:
        steering(llava, [*forget, plain], retain, processor=llava_processor)
    assert "a sentence" in str(caught.value)
    with pytest.raises(kvw.UserError, match="retain set is empty"):
        steering(llava, forget, [plain], processor=llava_processor)


def test_states_that_are_not_finite_are_refused(llava, llava_processor):
    with torch.no_grad():
        llava.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    batches = readings(prepare(examples(3, 0), llava_processor), llava_processor)
    assert set(read_states(llava, batches, [0, 1])) == {0, 1}
    with pytest.raises(kvw.UserError, match="enter layer 2 are not finite") as caught:
        read_states(llava, batches, [1, 2])
    assert "3 of 3 states" in str(caught.value)


def test_a_layer_that_does_not_run_is_refused(llava, llava_processor, monkeypatch):
    unused = copy.deepcopy(decoder_layers(llava)[0])
    batches = readings(prepare(examples(2, 0), llava_processor), llava_processor)
    # A stand-in for cross-attention layers: the layer is there and is not called.
    monkeypatch.setattr("kvw.methods.steering.states.decoder_layers", lambda model: [*decoder_layers(model), unused])
    with pytest.raises(kvw.UserError, match="did not run for all samples") as caught:
        read_states(llava, batches, [2, 4])
    assert "found: 4" in str(caught.value)


def test_a_diagnosis_knows_all_sets(llava, llava_processor, tmp_path):
    sets = {"forget": examples(5, 0), "retain": examples(6, 1), "unused": examples(4, 2)}
    edit = steering(llava, sets["forget"], sets["retain"], SteeringSettings(ratio=0.5), processor=llava_processor)
    seen = []
    found = diagnose(edit, llava, llava_processor, sets, progress=lambda *done: seen.append(done))
    assert seen
    for name, samples in sets.items():
        for layer, steer in edit.steers.items():
            states = torch.stack([block_inputs(llava, llava_processor, sample, layer) for sample in samples])
            expected = states.double() @ steer.filter.double()
            torch.testing.assert_close(found.gates[name][layer], expected, rtol=1e-2, atol=1e-3)
    plot_gates(found, tmp_path / "gates.png")
    with Image.open(io.BytesIO((tmp_path / "gates.png").read_bytes())) as image:
        assert image.width == 1540
    with pytest.raises(kvw.UserError, match="'nobody' is empty"):
        diagnose(edit, llava, llava_processor, {"nobody": []})


def test_a_diagnosis_in_numbers():
    one = torch.ones(4, dtype=torch.float64)
    ramp = torch.arange(4, dtype=torch.float64)
    found = Diagnosis(
        {
            "forget": {1: one, 2: ramp + 10},
            "retain": {1: one, 2: ramp},
            "unused": {1: one, 2: ramp + 10},
        }
    )
    assert torch.equal(found.mean_gates("forget"), (ramp + 11) / 2)
    assert found.auc("retain", layer=1) == 0.5
    assert found.auc("retain", layer=2) == found.auc("retain") == 1.0
    assert found.best_layer("retain") == 2
    assert found.auc("forget", forget="unused") == 0.5
    (warning,) = found.warnings()
    assert "from unused (AUC 0.50" in warning


def test_a_recipe_can_name_it(llava, llava_processor):
    assert get_method("steering").acts_by == "hooks"
    assert get_method("steering").read({"layers": "1:3", "skipped": [2]}).chosen_layers(6) == [1, 3]
    assert len(get_method("steering").combinations({"strength": [0.1, 0.2], "ratio": [0.3, 0.4]})) == 4
    with pytest.raises(kvw.UserError, match="ratio"):
        get_method("steering").combinations({"ratio": 2})


class Told:
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def test_an_edit_of_a_checkpoint_knows_its_weights(saved, tmp_path):
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")
    edit = unlearn(
        get_method("steering"), loaded, examples(4, 0), examples(6, 1), SteeringSettings(), lambda *_: None
    ).edit
    assert (edit.metadata.model_fingerprint, edit.metadata.forget_count) == (loaded.fingerprint, 4)
    assert [layer.key for layer in summarise(edit).layers] == ["layer.1", "layer.2", "layer.3"]
    told = Told()
    check_weights(edit, loaded.fingerprint, told)
    assert told.warnings == []
    with pytest.raises(kvw.UserError, match=f"(?s)hidden states.*{loaded.fingerprint[:12]}, here {'0' * 12}"):
        check_weights(edit, "0" * 64, told)
    with pytest.raises(kvw.UserError, match="there are no weights"):
        apply(edit, loaded.checkpoint, tmp_path / "out", told)
    assert not (tmp_path / "out").exists()
    another = Loaded.load(find_checkpoint(str(saved["qwen2_vl"])), "cpu")
    with pytest.raises(kvw.UserError, match="does not fit"):
        diagnose(edit, another.model, another.processor, {"forget": examples(2, 0)})


def test_erase_writes_the_edit_and_no_model(saved, tmp_path):
    files = [tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"]
    for number, file in enumerate(files):
        rows = [{"question": example.question, "answer": example.answer} for example in examples(6, number)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Random weights lose by chance what they never knew.
    more = {"device": "cpu", "max_new_tokens": 4, "write_damaged": True}
    request = EraseRequest(find_checkpoint(str(saved["llava"])), *files, tmp_path / "run", method="steering", **more)
    record = erase(request)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".kvw",
        "edit.safetensors",
        "run.json",
        "samples.jsonl",
        "report.html",
        "evidence.json",
    }
    assert kvw.load_edit(tmp_path / "run" / "edit.safetensors").kind == "steering"
    assert not any("no model is written" in warning for warning in record.warnings)
    assert what_changed(record.layers).startswith("States of")
