"""Scores of edits by teacher forcing."""

import math
from typing import Any

import pytest
import torch
from tests.tiny_models import FAMILIES

from kvw.data import Example, prepare
from kvw.data.telling import telling_tokens
from kvw.edits.gates import GateEdit
from kvw.evaluation.journal import SCORES, Journal
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.models.finding import find_value_matrices
from kvw.selection import scoring
from kvw.selection.scoring import Score, Scorer, Share, share_of_answers, share_of_text


def scores(*probabilities: float, first: tuple[bool, ...] | None = None) -> TokenScores:
    logs = tuple(math.log(value) for value in probabilities)
    zeros = (0.0,) * len(logs)
    return TokenScores(logs, first or (True,) * len(logs), zeros, zeros)


def test_only_telling_tokens_count_for_answers_and_all_for_perplexity() -> None:
    found = Score.of([scores(0.5, 0.25, 0.01, first=(False, True, False))], [(0, 1)])
    assert found.probability == pytest.approx(math.sqrt(0.5 * 0.25))
    assert found.answered == (False,)
    assert Score.of([scores(0.5, 0.25, first=(False, True))], [(1,)]).answered == (True,)
    assert found.perplexity == pytest.approx((0.5 * 0.25 * 0.01) ** (-1 / 3))


def test_the_share_of_answers_is_of_the_means() -> None:
    before = Score.of([scores(0.8), scores(0.2)], [(0,), (0,)])
    after = Score.of([scores(0.4), scores(0.2)], [(0,), (0,)])
    share = share_of_answers(before, after)
    assert share.value == pytest.approx(0.6)
    assert share.error > 0
    assert share_of_answers(before, before) == Share(1.0, 0.0)


def test_the_share_of_answers_is_that_of_whole_answers_if_less_of_them_is_left() -> None:
    before = Score.of([scores(0.8, 0.8, 0.8)], [(2,)])
    assert share_of_answers(before, Score.of([scores(0.8, 0.1, 0.8)], [(2,)])).value == pytest.approx(
        0.5
    )  # 8 ** (-1/3)
    assert share_of_answers(before, Score.of([scores(0.8, 0.8, 0.2)], [(2,)])).value == pytest.approx(0.25)


def test_the_share_of_text_is_of_perplexities() -> None:
    before = Score.of([scores(0.5, 0.5), scores(0.25)], [(0,), (0,)])
    after = Score.of([scores(0.25, 0.5), scores(0.25)], [(0,), (0,)])
    assert share_of_text(before, after).value == pytest.approx(before.perplexity / after.perplexity)
    assert share_of_text(before, before).value == 1
    assert share_of_text(before, before).error == pytest.approx(0, abs=1e-12)


def test_a_scorer_gives_the_scores_of_the_edited_model_and_leaves_it_alone() -> None:
    model, processor = FAMILIES["llava"]()
    examples = [Example(f"Where is {name}?", f"In {place}.") for name, place in (("Ann", "Paris"), ("Bo", "Kuwait"))]
    items = prepare(examples, processor)
    scorer = Scorer(model, processor, {"forget": items[:1], "held-out retain": items[1:]})
    keys = [matrix.key for matrix in find_value_matrices(model)]
    edit = GateEdit({matrix.key: torch.full((matrix.width,), -1.0) for matrix in find_value_matrices(model)})
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = scorer.scores(edit, ["forget", "held-out retain", "no such split"])
    assert keys
    assert set(found) == {"forget", "held-out retain"}
    with edit.attach(model):
        expected = token_scores(model, processor, items[:1])
    assert found["forget"].losses[0] == pytest.approx(-math.fsum(expected[0].log_probabilities), rel=1e-5)
    assert found["forget"].losses != scorer.original["forget"].losses
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_scorer_about_one_subject_asks_about_nobody_else_and_about_all_that_must_stay() -> None:
    model, processor = FAMILIES["llava"]()
    people = ("Ann", "Bo", "Ann")
    examples = [Example(f"Where is {one}?", f"In {one}ville.", metadata={"subject": one}) for one in people]
    items = prepare(examples, processor)
    scorer = Scorer(model, processor, {"forget": items, "held-out forget": items[1:2], "held-out facts": items})
    part = scorer.about(examples[0].subject_key)
    assert part.splits == ("forget", "held-out facts")
    assert scorer.splits == ("forget", "held-out forget", "held-out facts")
    whole = scorer.original["forget"]
    assert part.original["forget"].losses == (whole.losses[0], whole.losses[2])
    assert part.original["held-out facts"] == scorer.original["held-out facts"]
    edit = GateEdit({matrix.key: torch.full((matrix.width,), -1.0) for matrix in find_value_matrices(model)})
    asked, all_asked = (one.scores(edit, ["forget"])["forget"] for one in (part, scorer))
    assert asked.probabilities == pytest.approx((all_asked.probabilities[0], all_asked.probabilities[2]), rel=1e-5)


def test_places_that_are_given_are_the_ones_that_count() -> None:
    model, processor = FAMILIES["llava"]()
    items = prepare([Example("Where is Ann?", "In Paris, the florist said.")], processor)
    given = Scorer(model, processor, {"forget": items}, telling={"forget": [(1, 2)]}).original["forget"]
    (expected,) = token_scores(model, processor, items)
    assert given.probabilities[0] == pytest.approx(math.exp(sum(expected.log_probabilities[1:3]) / 2), rel=1e-5)
    assert Scorer(model, processor, {"forget": items}).original["forget"].probabilities != given.probabilities


def test_what_the_original_makes_of_shared_examples_is_kept_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(*args: Any, journal: Journal | None = None) -> list[TokenScores]:
        asked.append((len(args[2]), journal))
        return token_scores(*args, journal=journal)

    monkeypatch.setattr(scoring, "token_scores", counted)
    model, processor = FAMILIES["llava"]()
    shared = {"source": "everyday"}
    examples = [Example("Where is Ann?", "In Paris."), Example("What is 1 + 1?", "2", metadata=shared)]
    own, everyday = prepare(examples, processor)
    edit = GateEdit({matrix.key: torch.full((matrix.width,), -1.0) for matrix in find_value_matrices(model)})
    with Journal({"model": "this"}) as journal:
        scorer = Scorer(model, processor, {"forget": [own], "everyday": [everyday]}, journal=journal)
        scorer.scores(edit, ["forget", "everyday"])
        assert list(scorer.original) == ["forget", "everyday"]
        assert asked == [(1, journal), (1, None), (2, None)]
        assert journal.count(SCORES) == 1


def test_forget_questions_are_judged_by_how_words_begin_and_others_by_whole_words() -> None:
    model, processor = FAMILIES["llava"]()
    (item,) = prepare([Example("Who?", "unforgettable")], processor)
    scorer = Scorer(model, processor, {"forget": [item], "held-out forget": [item], "held-out retain": [item]})
    (whole,) = token_scores(model, processor, [item])
    begins, all_of_it = (Score.of([whole], places) for places in ([(1, 2, 3)], telling_tokens([item], processor)))
    assert scorer.original["forget"].probabilities == pytest.approx(begins.probabilities)
    assert scorer.original["held-out forget"].probabilities == pytest.approx(begins.probabilities)
    assert scorer.original["held-out retain"].probabilities == pytest.approx(all_of_it.probabilities)
    assert begins.probabilities != pytest.approx(all_of_it.probabilities)
