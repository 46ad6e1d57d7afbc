"""Delta-unlearning: a small model beside a frozen one, and one that is reached only through logits."""

from __future__ import annotations

import copy
import threading
import time

import openai
import pytest
import torch
from tests.gradient import FORGET, RETAIN, changed, training, weights_of
from tests.text_models import build
from tests.tiny_models import build as build_seeing
from transformers import LlamaConfig, LlamaForCausalLM

import kvw
from kvw.data import Example, prepare
from kvw.data.batches import answer_batch
from kvw.data.text import TextProcessor
from kvw.edits import OffsetEdit, load_edit
from kvw.edits.companion import Companion, picture_tokens
from kvw.edits.edit import EditMetadata
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.probability import answer_probabilities
from kvw.measuring.fingerprint import weights_digest
from kvw.methods.delta import METHOD
from kvw.methods.delta.method import train_offset
from kvw.methods.delta.settings import DeltaSettings
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.settings import TrainedSettings
from kvw.models.closed import LogitsModel
from kvw.models.forward_names import cache_name
from kvw.models.whole_prompts import needs_whole_prompts
from kvw.serving.app import build_app
from kvw.serving.engine import Engine
from kvw.serving.listening import address, listen
from kvw.serving.listening import server as http_server
from kvw.serving.names import Names
from kvw.training.settings import LoraSettings

LORA = LoraSettings(rank=3, alpha=6, dropout=0.0)
ASKED = [Example(one.question, one.answer, (), one.identifier) for one in FORGET]
KEPT = [Example(one.question, one.answer, (), one.identifier) for one in RETAIN]


def small_for(tokenizer, folder):
    """A checkpoint of a model of two layers with the same tokens."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **ids, **sizes, initializer_range=0.2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A model of text, its processor, the small model's folder, and its own folder."""
    model, tokenizer = build("llama")
    own = tmp_path_factory.mktemp("own")
    model.save_pretrained(own)
    tokenizer.save_pretrained(own)
    return model.eval(), TextProcessor(tokenizer), small_for(tokenizer, tmp_path_factory.mktemp("small")), own


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny LLaVA, its processor, and the folder of a small model without eyes."""
    model, processor = build_seeing("llava")
    return model.eval(), processor, small_for(processor.tokenizer, tmp_path_factory.mktemp("small"))


def settings(folder, *, lora=LORA, how=None, **own):
    return TrainedSettings(
        "delta-unlearning", DeltaSettings(offset=str(folder), **own), how or training(lora=lora, batch_size=4)
    )


def far(folder, strength=1.0):
    """An edit of a small model that says something else."""
    of = {"offset": str(folder), "offset_fingerprint": weights_digest(folder)}
    edit = OffsetEdit({}, strength, EditMetadata(settings=of))
    noise = torch.Generator().manual_seed(3)
    for name, value in edit.small().named_parameters():
        if "mlp" in name:
            edit.weights[name] = value + 0.3 * torch.randn(value.shape, generator=noise)
    return edit


def logits(model, processor, examples):
    batch = answer_batch(prepare(examples, processor, model.config), processor)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[batch["labels"] >= 0]


@pytest.mark.parametrize("which", ["text", "seeing"])
def test_a_small_model_that_has_not_changed_changes_nothing(which, request):
    model, processor, folder, *_ = request.getfixturevalue(which)
    examples = ASKED if which == "text" else FORGET
    plain = logits(model, processor, examples)
    edit = far(folder)
    same = OffsetEdit({name: edit.small().get_parameter(name) for name in edit.weights}, 1.0, edit.metadata)
    with same.attach(model):
        assert torch.equal(logits(model, processor, examples), plain)
    with edit.attach(model):
        assert not torch.allclose(logits(model, processor, examples), plain, atol=1e-3)
    with edit.scaled(0.0).attach(model):
        assert torch.equal(logits(model, processor, examples), plain)
    assert torch.equal(logits(model, processor, examples), plain)


def test_it_is_the_formula_whatever_is_added_to_the_small_logits(text):
    model, processor, folder, _ = text
    edit, plain = far(folder, 0.7), logits(model, processor, ASKED[:1])
    small = edit.small()
    before = logits(small, processor, ASKED[:1])
    other = copy.deepcopy(small)
    for name, value in edit.weights.items():
        other.get_parameter(name).copy_(value)
    after = logits(other, processor, ASKED[:1])
    expected = torch.log_softmax(plain + 0.7 * (after - before), -1)
    with edit.attach(model):
        assert torch.allclose(torch.log_softmax(logits(model, processor, ASKED[:1]), -1), expected, atol=1e-4)

    def higher(**inputs):
        output = small(**inputs)
        output.logits = output.logits + 3.0
        return output

    ids = torch.tensor([[5, 6, 7]])
    named = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    wide = torch.zeros(1, 3, model.config.vocab_size + 8)
    with torch.no_grad():
        found = [Companion(small, one, other, ()).add(wide, 1.0, named, None) for one in (small, higher)]
    assert torch.allclose(*found, atol=1e-5)
    assert not found[0][..., -8:].any()  # a padded vocabulary has no tokens there
    assert found[0][..., :-8].any()


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["text", "seeing"])
def test_padding_and_caches_change_nothing(which, request):
    model, processor, folder, *_ = request.getfixturevalue(which)
    examples = ASKED if which == "text" else FORGET
    prepared = prepare(examples, processor, model.config)
    with far(folder).attach(model):
        together = answer_probabilities(model, processor, prepared)
        alone = [answer_probabilities(model, processor, [one])[0] for one in prepared]
        assert [one.log_probability for one in together] == pytest.approx(
            [one.log_probability for one in alone], rel=1e-4
        )
        cached = generate_answers(model, processor, prepared, max_new_tokens=6)
        batch = answer_batch(prepared[:1], processor)
        start = int((batch["labels"][0] < 0).sum())
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        inputs |= {name: inputs[name][:, :start] for name in ("input_ids", "attention_mask")}
        ids = inputs["input_ids"]
        with torch.no_grad():
            for _ in range(6):
                mask = torch.ones_like(ids)
                scores = model(**{**inputs, "input_ids": ids, "attention_mask": mask}, use_cache=False).logits[:, -1]
                ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
        said = processor.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
        assert said == cached[0]
    assert generate_answers(model, processor, prepared, max_new_tokens=6) != cached


def test_questions_that_begin_alike_are_seen_whole_by_the_small_model(text):
    model, processor, folder, *_ = text
    beginning = "In the old town by the sea there is a house with a red door and a garden. " * 4
    asked = [Example(f"{beginning}{one.question}", one.answer) for one in ASKED]
    prepared = prepare(asked, processor, model.config)
    with far(folder).attach(model):
        together = answer_probabilities(model, processor, prepared)
        alone = [answer_probabilities(model, processor, [one])[0] for one in prepared]
        assert needs_whole_prompts(model)
    assert not needs_whole_prompts(model)
    assert [one.log_probability for one in together] == pytest.approx([one.log_probability for one in alone], rel=1e-4)


def test_what_the_small_model_cannot_follow_is_refused(text):
    model, _, folder, _ = text
    ids = torch.tensor([[5, 6, 7]])
    with far(folder).attach(model):
        with pytest.raises(UserError, match="without beams"):
            model.generate(input_ids=ids, num_beams=2, max_new_tokens=4, do_sample=False)
        with pytest.raises(UserError, match="without labels"):
            model(input_ids=ids, labels=ids)
        with pytest.raises(UserError, match="with input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, model.config.hidden_size))
    filled = getattr(model(input_ids=ids, use_cache=True), cache_name(model))
    with far(folder).attach(model), pytest.raises(UserError, match="has not seen what comes before"):
        model(**{"input_ids": ids[:, :1], cache_name(model): filled, "use_cache": True})


@pytest.mark.thorough
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_beside_itself_it_is_ordinary_training(text, lora):
    model, processor, _, own = text
    for objective in ("ga", "npo"):
        edit, result = train_offset(model, processor, ASKED, KEPT, settings(own, lora=lora, objective=objective))
        other = copy.deepcopy(model)
        plain = unlearn(other, processor, ASKED, KEPT, objective, None, training(lora=lora, batch_size=4))
        assert result.history[0].losses == pytest.approx(plain.history[0].losses, rel=1e-4)
        assert set(edit.weights) == set(plain.weights)
        assert all(torch.allclose(edit.weights[name], plain.weights[name], atol=2e-4) for name in edit.weights)


@pytest.mark.parametrize("which", ["text", "seeing"])
def test_only_the_small_model_learns(which, request):
    model, processor, folder, *_ = request.getfixturevalue(which)
    forget, retain = (ASKED, KEPT) if which == "text" else (FORGET, RETAIN)
    before = weights_of(model)
    prepared = prepare(forget, processor, model.config)
    known = sum(one.log_probability for one in answer_probabilities(model, processor, prepared))
    how = {"offset": str(folder), "learning_rate": 1e-2, "epochs": 3, "objective": "ga"}
    edit = kvw.unlearn(model, forget, retain, how, method="delta-unlearning", processor=processor)
    assert changed(model, before) == set()
    assert all(parameter.grad is None for parameter in model.parameters())
    with edit.attach(model):
        assert sum(one.log_probability for one in answer_probabilities(model, processor, prepared)) < known - 1
    assert sum(one.log_probability for one in answer_probabilities(model, processor, prepared)) == pytest.approx(known)


@pytest.mark.thorough
def test_every_setting_changes_the_result(text):
    model, processor, folder, _ = text
    found = []
    for change in ({}, {"objective": "ga"}, {"alpha": 0.3}):
        edit, _ = train_offset(model, processor, ASKED, KEPT, settings(folder, lora=None, **change))
        found.append((edit.weights["model.layers.0.mlp.down_proj.weight"], edit.strength))
    assert [strength for _, strength in found] == [1.0, 1.0, 0.3]
    assert not torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    assert METHOD.fixes_strength(settings(folder, alpha=0.3))
    assert not METHOD.fixes_strength(settings(folder))


@pytest.mark.thorough
def test_a_killed_training_goes_on(text, tmp_path):
    model, processor, folder, _ = text

    def run(state, kill=0):
        def progress(done, _):
            if done == kill:
                raise KeyboardInterrupt

        how = settings(folder, how=training(save_every=1), lora=None)
        return train_offset(model, processor, ASKED, KEPT, how, state=state, progress=progress)[0]

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", kill=1)
    again = run(tmp_path / "state")
    assert all(torch.equal(value, again.weights[name]) for name, value in whole.weights.items())


def test_its_file_says_which_small_model_it_is_of(text, tmp_path):
    model, processor, folder, own = text
    edit = far(folder, 0.5)
    edit.save(tmp_path / "edit.safetensors")
    again = load_edit(tmp_path / "edit.safetensors")
    again.check_model(model)
    with edit.attach(model):
        expected = logits(model, processor, ASKED)
    with again.scaled(1.0).attach(model):
        assert torch.equal(logits(model, processor, ASKED), expected)
    other = OffsetEdit(edit.weights, 1.0, EditMetadata(settings={**edit.metadata.settings, "offset": str(own)}))
    with pytest.raises(UserError, match="not the small model that this edit was made with"):
        other.attach(model)
    with pytest.raises(UserError, match="no weights that it could be folded into"):
        edit.fold(model)


def test_a_small_model_that_is_not_named_is_asked_for():
    settings = TrainedSettings("delta-unlearning", DeltaSettings(), None)
    for asked in (lambda: METHOD.edit_bytes(None, settings), lambda: METHOD.check(None, [], settings)):
        with pytest.raises(UserError, match="needs a small model with the same tokenizer"):
            asked()


def test_a_small_model_with_other_tokens_is_refused(text, tmp_path):
    model, processor, _, _ = text
    _, tokenizer = build("qwen3")
    folder = small_for(tokenizer, tmp_path / "other")
    with pytest.raises(UserError, match="another tokenizer"):
        kvw.unlearn(model, ASKED, KEPT, {"offset": str(folder)}, method="delta-unlearning", processor=processor)
    with pytest.raises(UserError, match="needs a small model"):
        kvw.unlearn(model, ASKED, KEPT, method="delta-unlearning", processor=processor)


def test_pictures_are_left_out_for_a_model_without_eyes(seeing):
    model, processor, folder = seeing
    assert picture_tokens(model)
    told = []
    edit = far(folder)
    edit.small().register_forward_pre_hook(
        lambda module, inputs, named: told.append(named["input_ids"]), with_kwargs=True
    )
    with edit.attach(model):
        logits(model, processor, FORGET[:1])
    assert not any(int(one) in picture_tokens(model) for one in told[0][0])
    assert len(told[0][0]) < 60


def closed(model):
    """The same model as one of which only logits can be had."""

    def ask(ids, mask):
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    return LogitsModel(ask, model.config)


@pytest.mark.thorough
def test_in_front_of_a_model_reached_only_through_logits(text):
    """It trains, is scored and generates, and a client of OpenAI's gets what it says."""
    model, processor, folder, _ = text
    away = closed(model)
    prepared = prepare(ASKED, processor, model.config)
    assert generate_answers(away, processor, prepared, max_new_tokens=6) == generate_answers(
        model, processor, prepared, max_new_tokens=6
    )
    how = {"offset": str(folder), "learning_rate": 1e-2, "epochs": 3, "objective": "ga"}
    edit = kvw.unlearn(away, ASKED, KEPT, how, method="delta-unlearning", processor=processor)
    with edit.attach(away):
        expected = generate_answers(away, processor, prepared, max_new_tokens=6)
    with edit.attach(model):
        assert generate_answers(model, processor, prepared, max_new_tokens=6) == expected
    assert expected != generate_answers(away, processor, prepared, max_new_tokens=6)
    engine = Engine(away, processor, {"forgotten": edit}, longest_answer=16)
    names = Names("away", ["forgotten"], None, True)
    with listen("127.0.0.1", 0) as listening:
        served = http_server(build_app(engine, names))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            client = openai.OpenAI(base_url=address(listening), api_key="none", max_retries=0)
            answers = [
                client.chat.completions.create(
                    model="forgotten", messages=[{"role": "user", "content": one.question}], max_tokens=6
                )
                for one in ASKED
            ]
        finally:
            while not served.started and thread.is_alive():
                time.sleep(0.01)
            served.should_exit = True
            thread.join()
    assert [one.choices[0].message.content.strip() for one in answers] == expected
