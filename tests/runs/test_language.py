"""What a run says of the language of a model, of what it knew, and of what is left."""

from __future__ import annotations

import pytest

from kvw.data import Example
from kvw.evaluation.language import Speech
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.records import Reply, collect
from kvw.models.loading import find_checkpoint
from kvw.progress import SILENT
from kvw.proving.verdict import ANNOUNCED
from kvw.records.run import KNOWS_ENGLISH, LanguagePart
from kvw.runs import language
from kvw.runs.costs import Stopwatch
from kvw.runs.knowing import given_share, lost, tell_outcome, tell_unknown
from kvw.runs.language import compared, heard

GOOD = ("A dog ran home.", "Rain fell.", "We ate bread.", "It is late.", "Go on.", "He sings.") * 2
LOOP = "and then and then and then and then"


class Listener:
    """Keeps what is said."""

    def __init__(self):
        self.notes, self.warnings = [], []

    def note(self, text):
        self.notes.append(text)

    def warn(self, text):
        self.warnings.append(text)


def evaluation(**splits):
    """Of splits with (answer, reply, probability) each."""
    examples = {
        name: [Example(f"Question {row}?", answer) for row, (answer, _, _) in enumerate(rows)]
        for name, rows in splits.items()
    }
    replies = [Reply(reply, probability) for rows in splits.values() for _, reply, probability in rows]
    return collect(examples, replies)


@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [
        (29.0, 21596.0, True),  # the default gate on a real model of 135 M parameters
        (29.0, 49.3, True),  # the same at strength .1, which took half of what was to stay
        (28.9, 78.6, True),
        (29.0, 39.0, False),
        (28.9, 34.9, False),
        (29.0, 29.3, False),
        (KNOWS_ENGLISH + 1, 1e9, False),  # not made for these sentences
        (8e5, 3e5, False),
    ],
)
def test_perplexity_counts_by_its_ratio(before, after, flagged):
    found = compared(Speech(before, GOOD), Speech(after, GOOD))
    assert bool(found.damage) == flagged
    assert f"{before:.4g} before" in found.sentence


def test_answers_count_by_the_change_of_their_share(monkeypatch):
    monkeypatch.setattr(language, "PROMPTS", 12)  # as shipped
    some, more = (LOOP, LOOP, *GOOD[2:]), (LOOP,) * 5 + GOOD[5:]
    assert compared(Speech(9, some), Speech(9, some)).damage == []
    assert compared(Speech(9, GOOD), Speech(9, some)).damage == []  # two of twelve may be chance
    (damage,) = compared(Speech(9, some), Speech(9, more)).damage
    assert damage.startswith("Of the answers to the shipped requests 42% are empty or end in a loop, 17% before")


def test_splits_are_looked_at_one_by_one():
    fine = evaluation(forget=[("Anna", "Anna", 0.9)] * 3, retain=[("Berta", "Berta", 0.9)] * 10)
    broken = evaluation(forget=[("Anna", "", 0.1)] * 3, retain=[("Berta", "Berta", 0.9)] * 8 + [("Berta", "", 0.9)] * 2)
    found = compared(Speech(9, GOOD), Speech(9, GOOD), {"original": fine, "unlearned": broken})
    (damage,) = found.damage
    assert "questions of forget 100%" in damage
    assert found.broken_by_split["retain"].unlearned == pytest.approx(0.2)


def test_a_model_that_cannot_be_heard_is_still_compared():
    fine = evaluation(forget=[("Anna", "Anna", 0.9)], retain=[("Berta", "Berta", 0.9)] * 4)
    lost_ = evaluation(forget=[("Anna", "x", 0.9)], retain=[("Berta", "x", 0.9)] * 3 + [("Berta", "Berta", 0.9)])
    found = compared(None, Speech(9, GOOD), {"original": fine, "unlearned": lost_})
    assert found.perplexity is found.broken is None
    assert "could not be looked at" in found.sentence
    (damage,) = found.damage
    assert damage.startswith("The retain set is lost, too: exact match from 1.00 to 0.25")
    assert LanguagePart.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(("left", "told"), [(4, 0), (2, 0), (1, 1)])
def test_half_of_the_retain_answers_must_be_left(left, told):
    before = evaluation(forget=[("Anna", "Anna", 0.9)], retain=[("Berta", "Berta", 0.9)] * 4)
    rows = [("Berta", "Berta" if row < left else "x", 0.9) for row in range(4)]
    assert len(lost(before, evaluation(forget=[("Anna", "x", 0.1)], retain=rows))) == told


def test_probability_tells_of_answers_that_are_never_exact():
    before = evaluation(forget=[("Anna", "x", 0.9)], retain=[("Berta", "x", 0.64)] * 4)
    assert lost(before, evaluation(forget=[("Anna", "x", 0.9)], retain=[("Berta", "x", 0.33)] * 4)) == []
    (told,) = lost(before, evaluation(forget=[("Anna", "x", 0.9)], retain=[("Berta", "x", 0.02)] * 4))
    assert "probability of its answers from 0.64 to 0.02" in told
    assert lost(evaluation(forget=[("Anna", "x", 0.9)]), evaluation(forget=[("Anna", "x", 0.9)])) == []


def test_a_forget_set_that_the_model_does_not_know_is_told_with_what_it_answers():
    said = Listener()
    rows = [("Anna", "Carla Secret", 0.1)] * 8 + [("Anna", "She is Anna.", 0.9)]
    tell_unknown(evaluation(forget=rows), said, chosen=0.25)
    (warning,) = said.warnings
    assert warning.startswith("The model gives 11% of the 9 forget answers before any edit, and 25% of them")
    assert "Carla" not in warning
    assert len(said.notes) == 3
    assert "it answers 'Carla Secret', not 'Anna'" in said.notes[0]


def test_a_forget_set_that_it_knows_is_not():
    said = Listener()
    tell_unknown(evaluation(forget=[("Anna", "Anna", 0.9), ("Berta", "x", 0.9)]), said, chosen=0.0)
    assert (said.warnings, said.notes) == ([], [])


def test_failed_examples_are_not_taken_for_answers():
    examples = {"forget": [Example("Who?", "Anna"), Example("Who?", "Anna")]}
    failed = collect(examples, [Reply("Anna", 0.9), Reply(error="no picture", probability=0.0)])
    assert given_share(failed, "forget") == 1
    said = Listener()
    tell_outcome("a larger --gamma", failed, failed, said)
    assert any("1 of 2 examples of forget failed" in warning for warning in said.warnings)
    assert any("answered almost as before: try a larger --gamma" in warning for warning in said.warnings)
    assert any("What was kept is unknown" in warning for warning in said.warnings)
    tell_outcome("a larger --gamma", failed, failed, said, judged=True, chosen=True)
    assert any("almost as before: try a lower --keep, and --neighbours" in warning for warning in said.warnings)
    assert sum("What was kept is unknown" in warning for warning in said.warnings) == 1


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("She is Anna.", "She is Anna.", True),  # never exact, and said all the same
        ("Anna", "She is Anna.", True),
        ("Anna", "Berta", False),
        ("Berta", "Berta", False),  # nothing was known
    ],
)
def test_the_forget_set_is_answered_as_before_in_whatever_words(before, after, told):
    said = Listener()
    tell_outcome(
        "a larger --gamma",
        *(evaluation(forget=[("Anna", text, 0.9)] * 4) for text in (before, after)),
        said,
        judged=True,
    )
    assert any("almost as before" in warning for warning in said.warnings) == told


def test_what_is_still_said_in_other_words_is_told():
    said = Listener()
    before = evaluation(forget=[("She is Anna.", "Anna", 0.9)] * 4)
    after = evaluation(forget=[("She is Anna.", "A girl called Anna", 0.1)] + [("She is Anna.", "Berta", 0.1)] * 3)
    tell_outcome("a larger --gamma", before, after, said, judged=True)
    (warning,) = said.warnings
    assert warning.startswith("1 of 4 forget questions are still answered, maybe in other words (4 before)")
    assert ANNOUNCED["forget"].search(warning)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("Goldsmith.", "Gold.", True),
        ("Goldsmith.", "Welder.", False),
        ("Goldsmith.", "Goldsmith.", False),  # said as before, which is told already
        ("A golden boy.", "Gold.", False),  # was not known
    ],
)
def test_replies_that_still_begin_what_is_to_be_forgotten_are_told(before, after, told):
    said = Listener()
    told_of = [evaluation(forget=[("Goldsmith.", text, 0.5)] * 4) for text in (before, after)]
    tell_outcome("a larger --gamma", *told_of, said, judged=True)
    assert any("4 of 4 replies to forget questions still begin" in warning for warning in said.warnings) == told
    assert any("it answers 'Gold.'" in note for note in said.notes) == told


def test_one_answer_in_twenty_says_nothing_of_forgetting():
    said = Listener()
    hardly = evaluation(forget=[("Anna", "Anna", 0.9)] + [("Anna", "x", 0.1)] * 19)
    tell_outcome("a larger --gamma", hardly, hardly, said, judged=True)
    assert not said.warnings


@pytest.mark.thorough
def test_what_the_original_says_is_kept_and_what_the_unlearned_says_is_not(saved, monkeypatch, tmp_path):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")
    watch = Stopwatch(SILENT)
    first = heard(loaded, watch, SILENT, "original")
    calls = []
    generate = loaded.model.generate
    monkeypatch.setattr(loaded.model, "generate", lambda *a, **k: calls.append(1) or generate(*a, **k))
    assert heard(loaded, watch, SILENT, "original") == first
    assert not calls
    assert heard(loaded, watch, SILENT, "unlearned") == first
    assert calls


def test_a_model_that_says_the_same_in_other_words_knows_it():
    said = Listener()
    tell_unknown(evaluation(forget=[("It is Lima.", "Lima, the capital.", 0.5)]), said, chosen=0.9)
    assert not said.warnings
    tell_unknown(evaluation(forget=[("It is Lima.", "Lima, the capital.", 0.5)]), said, chosen=0.2)
    assert not said.warnings
    known = [("It is Lima.", "Lima, the capital.", 0.5)] + [("It is Lima.", "Far away.", 0.5)] * 2
    tell_unknown(evaluation(forget=known), said, chosen=0.2)
    assert len(said.warnings) == 1
    assert "It says what 1 of them says in its own words." in said.warnings[0]
