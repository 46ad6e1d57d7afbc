"""Replies of the model as questions that judge edits."""

from __future__ import annotations

from types import SimpleNamespace

from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import token_scores
from kvw.models.checkpoint import find_checkpoint
from kvw.runs.own_words import said_by, scorer_for
from kvw.selection import scoring
from kvw.selection.splits import FORGET, OWN_WORDS


def test_a_reply_that_no_prompt_can_hold_judges_nothing(saved):
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")
    example = Example("Where is it?", "It is in Madrid.", identifier="f:1")
    material = SimpleNamespace(judged={FORGET: [example]}, retain=[], forget=[example])

    def splits(reply: str) -> tuple[str, ...]:
        own = said_by(loaded, material, {"f:1": reply})
        return scorer_for(loaded, material, own, lambda *_: None).splits

    assert splits("Madrid has it") == (FORGET, OWN_WORDS)
    assert splits("<image> Madrid has it") == (FORGET,)
    assert splits("No idea") == (FORGET,)


def test_a_later_round_asks_the_model_only_for_the_new_reply(saved, monkeypatch):
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")
    example = Example("Where is it?", "It is in Madrid.", identifier="f:1")
    material = SimpleNamespace(judged={FORGET: [example]}, retain=[], forget=[example])
    asked = []

    def counted(model, processor, items, **options):
        asked.extend(item.example.answer for item in items)
        return token_scores(model, processor, items, **options)

    monkeypatch.setattr(scoring, "token_scores", counted)
    first = scorer_for(loaded, material, [], lambda *_: None)
    own = said_by(loaded, material, {"f:1": "Madrid has it"})
    scorer_for(loaded, material, own, lambda *_: None, first.known)
    assert asked == ["It is in Madrid.", "Madrid"]  # a reply ends with what gives it away
