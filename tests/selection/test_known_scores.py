"""Scores that a search remembers over its rounds."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.tiny_models import FAMILIES

from kvw.data import Example, prepare
from kvw.edits.gates import GateEdit
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.models.finding import find_value_matrices
from kvw.selection import known_scores, scoring
from kvw.selection.known_scores import KnownScores
from kvw.selection.scoring import Scorer

EXAMPLES = [
    Example(f"Where is {name}?", f"In {name}ville.", metadata={"subject": name}) for name in ("Ann", "Bo", "Cy")
]


class Asked:
    """A model, its questions, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        self.model, self.processor = FAMILIES["llava"]()
        self.items = prepare(EXAMPLES, self.processor)
        monkeypatch.setattr(scoring, "token_scores", self._counted)

    def _counted(self, model: Any, processor: Any, items: Sequence[Any], **options: Any) -> list[TokenScores]:
        self.asked.append(len(items))
        return token_scores(model, processor, items, **options)

    def gates(self, log_gate: float) -> GateEdit:
        widths = {matrix.key: matrix.width for matrix in find_value_matrices(self.model)}
        return GateEdit({key: torch.full((width,), log_gate) for key, width in widths.items()})

    def scorer(self, known: KnownScores | None, *splits: str) -> Scorer:
        questions = {"forget": self.items[:1], "own words": self.items[1:2], "held-out facts": self.items[2:]}
        chosen = {name: questions[name] for name in splits}
        return Scorer(self.model, self.processor, chosen, known=known)


def test_a_later_scorer_asks_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    world, known = Asked(monkeypatch), KnownScores()
    first = world.scorer(known, "forget", "held-out facts")
    before = first.scores(world.gates(-1.0), ["forget", "held-out facts"])
    later = world.scorer(known, "forget", "own words", "held-out facts")
    after = later.scores(world.gates(-1.0), ["forget", "own words", "held-out facts"])
    assert world.asked == [2, 2, 1, 1]
    assert {name: after[name] for name in before} == before
    alone = world.scorer(None, "own words").scores(world.gates(-1.0), ["own words"])["own words"]
    assert after["own words"].losses == pytest.approx(alone.losses, rel=1e-5)


def test_edits_with_other_numbers_and_other_questions_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Asked(monkeypatch)
    scorer = world.scorer(None, "forget", "held-out facts")
    one = scorer.scores(world.gates(-1.0), ["forget"])["forget"]
    other = scorer.scores(world.gates(-0.5), ["forget"])["forget"]
    scorer.scores(world.gates(-0.5), ["held-out facts"])
    assert world.asked == [2, 1, 1, 1]
    assert one.losses != other.losses != scorer.original["forget"].losses


def test_a_scorer_about_one_subject_knows_what_was_asked_about_all(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Asked(monkeypatch)
    scorer = Scorer(world.model, world.processor, {"forget": world.items})
    whole = scorer.scores(world.gates(-1.0), ["forget"])["forget"]
    part = scorer.about(EXAMPLES[1].subject_key).scores(world.gates(-1.0), ["forget"])["forget"]
    assert part == whole.part([1])
    assert scorer.scores(world.gates(-1.0), ["forget"], {"forget": [2]})["forget"] == whole.part([2])
    assert world.asked == [3, 3]


def test_the_same_question_twice_is_asked_once_and_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Asked(monkeypatch)
    scorer = Scorer(world.model, world.processor, {"forget": [world.items[0]] * 2, "held-out facts": world.items[2:]})
    assert len(set(scorer.original["forget"].losses)) == 1
    assert len(scorer.original["forget"].losses) == 2
    assert world.asked == [2]


def test_scores_of_an_edit_that_is_too_large_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Asked(monkeypatch)
    scorer, edit = world.scorer(None, "forget"), world.gates(-1.0)
    monkeypatch.setattr(known_scores, "LARGEST", sum(value.nbytes for value in edit.tensors().values()) - 1)
    assert scorer.scores(edit, ["forget"]) == scorer.scores(edit, ["forget"])
    assert world.asked == [1, 1, 1]
