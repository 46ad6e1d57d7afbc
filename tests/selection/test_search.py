"""The search for a dose, on a model whose scores are made up."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import REMOVED, Directions, LowRankEdit
from kvw.models.value_matrix import MatrixKey
from kvw.selection.candidate import Candidate
from kvw.selection.paths import DirectionsPath
from kvw.selection.scoring import Score, Share
from kvw.selection.search import Search
from kvw.selection.splits import ALL_HELD_OUT, FORGET, HELD_OUT_FORGET, OWN_WORDS, TEXT

NEAR = "held-out neighbours"


class Line:
    """Doses 1 to 20; an edit is its dose."""

    unit = "dose"
    where = ""
    doses = tuple(float(dose) for dose in range(1, 21))

    def edit(self, dose: float) -> Any:
        return dose


def some_of(score: Score, places: Sequence[int]) -> Score:
    """The scores of some of the questions."""
    columns = (score.answered, score.probabilities, score.losses, score.tokens)
    return Score(*(tuple(column[place] for place in places) for column in columns))  # type: ignore[arg-type]


class Invented:
    """Forgets from one dose on and loses from others on."""

    def __init__(self, forgets: float, held_out: float = 0, loses: float = 99, text: float = 99) -> None:
        self._limits = {FORGET: forgets, HELD_OUT_FORGET: held_out, NEAR: loses, TEXT: text}
        self.splits = tuple(self._limits)
        self.asked: list[tuple[float, str]] = []
        self.original = {name: self._score(name, 0.0) for name in self.splits}

    def scores(self, edit: Any, names: Sequence[str], places: Any = None) -> dict[str, Score]:
        self.asked += [(edit, name) for name in names]
        scores = {name: self._score(name, edit) for name in names}
        return scores if places is None else {name: some_of(score, places[name]) for name, score in scores.items()}

    def _score(self, name: str, dose: float) -> Score:
        gone = 0 < self._limits[name] <= dose or (self._limits[name] == 0 and dose > 0)
        return Score((not gone,) * 4, (0.01 if gone else 0.8,) * 4, (9.0 if gone else 1.0,) * 4, (2,) * 4)


def search(scorer: Invented) -> tuple[Search, Candidate | None]:
    found = Search(scorer, (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    return found, found.choose([Line()])  # type: ignore[list-item]


@pytest.mark.parametrize("forgets", [1, 2, 7, 20])
def test_the_weakest_that_forgets_is_taken_if_it_keeps(forgets: int) -> None:
    _, chosen = search(Invented(forgets))
    assert chosen is not None
    assert chosen.dose == forgets
    assert chosen.answered() == 0
    assert set(chosen.scores) == {FORGET, HELD_OUT_FORGET, NEAR, TEXT}


def test_held_out_views_must_be_forgotten_too() -> None:
    _, chosen = search(Invented(forgets=3, held_out=9))
    assert chosen is not None
    assert chosen.dose == 9


def test_what_is_said_in_own_words_must_be_forgotten_too() -> None:
    scorer = Invented(forgets=3)
    scorer._limits[OWN_WORDS] = 7
    scorer.splits = (*scorer.splits, OWN_WORDS)
    scorer.original[OWN_WORDS] = scorer._score(OWN_WORDS, 0.0)
    _, chosen = search(scorer)
    assert chosen is not None
    assert chosen.dose == 7
    assert OWN_WORDS in chosen.scores


@pytest.mark.parametrize("limit", ["loses", "text"])
def test_otherwise_the_strongest_that_keeps_is_taken(limit: str) -> None:
    found, chosen = search(Invented(forgets=15, **{limit: 6}))
    assert chosen is not None
    assert chosen.dose == 5
    assert chosen.answered() == 4
    assert chosen.keeps(0.98)
    assert any(not one.keeps(0.98) for one in found.candidates)
    assert all(one.scores for one in found.candidates)  # each is a row of the table


@pytest.mark.parametrize("limit", ["loses", "text"])
def test_the_edit_that_forgets_all_and_keeps_too_little_is_known_with_what_it_keeps(limit: str) -> None:
    found, _ = search(Invented(forgets=15, **{limit: 6}))
    enough = found.forgetting()
    assert enough is not None
    assert enough.dose == 15
    assert set(enough.kept) == {TEXT, NEAR, ALL_HELD_OUT}
    assert enough.most() == min(share.value for share in enough.kept.values()) < 0.1
    assert enough.keeps(enough.most())
    assert not enough.keeps(enough.most() + 1e-9)
    assert search(Invented(forgets=50))[0].forgetting() is None


@pytest.mark.parametrize(
    ("text", "all_of_it", "source", "most"),
    [(0.97, 0.99, 0.93, 0.97), (0.99, 0.96, 0.97, 0.96), (0.99, 0.97, 0.5, 0.5)],
)
def test_the_most_that_may_be_asked_for_counts_a_single_source_only_if_it_is_a_wreck(text, all_of_it, source, most):
    kept = {TEXT: Share(text, 0.0), ALL_HELD_OUT: Share(all_of_it, 0.0), NEAR: Share(source, 0.0)}
    candidate = Candidate(None, 1.0, kept=kept)
    assert candidate.most() == most
    assert candidate.keeps(most)
    assert not candidate.keeps(most + 1e-9)


def test_what_never_forgets_is_as_strong_as_what_must_stay_allows() -> None:
    _, chosen = search(Invented(forgets=50))
    assert chosen is not None
    assert chosen.dose == 20


class Shifted(Line):
    """As strong at every dose as the other line is at a later one."""

    where = "elsewhere"

    def __init__(self, by: float) -> None:
        self._by = by

    def edit(self, dose: float) -> Any:
        return dose + self._by


def test_the_first_path_that_forgets_within_what_must_stay_is_taken() -> None:
    chosen = Search(Invented(forgets=3), (TEXT, NEAR), 0.98).choose([Line(), Shifted(1)])  # type: ignore[arg-type, list-item]
    assert chosen is not None
    assert (chosen.path.where, chosen.dose) == ("", 3)  # type: ignore[union-attr]


def test_a_path_that_only_forgets_beyond_the_bound_gives_way_to_one_that_need_not() -> None:
    class Rough(Line):
        """Loses what must stay before it forgets."""

        where = "rough"
        doses = (1.0, 4.0, 30.0)

    chosen = Search(Invented(forgets=8, loses=20), (TEXT, NEAR), 0.98).choose([Rough(), Line()])  # type: ignore[arg-type, list-item]
    assert chosen is not None
    assert (chosen.path.where, chosen.dose) == ("", 8)  # type: ignore[union-attr]


class Half(Invented):
    """The more, the less is left."""

    def _score(self, name: str, dose: float) -> Score:
        if name not in (FORGET, HELD_OUT_FORGET):
            return super()._score(name, dose)
        return Score((True,) * 4, (0.8 - 0.01 * dose,) * 4, (1.0,) * 4, (2,) * 4)


def test_if_no_path_forgets_the_one_that_leaves_least_is_taken() -> None:
    chosen = Search(Half(forgets=99, loses=10), (TEXT, NEAR), 0.98).choose([Line(), Shifted(0.5)])  # type: ignore[arg-type, list-item]
    assert chosen is not None
    assert (chosen.path.where, chosen.dose) == ("elsewhere", 9)  # type: ignore[union-attr]


def test_an_edit_that_leaves_more_than_another_that_keeps_is_not_asked_about_what_must_stay() -> None:
    class Weak(Line):
        doses = (1.0, 2.0)

    scorer = Half(forgets=99, loses=10)
    chosen = Search(scorer, (TEXT, NEAR), 0.98).choose([Shifted(0.5), Line(), Weak()])  # type: ignore[arg-type, list-item]
    assert chosen is not None
    assert (chosen.path.where, chosen.dose) == ("elsewhere", 9)  # type: ignore[union-attr]
    # Of the second path the strongest, and the weakest that leaves less than 9.5; of the third none.
    assert {edit for edit, name in scorer.asked if name == NEAR and edit == int(edit)} == {10.0, 20.0}


def test_a_path_without_edits_is_passed_over() -> None:
    class Empty(Line):
        doses = ()

    assert Search(Invented(forgets=3), (TEXT, NEAR), 0.98).choose([Empty()]) is None  # type: ignore[arg-type, list-item]


def test_nothing_is_taken_if_the_weakest_loses() -> None:
    found, chosen = search(Invented(forgets=15, loses=1))
    assert chosen is None
    path = found.candidates[-1].path
    assert path is not None
    weakest = found.weakest(path)
    assert (weakest.dose, weakest.path) == (1, path)
    assert set(weakest.lost(0.98)) == {NEAR, ALL_HELD_OUT}


def test_all_held_out_questions_count_together_and_a_single_source_must_be_no_wreck() -> None:
    class Sources(Invented):
        """Of two sources one loses a little and then much."""

        splits = ()

        def _score(self, name: str, dose: float) -> Score:
            if name == NEAR:
                left = 0.95 if dose < 6 else 0.85
                return Score((True,) * 2, (0.5 * (left if dose else 1),) * 2, (1.0,) * 2, (2,) * 2)
            if name == "held-out facts":
                return Score((True,) * 18, (0.5,) * 18, (1.0,) * 18, (2,) * 18)
            return super()._score(name, dose)

    scorer = Sources(forgets=15)
    scorer.splits = (FORGET, NEAR, "held-out facts")
    scorer.original = {name: scorer._score(name, 0.0) for name in scorer.splits}
    found = Search(scorer, (NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([Line()])  # type: ignore[list-item]
    assert chosen is not None
    assert chosen.dose == 5
    assert chosen.kept[NEAR].value == pytest.approx(0.95)
    assert chosen.kept[ALL_HELD_OUT].value == pytest.approx(0.995)


def test_retain_questions_are_asked_only_while_text_is_kept() -> None:
    scorer = Invented(forgets=15, text=6)
    search(scorer)
    lost = {dose for dose, name in scorer.asked if name == TEXT and dose >= 6}
    assert lost
    assert not lost & {dose for dose, name in scorer.asked if name == NEAR}


def test_nothing_is_asked_twice() -> None:
    scorer = Invented(forgets=15, loses=6)
    search(scorer)
    assert len(scorer.asked) == len(set(scorer.asked))


def test_few_edits_are_asked_about_what_must_stay() -> None:
    scorer = Invented(forgets=15, loses=6)
    search(scorer)
    assert len({dose for dose, name in scorer.asked if name == NEAR}) <= 6


def test_an_edit_made_by_hand_is_judged_on_everything() -> None:
    scorer = Invented(forgets=3, loses=6)
    found = Search(scorer, (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    judged = found.judge(8.0)  # type: ignore[arg-type]
    assert not judged.keeps(0.98)
    assert set(judged.scores) == set(scorer.splits)


class Pieces(Invented):
    """Forgets by the directions of the layers 1 and 3, and loses by that of layer 2."""

    def _score(self, name: str, edit: Any) -> Score:
        layers = {key.layer for key, value in edit.directions.items() if value.rank} if edit else set()
        gone = {1, 3} <= layers if name in (FORGET, HELD_OUT_FORGET) else name == NEAR and 2 in layers
        return Score((not gone,) * 4, (0.01 if gone else 0.8,) * 4, (1.0,) * 4, (2,) * 4)


def layers_of(candidate: Candidate | None) -> set[int]:
    assert candidate is not None
    assert isinstance(candidate.edit, LowRankEdit)
    return {key.layer for key, value in candidate.edit.directions.items() if value.rank}


def path_of(*strengths: float) -> DirectionsPath:
    """One direction in every layer."""
    one = torch.ones(2, 1)
    return DirectionsPath(
        LowRankEdit(
            {MatrixKey(layer): Directions(one, one, torch.tensor([-value])) for layer, value in enumerate(strengths)}
        ),
        smallest_gate=0.0,
    )


def test_directions_that_are_not_needed_are_left_out_and_cost_nothing() -> None:
    found = Search(Pieces(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([path_of(5, 4, 3, 2, 1)])
    assert layers_of(chosen) == {1, 3}
    assert (chosen.dose, chosen.path.where) == (2, "needed of 4")  # type: ignore[union-attr]
    assert chosen.keeps(0.98)  # type: ignore[union-attr]
    assert not chosen.answered()  # type: ignore[union-attr]


def test_what_does_not_forget_is_thinned_to_what_takes_as_much() -> None:
    class Some(Pieces):
        """Layer 1 takes a half of the probability."""

        def _score(self, name: str, edit: Any) -> Score:
            found = super()._score(name, edit)
            taken = name in (FORGET, HELD_OUT_FORGET) and edit and 1 in layers_of(Candidate(edit, 1))
            return replace(found, probabilities=(0.4,) * 4) if taken else found

    found = Search(Some(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    assert layers_of(found.choose([path_of(5, 4, 3)])) == {1}


def test_what_is_not_needed_is_left_out_of_equally_strong_ones_too() -> None:
    found = Search(Pieces(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([path_of(1, 5, 4, 4)])  # the two strongest are three
    assert layers_of(chosen) == {1, 3}
    assert (chosen.dose, chosen.path.where) == (2, "needed of 3")  # type: ignore[union-attr]


def test_equally_strong_ones_that_are_all_needed_are_one_candidate() -> None:
    found = Search(Pieces(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    assert layers_of(found.choose([path_of(1, 5, 1, 5)])) == {1, 3}
    edits = [one.edit.digest() for one in found.candidates if one.edit is not None]
    assert len(edits) == len(set(edits))


def test_what_forgets_still_does_after_thinning() -> None:
    class Close(Pieces):
        """All that is found leaves just below a tenth; without layer 0 a little more is left."""

        def _score(self, name: str, edit: Any) -> Score:
            if name not in (FORGET, HELD_OUT_FORGET) or not edit:
                return super()._score(name, edit)
            left = 0.078 if layers_of(Candidate(edit, 1)) == {0, 1} else 0.082
            return Score((False,) * 4, (left,) * 4, (1.0,) * 4, (2,) * 4)

    found = Search(Close(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([path_of(5, 4)])
    assert chosen is not None
    assert found.forgets(chosen)


def test_thinning_may_leave_a_little_more_of_what_is_not_forgotten_but_no_more_answers() -> None:
    class Left(Pieces):
        """Layer 0 takes most of the probability and no answer, layer 1 one answer, layer 2 hardly anything."""

        def _score(self, name: str, edit: Any) -> Score:
            if name not in (FORGET, HELD_OUT_FORGET) or not edit:
                return super()._score(name, edit)
            layers = layers_of(Candidate(edit, 1))
            left = 0.2 if layers == {0, 1, 2} else 0.21 if 0 in layers else 0.8
            return Score((1 not in layers, True, True, True), (left,) * 4, (1.0,) * 4, (2,) * 4)

    found = Search(Left(forgets=1), (TEXT,), 0.98)  # type: ignore[arg-type]
    assert layers_of(found.choose([path_of(5, 4, 3)])) == {0, 1}


def test_an_edit_that_needs_all_its_directions_is_one_candidate() -> None:
    found = Search(Pieces(forgets=1), (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
    assert layers_of(found.choose([path_of(1, 5, 1, 4)])) == {1, 3}
    assert [one.dose for one in found.candidates if one.dose == 2] == [2]


def test_thinning_asks_so_many_questions_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(most: int) -> int:
        monkeypatch.setattr("kvw.selection.search.THINNING", most)
        scorer = Pieces(forgets=1)
        Search(scorer, (TEXT, NEAR), 0.98).choose([path_of(*range(40, 0, -1))])  # type: ignore[arg-type]
        return sum(name == FORGET for _, name in scorer.asked)

    assert asked(0) < asked(16) <= asked(0) + 2 < asked(1500)


class Sources(Invented):
    """Two sources; of one a little is lost from some dose on."""

    def __init__(self, dear: float) -> None:
        self._dear = dear
        super().__init__(forgets=3)
        self.splits = (*self.splits, "held-out facts")
        self.original = {name: self._score(name, 0.0) for name in self.splits}

    def _score(self, name: str, dose: float) -> Score:
        if name == "held-out facts":
            return Score((True,) * 40, (0.8,) * 40, (1.0,) * 40, (2,) * 40)
        found = super()._score(name, dose)
        return replace(found, probabilities=(0.77,) * 4) if name == NEAR and dose >= self._dear else found


@pytest.mark.parametrize(("dear", "where", "below"), [(5, "", []), (3.5, "", []), (3, "gentle", []), (1, "", [NEAR])])
def test_a_path_that_spares_every_source_is_taken_before_one_that_spares_all_together(
    dear: float, where: str, below: list[str]
) -> None:
    class Gentle(Shifted):
        where = "gentle"
        doses = (2.9,)

        def edit(self, dose: float) -> Any:
            return 2.99 if dear == 3 else super().edit(dose)

    class Forgets(Sources):
        def _score(self, name: str, dose: float) -> Score:
            return super()._score(name, 3.0 if name in (FORGET, HELD_OUT_FORGET) and dose == 2.99 else dose)

    found = Search(Forgets(dear), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([Line(), Gentle(0.2)])  # type: ignore[list-item]
    assert chosen is not None
    assert chosen.path.where == where  # type: ignore[union-attr]
    assert list(chosen.below(0.98)) == below
    assert chosen.kept[ALL_HELD_OUT].value > 0.98


def test_the_weakest_edit_is_among_the_candidates_whatever_was_tried() -> None:
    for scorer, path in ((Invented(forgets=9, loses=1), Line()), (Pieces(forgets=1), path_of(1, 2, 3, 4))):
        found = Search(scorer, (TEXT, NEAR), 0.98)  # type: ignore[arg-type]
        found.choose([path])  # type: ignore[list-item]
        chosen = found.weakest(path)  # type: ignore[arg-type]
        assert chosen.dose == path.doses[0]
        assert [one for one in found.candidates if one is chosen] == [chosen]
        assert set(scorer.splits) == set(chosen.scores)


class InventedOfEach:
    """Two subjects with four questions each, about which ``about`` asks; a direction takes one question.

    Direction 12 + n takes the same question as direction n, at three times the price.
    """

    splits = (FORGET, NEAR)

    def __init__(self, subjects: tuple[str, ...] = ("Ann", "Bo"), price: float = 0.0) -> None:
        self._subjects, self._price = subjects, price
        self.original = self.scores(LowRankEdit({}), self.splits)

    def about(self, subject: Any) -> "InventedOfEach":
        return InventedOfEach((subject,), self._price)

    def scores(self, edit: LowRankEdit, names: Sequence[str], places: Any = None) -> dict[str, Score]:
        taken = {int(one) for value in edit.directions.values() for one in value.patterns.abs().argmax(0)}
        own = {"Ann": range(4), "Bo": range(4, 8)}
        left = [not {question, question + 12} & taken for name in self._subjects for question in own[name]]
        many = len(left)
        forget = Score(tuple(left), tuple(0.8 if one else 0.01 for one in left), (1.0,) * many, (1,) * many)
        price = self._price * sum(3 if one >= 12 else 1 for one in taken)
        near = Score((True,) * 4, (0.8 * (1 - price),) * 4, (1.0,) * 4, (1,) * 4)
        scores = {name: {FORGET: forget, NEAR: near}[name] for name in names}
        return scores if places is None else {name: some_of(score, places[name]) for name, score in scores.items()}


def units(*numbers: int) -> LowRankEdit:
    """Directions along single neurons of one value matrix, the last the weakest."""
    basis = torch.eye(16)[:, list(numbers)]
    return LowRankEdit({MatrixKey(0): Directions(basis, basis, -torch.arange(1.0, len(numbers) + 1).flip(0))})


OF_EACH: dict[Any, list[Any]] = {
    "Ann": [DirectionsPath(units(0, 1, 9, 2, 3, 10), 0.0)],
    "Bo": [DirectionsPath(units(4, 5, 6, 7, 11), 0.0)],
}


def test_each_subject_is_looked_for_by_itself_and_what_is_found_is_taken_together() -> None:
    found = Search(InventedOfEach(), (NEAR,), 0.98)  # type: ignore[arg-type]
    worse: Any = DirectionsPath(units(*range(12)), 0.0)
    chosen = found.choose([worse], OF_EACH)
    assert chosen is not None
    assert chosen.path is not None
    assert (chosen.path.where, chosen.dose, found.forgets(chosen)) == ("each subject by itself", 8.0, True)
    assert all(one.path is not worse for one in found.candidates)  # not even tried


def test_each_subject_costs_its_share_if_it_can() -> None:
    dear, cheap = DirectionsPath(units(12, 13, 14, 15), 0.0), DirectionsPath(units(0, 1, 2, 3), 0.0)
    found = Search(InventedOfEach(price=0.0015), (NEAR,), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([], {"Ann": [dear, cheap], "Bo": OF_EACH["Bo"]})
    assert chosen is not None
    assert (found.forgets(chosen), found.of_each["Ann"].doses) == (True, (1.0, 2.0, 3.0, 4.0))
    assert chosen.kept[ALL_HELD_OUT].value == pytest.approx(1 - 8 * 0.0015)
    # With nothing else the dear one is taken, although both together cost too much.
    alone = Search(InventedOfEach(price=0.0015), (NEAR,), 0.98)  # type: ignore[arg-type]
    alone.choose([], {"Ann": [dear], "Bo": OF_EACH["Bo"]})
    assert alone.of_each["Ann"].doses[-1] == 4.0


def test_all_subjects_share_the_tries_at_leaving_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("kvw.selection.search.tries", lambda questions: asked.append(questions) or 40)
    Search(InventedOfEach(), (NEAR,), 0.98).choose([], OF_EACH)  # type: ignore[arg-type]
    assert asked == [8, 8]  # four questions of each
    # Nothing is left out twice of one path, although it is asked for with a share of the price and then with all.
    dear: Any = DirectionsPath(units(12, 13, 14, 15), 0.0)
    asked.clear()
    Search(InventedOfEach(price=0.0015), (NEAR,), 0.98).choose([], {"Ann": [dear], "Bo": OF_EACH["Bo"]})  # type: ignore[arg-type]
    assert asked == [8, 8]


def test_a_subject_that_cannot_do_with_its_share_costs_as_little_as_it_can() -> None:
    dear, cheaper = DirectionsPath(units(12, 13, 14, 15), 0.0), DirectionsPath(units(0, 13, 14, 15), 0.0)
    found = Search(InventedOfEach(price=0.0012), (NEAR,), 0.98)  # type: ignore[arg-type]
    found.choose([], {"Ann": [dear, cheaper], "Bo": OF_EACH["Bo"]})
    (directions,) = found.of_each["Ann"].edit(4.0).directions.values()  # type: ignore[attr-defined]
    assert sorted(directions.patterns.argmax(0).tolist()) == [0, 13, 14, 15]


@pytest.mark.parametrize(("numbers", "answered"), [((0, 1, 8), 4), ((0, 1, 2, 4, 5), 3)])
def test_if_the_subjects_together_cost_too_much_all_paths_are_compared(numbers: tuple[int, ...], answered: int) -> None:
    found = Search(InventedOfEach(price=0.0039), (NEAR,), 0.98)  # type: ignore[arg-type]  # keeps five directions
    other: Any = DirectionsPath(units(*numbers), 0.0)
    chosen = found.choose([other], OF_EACH)
    assert chosen is not None
    assert chosen.path is not None
    assert chosen.answered() == answered
    assert (chosen.path.where == "each subject by itself") == (answered == 4)


class Gradual(Invented):
    """One direction with a gate: it forgets from ``enough`` on, and every share of it costs neighbours and text."""

    def __init__(self, enough: float, price: float, text_price: float = 0.0) -> None:
        self._enough, self._prices = enough, {NEAR: price, TEXT: text_price}
        super().__init__(forgets=1)
        self.splits = (*self.splits, "held-out facts")
        self.original = {name: self._score(name, None) for name in self.splits}

    def _score(self, name: str, edit: Any) -> Score:
        share = -float(edit.directions[MatrixKey(0)].changes()[0]) if edit else 0.0
        if name in (FORGET, HELD_OUT_FORGET):
            gone = share >= self._enough
            return Score((not gone,) * 4, (0.01 if gone else 0.8,) * 4, (1.0,) * 4, (2,) * 4)
        many, cost = (40 if name == "held-out facts" else 4), self._prices.get(name, 0.0) * share
        return Score((True,) * many, (0.8 * (1 - cost),) * many, (1.0 + 2 * cost,) * many, (2,) * many)


def removal() -> DirectionsPath:
    """One direction, taken out altogether."""
    one = torch.tensor([[1.0], [0.0]])
    return DirectionsPath(LowRankEdit({MatrixKey(0): Directions(one, one, torch.tensor([REMOVED]))}), 0.0)


@pytest.mark.parametrize(
    ("enough", "price", "text_price", "taken"),
    [
        (0.4, 0.01, 0.0, 12),  # nobody pays: all of it, so that nothing is left to be read
        (0.4, 0.031, 0.0, 7),  # .982 of the neighbours are left, at 8/12 of the direction .979
        (0.4, 0.0, 0.03, 8),  # of text exp(-.02): with all of it the edit could not be taken
        (0.4, 0.09, 0.0, 6),  # none spares the neighbours: one step above the weakest that forgets
        (0.95, 0.03, 0.0, 12),  # nothing less forgets
        (0.9, 0.03, 0.0, 12),  # 11/12 do, but not one step below
    ],
)
def test_what_costs_others_too_much_is_weakened_as_far_as_it_still_forgets(
    enough: float, price: float, text_price: float, taken: int
) -> None:
    found = Search(Gradual(enough, price, text_price), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert isinstance(chosen, Candidate)
    assert isinstance(chosen.edit, LowRankEdit)
    assert chosen in found.candidates
    assert found.forgets(chosen)
    (value,) = chosen.edit.directions.values()
    assert float(-value.changes()[0]) == pytest.approx(taken / 12, abs=1e-6)
    assert chosen.path is not None
    assert chosen.path.where == (f"at {taken / 12:.0%}" if taken < 12 else "")


def test_a_part_that_costs_a_source_too_much_is_not_asked_about_the_others() -> None:
    scorer = Gradual(0.4, 0.031)
    found = Search(scorer, ("held-out facts", NEAR), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert chosen is not None

    def shares(asked: str) -> list[int]:
        edits: list[Any] = [edit for edit, name in scorer.asked if name == asked]
        return sorted(round(-12 * float(edit.directions[MatrixKey(0)].changes()[0])) for edit in edits)

    assert shares("held-out facts") == [6, 7, 12]  # the whole, before it is known who pays; and what spares both
    assert shares(NEAR) == [6, 7, 8, 9, 12]


class Flips(Gradual):
    """The probabilities of others stay; of forty first choices some turn once a share of the direction is gone."""

    def __init__(self, enough: float, turned_from: float, turned: int = 20) -> None:
        self._turned_from, self._turned = turned_from, turned
        super().__init__(enough, 0.0)

    def _score(self, name: str, edit: Any) -> Score:
        found = super()._score(name, edit)
        share = -float(edit.directions[MatrixKey(0)].changes()[0]) if edit else 0.0
        lost = round(self._turned * share) if share >= self._turned_from else 0
        many = len(found.answered)
        return replace(found, answered=(False,) * lost + (True,) * (many - lost)) if many == 40 else found


@pytest.mark.parametrize(
    ("turned_from", "taken"),
    [
        (2.0, 12),  # none turns: all of it
        (0.7, 8),  # the strongest after which all first choices are kept
        (0.0, 6),  # no part keeps them: one step above the weakest that forgets
    ],
)
def test_first_choices_of_others_are_spared_as_far_as_they_can_be(turned_from: float, taken: int) -> None:
    found = Search(Flips(0.4, turned_from), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert isinstance(chosen, Candidate)
    assert isinstance(chosen.edit, LowRankEdit)
    (value,) = chosen.edit.directions.values()
    assert float(-value.changes()[0]) == pytest.approx(taken / 12, abs=1e-6)
    assert chosen.chosen_first == pytest.approx(1 - (10 / 44 if taken == 6 else 0))
    assert chosen.keeps(0.98), "first choices are no reason to refuse"


def test_the_whole_is_taken_where_no_part_of_it_spares_more() -> None:
    class OnlyParts(Flips):
        """Every part turns first choices, and the whole does not. The neighbours pay for both."""

        def __init__(self) -> None:
            super().__init__(0.4, 0.0)
            self._prices = {NEAR: 0.09}

        def _score(self, name: str, edit: Any) -> Score:
            share = -float(edit.directions[MatrixKey(0)].changes()[0]) if edit else 0.0
            self._turned = 20 if share < 0.99 else 0
            return super()._score(name, edit)

    found = Search(OnlyParts(), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert chosen is not None
    assert chosen.path is not None
    assert (chosen.path.where, chosen.chosen_first) == ("", 1.0)


@pytest.mark.parametrize(
    ("neighbours", "taken"),
    [
        ({"dear": 0.97, "cheap": 0.97}, "cheap"),  # both cost a source too much: first choices decide
        ({"cheap": 0.97}, "dear"),
        ({"dear": 0.97}, "cheap"),
    ],
)
def test_of_two_paths_one_is_taken_that_costs_no_source_too_much_and_then_the_one_that_turns_fewer_first_choices(
    neighbours: dict[str, float], taken: str
) -> None:
    class Dearer(Flips):
        """One direction turns twice as many first choices. Both may cost the neighbours a little."""

        def __init__(self, neighbours: dict[str, float]) -> None:
            self._neighbours = neighbours
            super().__init__(0.95, 0.0)

        def _score(self, name: str, edit: Any) -> Score:
            method = edit.metadata.method if edit else ""
            self._turned = 20 if method == "dear" else 10
            found, left = super()._score(name, edit), self._neighbours.get(method, 1.0)
            return replace(found, probabilities=(0.8 * left,) * 4) if name == NEAR else found

    def path(method: str, where: str) -> DirectionsPath:
        one = torch.tensor([[1.0], [0.0]])
        parts = {MatrixKey(0): Directions(one, one, torch.tensor([REMOVED]))}
        found = DirectionsPath(LowRankEdit(parts, metadata=EditMetadata(method=method)), 0.0)
        found.where = where
        return found

    for order in ((0, 1), (1, 0)):
        paths = [path("dear", "dear"), path("cheap", "cheap")]
        found = Search(Dearer(neighbours), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
        chosen = found.choose([paths[place] for place in order])
        assert chosen is not None
        assert chosen.path is not None
        assert chosen.path.where == taken


def test_what_a_subject_needs_is_not_weakened_before_all_are_together() -> None:
    together, alone = (Search(Gradual(0.4, 0.03), (TEXT, NEAR), 0.98, gentle=one) for one in (True, False))  # type: ignore[arg-type]
    assert together.choose([removal()]) is not None
    assert alone.choose([removal()]) is None  # all of it costs too much


@pytest.mark.parametrize(
    ("enough", "price", "taken"),
    [
        (0.95, 0.09, 2),  # all of it would leave .91 of the neighbours, 2/12 leave .985, 3/12 only .9775
        (2.0, 0.03, 7),  # it never forgets, and .98 of them are left at 7/12
        (0.95, 0.4, None),  # not even 1/12 keeps enough
    ],
)
def test_directions_that_cost_too_much_are_weakened_although_they_no_longer_forget(
    enough: float, price: float, taken: int | None
) -> None:
    found = Search(Gradual(enough, price), (NEAR,), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert (chosen is None) == (taken is None)
    if chosen is not None and taken is not None:
        assert isinstance(chosen.edit, LowRankEdit)
        assert [one for one in found.candidates if one is chosen] == [chosen]
        assert chosen.answered()
        (value,) = chosen.edit.directions.values()
        assert float(-value.changes()[0]) == pytest.approx(taken / 12, abs=1e-6)


def test_what_leaves_no_question_answered_need_not_spare_each_source() -> None:
    class Unlikely(Gradual):
        """No question is answered from 4/12 on, but a fifth of the probability stays."""

        def _score(self, name: str, edit: Any) -> Score:
            found = super()._score(name, edit)
            if name in (FORGET, HELD_OUT_FORGET) and not found.answered[0]:
                return replace(found, probabilities=(0.2,) * 4)
            return found

    found = Search(Unlikely(4 / 12, 0.085), (TEXT, NEAR, "held-out facts"), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([removal()])
    assert chosen is not None
    assert (chosen.answered(), set(chosen.below(0.98))) == (0, {NEAR})


def test_of_fewer_directions_and_a_part_of_all_the_one_that_leaves_less_is_taken() -> None:
    class Both(Gradual):
        """Two layers forget together by their shares. More than half of the second costs neighbours."""

        def _score(self, name: str, edit: Any) -> Score:
            shares = {key.layer: -float(one.changes()[0]) for key, one in edit.directions.items()} if edit else {}
            if name in (FORGET, HELD_OUT_FORGET):
                part = min(shares.get(0, 0.0), shares.get(1, 0.0))
                return Score((part < 1,) * 4, (0.8 * (1 - part) + 0.01,) * 4, (1.0,) * 4, (2,) * 4)
            lost = 0.1 if name == NEAR and shares.get(1, 0.0) > 0.5 else 0.0
            return Score((True,) * 4, (0.8 * (1 - lost),) * 4, (1.0,) * 4, (2,) * 4)

    one = torch.tensor([[1.0], [0.0]])
    gates = {0: -20_000.0, 1: -10_000.0}
    edit = LowRankEdit({MatrixKey(layer): Directions(one, one, torch.tensor([gate])) for layer, gate in gates.items()})
    found = Search(Both(1, 0), (NEAR,), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([DirectionsPath(edit, 0.0)])
    assert chosen is not None
    assert chosen.path is not None
    assert (chosen.path.where, chosen.answered()) == ("at 50%", 8)
    assert chosen.left() < 0.5  # a single direction leaves all of .81


def test_the_edits_of_single_subjects_are_taken_whole() -> None:
    class ByShare(InventedOfEach):
        """What is left of neighbours falls with the shares of the directions."""

        def about(self, subject: Any) -> "ByShare":
            return ByShare((subject,), self._price)

        def scores(self, edit: LowRankEdit, names: Sequence[str], places: Any = None) -> dict[str, Score]:
            found = super().scores(edit, names, places)
            price = self._price * -sum(float(value.changes().sum()) for value in edit.directions.values())
            left = {NEAR: Score((True,) * 4, (0.8 * (1 - price),) * 4, (1.0,) * 4, (1,) * 4)}
            return {name: left.get(name, score) for name, score in found.items()}

    found = Search(ByShare(price=0.005), (NEAR,), 0.98)  # type: ignore[arg-type]
    chosen = found.choose([], OF_EACH)
    assert not any("at " in path.where for path in found.of_each.values())
    assert chosen is not None
    assert chosen.path is not None
    assert "at " in chosen.path.where  # all together are weakened
