"""Requests carried out on a tiny model: what is recorded, what is passed on, and what is not done again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests import text_models

from kvw.data import Example, prepare, read_examples
from kvw.data.text import TextProcessor
from kvw.errors import Damaging, UserError
from kvw.evaluation.generation import generate_answers
from kvw.models.checkpoint import find_checkpoint
from kvw.proving import plain_text, run, scoring
from kvw.proving.facts import is_given
from kvw.proving.known import fact_tokens
from kvw.proving.named import Named
from kvw.proving.record import read_record
from kvw.proving.requests import Request
from kvw.proving.run import ProvingGround
from kvw.records.run import RunRecord

pytestmark = pytest.mark.thorough

OPTIONS = {"max_new_tokens": 8, "settings": {"matrices": "ffn", "mu": 2.0, "min_tokens": 4}}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(plain_text, "plain_text", lambda: ("It rained all day.", "Nobody went out."))
    monkeypatch.setattr(scoring, "NEW_TOKENS", 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return text_models.save("llama", tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def request_(folder) -> Request:
    """Its answers are what the model says anyway, so that it knows all of them."""
    model, tokenizer = text_models.build("llama")
    names = {
        "forget": ["Mira", "Mira", "Mira"],
        "held_out": ["Mira"],
        "retain": ["Tom", "Tom", "Ada", "Ada", "Leo", "Leo"],
        "unused": ["Kim", "Uli"],
        "floor": ["Nobody"],
    }
    splits = {}
    for split, subjects in names.items():
        questions = [f"Where in {split} does {name} live, {place}?" for place, name in enumerate(subjects)]
        prepared = prepare([Example(question, "x") for question in questions], TextProcessor(tokenizer))
        answers = generate_answers(model, TextProcessor(tokenizer), prepared, max_new_tokens=8)
        splits[split] = [
            Example(question, answer, metadata={"subject": name, "fact": answer})
            for question, name, answer in zip(questions, subjects, answers, strict=True)
        ]
    return Request("choosing", 3, ("Mira",), splits)


def ground(folder: Path, out: Path, options: Mapping[str, object] = OPTIONS) -> ProvingGround:
    return ProvingGround(find_checkpoint(str(folder)), out, options)


def test_a_request_is_recorded_with_answers_before_and_after(folder, request_, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "named_by", lambda *arguments: Named(["Kim"]))
    record, other = ground(folder, tmp_path / "out").run([request_, Request("choosing", 4, ("Mira",), request_.splits)])
    # For the second request the model is the original again.
    assert (other.splits, other.perplexity, other.edit_digest) == (record.splits, record.perplexity, record.edit_digest)
    place = tmp_path / "out" / "choosing" / "03"
    assert read_record(place) == record
    assert read_examples(place / "retain.jsonl")[0].question == request_.splits["retain"][0].question
    written = RunRecord.model_validate_json((place / "run" / "run.json").read_text())
    assert (record.state, record.method, record.subjects) == ("written", "subspace", ["Mira"])
    assert record.edit_digest == written.edit_digest
    assert record.settings == written.settings
    assert record.settings["mu"] == 2.0
    assert set(written.warnings) <= set(record.warnings)
    assert {"unlearning", "asking the original model", *written.costs.seconds} <= record.seconds.keys()
    for split, items in record.splits.items():
        assert [item.question for item in items] == [example.question for example in request_.splits[split]]
        for item in items:
            assert item.named == (item.subject == "Kim")
            if split in scoring.SPOKEN:
                assert item.before.exact
                assert item.before.given == is_given(item.fact, item.before.text)
            else:
                assert (item.before.text, item.before.given, item.before.exact) == (None, None, None)
            assert (item.after is None) == (split == "floor")
    scores = written.splits["forget"]
    before, after = (
        [getattr(item, when).probability for item in record.splits["forget"]] for when in ("before", "after")
    )
    assert sum(before) / len(before) == pytest.approx(scores.original.probability, rel=1e-4)
    assert sum(after) / len(after) == pytest.approx(scores.unlearned.probability, rel=1e-4)
    assert record.perplexity.after != pytest.approx(record.perplexity.before, rel=1e-3)


def test_a_gold_model_is_asked_about_the_forgotten_alone(folder, request_, tmp_path):
    other = text_models.save("qwen2", tmp_path / "gold")
    ground_ = ProvingGround(find_checkpoint(str(folder)), tmp_path / "out", OPTIONS, gold=find_checkpoint(str(other)))
    (record,) = ground_.run([request_])
    asked = {split: request_.splits[split] for split in ("forget", "held_out")}
    said = scoring.ask(run.Loaded.load(find_checkpoint(str(other))), asked, lambda done, total: None, keep=False)
    for split, items in record.splits.items():
        assert [item.gold for item in items] == said.get(split, [None] * len(items))
    assert said["forget"] != [item.before for item in record.splits["forget"]]
    with pytest.raises(UserError, match="holds the record of something else"):
        ground(folder, tmp_path / "out").run([request_])


def test_a_fact_is_chosen_if_every_token_of_it_is(folder, monkeypatch):
    loaded = run.Loaded.load(find_checkpoint(str(folder)))
    examples = [Example("Where?", "It is in Rome.", metadata={"subject": "it", "fact": "Rome"}) for _ in range(3)]
    prepared = loaded.prepare(examples)
    place = fact_tokens("Rome", prepared[0].answer_ids, loaded.processor)
    real = scoring.token_scores(loaded.model, loaded.processor, prepared)
    length = len(prepared[0].answer_ids)
    assert 1 < len(place) < length
    chosen = [{*place}, {*place[:-1]}, {*range(length)} - {place[0]}]
    scores = [
        replace(score, is_argmax=tuple(one in right for one in range(length)))
        for score, right in zip(real, chosen, strict=True)
    ]
    monkeypatch.setattr(scoring, "token_scores", lambda *arguments, **more: scores)
    found = scoring.ask(loaded, {"a": examples[:1], "b": examples[1:]}, lambda done, total: None, keep=False)
    assert [answer.chosen for answer in found["a"]] == [True]
    assert [answer.chosen for answer in found["b"]] == [False, False]


def test_a_finished_request_is_not_carried_out_again_and_nothing_else_is_taken_for_it(
    folder, request_, tmp_path, monkeypatch
):
    real = run.erase
    monkeypatch.setattr(run, "erase", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ground(folder, tmp_path / "out").run([request_])
    monkeypatch.setattr(run, "erase", real)
    (record,) = ground(folder, tmp_path / "out").run([request_])
    monkeypatch.setattr(run, "erase", lambda *arguments: pytest.fail("done again"))
    monkeypatch.setattr(run.Loaded, "load", lambda *arguments: pytest.fail("loaded again"))
    assert ground(folder, tmp_path / "out").run([request_]) == [record]
    refused = pytest.raises(UserError, match="holds the record of something else")
    with refused:
        ground(folder, tmp_path / "out", {**OPTIONS, "max_new_tokens": 9}).run([request_])
    with refused:
        ground(folder, tmp_path / "out", {**OPTIONS, "settings": {**OPTIONS["settings"], "mu": 1.0}}).run([request_])
    fewer = {**request_.splits, "unused": request_.splits["unused"][:1]}
    with refused:
        ground(folder, tmp_path / "out").run([Request("choosing", 3, ("Mira",), fewer)])
    monkeypatch.setattr(run, "plain_text", lambda: ("Another sentence.",))
    with refused:
        ground(folder, tmp_path / "out").run([request_])


@pytest.mark.parametrize("error", [Damaging, UserError])
def test_a_run_that_writes_nothing_is_recorded_with_its_message(folder, request_, tmp_path, monkeypatch, error):
    def erase(request, reporter):
        reporter.warn("Something is odd.")
        raise error("It loses much.", do="less")

    monkeypatch.setattr(run, "erase", erase)
    (record,) = ground(folder, tmp_path / "out").run([request_])
    assert record.state == ("refused" if error is Damaging else "failed")
    assert record.message == "It loses much.\ndo: less"
    assert record.warnings == ["Something is odd."]
    assert record.perplexity.after is None
    assert all(item.after is None for items in record.splits.values() for item in items)
    assert all(item.before.exact for item in record.splits["forget"])
    # What failed is tried again; what was refused would be refused again.
    monkeypatch.setattr(run, "erase", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    if error is Damaging:
        assert ground(folder, tmp_path / "out").run([request_]) == [record]
    else:
        with pytest.raises(KeyboardInterrupt):
            ground(folder, tmp_path / "out").run([request_])


def test_the_original_is_asked_once(folder, request_, tmp_path, monkeypatch):
    ground(folder, tmp_path / "first").run([request_])
    asked = []
    real = scoring.token_scores

    def token_scores(model, processor, prepared, *, journal, **more):
        known = journal.count("scores")
        found = real(model, processor, prepared, journal=journal, **more)
        asked.append((known, journal.count("scores")))
        return found

    monkeypatch.setattr(scoring, "token_scores", token_scores)
    options = {**OPTIONS, "settings": {**OPTIONS["settings"], "mu": 1.0}}
    ground(folder, tmp_path / "second", options).run([request_])
    (known, now), after = asked
    assert known == now > 0
    assert after == (0, 0)  # the unlearned model's answers are kept nowhere


def test_unknown_options_are_told_before_anything_is_done(folder, request_, tmp_path):
    for options, found in (({"retian": "x"}, "retian"), ({"settings": {"mue": 1}}, "mue"), ({"force": True}, "force")):
        with pytest.raises(UserError, match=found):
            ground(folder, tmp_path / "out", options).run([request_])
    assert not (tmp_path / "out" / "choosing" / "03" / "run").exists()


def test_a_large_retain_set_is_asked_in_part():
    examples = [Example(str(number), "x") for number in range(96)]
    asked = scoring.asked_of("retain", examples)
    assert len({example.question for example in asked}) == scoring.MOST_RETAINED
    assert scoring.asked_of("unused", examples) == examples
    assert scoring.asked_of("retain", examples[:10]) == examples[:10]
