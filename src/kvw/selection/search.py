"""The search for a dose: the weakest edit that forgets everything, or else the strongest that keeps what must stay."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from kvw.edits.edit import Edit
from kvw.selection.candidate import Candidate
from kvw.selection.known_scores import KnownScores
from kvw.selection.no_less import NoLess
from kvw.selection.paths import WEAKER, DirectionsPath, Path, united
from kvw.selection.scoring import Score, Scorer, Share, share_of_answers, share_of_text
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING, TEXT

FORGOTTEN = 0.1
"""Share of the probability of the telling tokens. If more is left, the model still knows although it answers
nothing."""
SLACK = 1.1
"""An edit that does not forget everything may leave this many times as much once it is thinned."""
THINNING, MOST_TRIES = 1000, 40
"""Limits while directions that an edit does not need are left out: forget questions that are asked, and tries."""


class Search:
    """Scores candidates on demand and remembers them.

    Args:
        scorer: Scores edits.
        must_stay: The splits that say what is kept: plain text, and questions.
        keep: The share of plain text, and of all these questions together, that must be left.
        questions: How many forget questions there are, if the scorer asks only those of one subject: all subjects share
            the tries at leaving directions out.
        gentle: Whether directions that forget everything are weakened as far as others need it. What several subjects
            need is put together first.

    Attributes:
        candidates: In the order in which they were tried.
        of_each: What each subject needs by itself, if that was looked for.
    """

    def __init__(
        self,
        scorer: Scorer,
        must_stay: Sequence[str],
        keep: float,
        questions: int | None = None,
        *,
        gentle: bool = True,
    ) -> None:
        self._scorer, self._must_stay, self._keep, self._is_gentle = scorer, must_stay, keep, gentle
        self._questions = questions or sum(len(self.original[name].answered) for name in self._forgetting())
        self.candidates: list[Candidate] = []
        self.of_each: dict[Hashable, DirectionsPath] = {}
        self._ends: dict[Path, tuple[Path, int]] = {}
        self._gentle: dict[Path, Candidate | None] = {}
        self._weaker: dict[Path, list[Candidate]] = {}

    @property
    def original(self) -> dict[str, Score]:
        """The scores without an edit."""
        return self._scorer.original

    @property
    def known(self) -> KnownScores:
        """What was asked so far, for a later search on the same model."""
        return self._scorer.known

    def _forgetting(self) -> list[str]:
        return [name for name in FORGETTING if name in self.original]

    def choose(
        self, paths: Sequence[Path], of_each: Mapping[Hashable, Sequence[Path]] | None = None
    ) -> Candidate | None:
        """Find the candidate to take.

        If there are paths of each subject, a candidate is found for each subject by itself, and their directions make a
        path. If this has an edit that forgets everything and keeps what must stay, it is taken. Otherwise it is the
        first of all paths.

        The first path is taken that has an edit that forgets everything and keeps what must stay, each source of it for
        itself. If none has, the candidates of all paths are compared. Of those that forget everything one is taken that
        costs no source too much, then the one after which most answers about others are the first choice, then the one
        whose worst source keeps most; otherwise the one that leaves fewest questions answered, then least of the
        answers.

        Returns:
            The candidate with all its scores; None if no path has one that keeps what must stay.
        """
        ends: list[tuple[Path, int]] = []
        best: Candidate | None = None
        if of_each and (together := self._of_each(of_each)) is not None:
            ends.append(self._end(together))
            best = self._kept_at(*ends[-1])
        for path in paths if best is None else ():
            ends.append(self._end(path))
            chosen = self._kept_at(*ends[-1])
            if chosen is not None and (best is None or self._rank(chosen) < self._rank(best)):
                best = chosen
            if best is not None and not best.below(self._keep):
                break
        if best is None:
            for end in ends:
                found = [one for one in (best, self._weakened(*end, best)) if one is not None]
                best = min(found, key=self._rank, default=None)
        return self._complete(best) if best is not None else None

    def kept(self, paths: Sequence[Path]) -> Iterator[Candidate]:
        """The candidate of each path that has one that forgets everything and keeps what must stay."""
        return (one for path in paths if (one := self._kept_at(*self._end(path))) is not None)

    def _of_each(self, paths: Mapping[Hashable, Sequence[Path]]) -> DirectionsPath | None:
        """The path of what a search finds for each subject; None if it finds nothing for any."""
        found: list[tuple[DirectionsPath, float]] = []
        for subject, own in paths.items():
            # Each may cost its share of what all of them may; if that is too little for one, then as little as it can.
            scorer, keep = self._scorer.about(subject), self._keep ** (1 / len(paths))
            search = Search(scorer, self._must_stay, keep, self._questions, gentle=False)
            chosen = next(search.kept(own), None)
            if chosen is None:
                search._keep = self._keep
                chosen = min(search.kept(own), key=search._rank, default=None) or search.choose(own)
            if chosen is not None and isinstance(chosen.path, DirectionsPath) and chosen.dose is not None:
                found.append((chosen.path, chosen.dose))
                self.of_each[subject] = chosen.path
        return united(found) if found else None

    def _rank(self, candidate: Candidate) -> tuple[float, ...]:
        """The lower the better."""
        if self.forgets(candidate):
            worst = min(share.value for share in candidate.kept.values())
            return False, bool(candidate.below(self._keep)), -candidate.chosen_first, -worst
        return True, *self._left(candidate)

    def _before(self) -> float:
        return Candidate(None, None, None, self.original).left()

    def _left(self, candidate: Candidate) -> tuple[int, float]:
        self._score(candidate, FORGETTING)
        return candidate.answered(), candidate.left()

    def _end(self, path: Path) -> tuple[Path, int]:
        """The weakest edit that forgets everything, judged only by the forget questions, without what it does not need.

        Failing that, it is the strongest of all; more would cost others and buy nothing.

        Returns:
            A path of this edit and its parts, and its place there; the place is -1 on a path without edits.
        """
        if not path.doses:
            return path, -1
        if path in self._ends:
            return self._ends[path]
        whole = path
        enough = _first(len(path.doses), lambda place: self.forgets(self._at(path, place)))
        last = min(enough, len(path.doses) - 1)
        if isinstance(path, DirectionsPath) and not path.is_thin:
            path = self._needed(path, self._at(path, last))
            last = len(path.doses) - 1
        self._ends[whole] = path, last
        return path, last

    def _kept_at(self, path: Path, last: int) -> Candidate | None:
        """The candidate at a place, if it forgets everything and keeps what must stay; or a weaker one of its
        directions, if that costs others too much."""
        if last < 0 or not self.forgets(whole := self._at(path, last)):
            return None
        if self._spares(whole):
            return whole
        gentler = self._gentler(path)
        if gentler is not None and self._spares(gentler):
            return gentler
        found = [one for one in (gentler, whole) if one is not None and self.keeps(one)]
        return min(found, key=self._rank, default=None)

    def _spares(self, candidate: Candidate) -> bool:
        """Whether it keeps what must stay, each source of it for itself, and as many of the first choices.

        The sources of which earlier edits have left least are asked first. The first that loses too much ends it.
        """
        if not self._keeps_text(candidate):
            return False
        seen = [one.kept for one in self.candidates]
        questions = [name for name in self._must_stay if name != TEXT]
        for name in sorted(
            questions, key=lambda name: min((kept[name].value for kept in seen if name in kept), default=1)
        ):
            if self._share(candidate, name).value < self._keep:
                return False
        return self.keeps(candidate) and candidate.chosen_first >= self._keep

    def _gentler(self, path: Path) -> Candidate | None:
        """The strongest part of an edit that spares everything and forgets everything; if none does, then the weakest
        that forgets everything.

        The weakest that is tried is one step above the weakest that forgets the questions, for other wordings of them.
        """
        if path not in self._gentle:
            tried = self._parts(path)
            least = _first(len(tried), lambda place: self.forgets(tried[place])) + 1
            found = next(iter(tried[least:]), None)
            if found is not None and self._spares(found):
                strongest_first = tried[least:][::-1]
                found = strongest_first[
                    _first(len(strongest_first) - 1, lambda place: self._spares(strongest_first[place]))
                ]
            self._gentle[path] = self._tell(found)
        return self._gentle[path]

    def _weakened(self, path: Path, last: int, best: Candidate | None) -> Candidate | None:
        """The strongest candidate up to a place that keeps what must stay, or the strongest part of all directions that
        does, whichever leaves less; None if there is none, or none that leaves less than the best one so far."""
        if last < 0 or not self._may_beat(whole := self._at(path, last), best):
            return None
        if self.keeps(whole):
            return whole
        fewer = self._strongest(last, lambda place: self._at(path, place), best)
        parts = self._parts(path)
        part = self._tell(self._strongest(len(parts), parts.__getitem__, fewer or best))
        return min((one for one in (fewer, part) if one is not None), key=self._rank, default=None)

    def _strongest(self, count: int, at: Callable[[int], Candidate], best: Candidate | None) -> Candidate | None:
        """The strongest of ``count`` candidates, the weakest first, that keeps what must stay and leaves less than the
        best one so far; None if none does. What must stay is asked only of those that leave less."""
        least = 0 if best is None else _first(count, lambda place: self._may_beat(at(place), best))
        if least == count or (least and not self.keeps(at(least))):
            return None
        too_much = least + _first(count - least, lambda place: not self.keeps(at(least + place)))
        return at(too_much - 1) if too_much > least else None

    def _may_beat(self, candidate: Candidate, best: Candidate | None) -> bool:
        """Whether a candidate forgets enough to be better, if it keeps what must stay."""
        return best is None or self.forgets(candidate) or self._left(candidate) < self._left(best)

    def _parts(self, path: Path) -> list[Candidate]:
        """The edit of all directions of a path at parts of its strength, the weakest first; nothing of other paths."""
        if not self._is_gentle or not isinstance(path, DirectionsPath):
            return []
        if path not in self._weaker:
            last, weaker = path.doses[-1], [path.weakened(share) for share in WEAKER]
            self._weaker[path] = [Candidate(one.edit(last), last, one) for one in weaker]
        return self._weaker[path]

    def _tell(self, candidate: Candidate | None) -> Candidate | None:
        """The same candidate, which is among those that were tried from now on."""
        if candidate is not None and all(one is not candidate for one in self.candidates):
            self.candidates.append(candidate)
        return candidate

    def _at(self, path: Path, place: int) -> Candidate:
        """The candidate at a place of a path, one for each dose."""
        dose = path.doses[place]
        for one in self.candidates:
            if one.path is path and one.dose == dose:
                return one
        self.candidates.append(Candidate(path.edit(dose), dose, path))
        return self.candidates[-1]

    def _needed(self, path: DirectionsPath, candidate: Candidate) -> DirectionsPath:
        """The path of the directions without which less would be forgotten than by a candidate of another path."""
        answered, left = self._left(candidate)
        forgotten = FORGOTTEN * self._before()
        most = forgotten if left <= forgotten else SLACK * left
        enough = NoLess(self._scorer, candidate.scores, answered, most)
        assert candidate.dose is not None
        thin = path.needed(candidate.dose, enough, tries(self._questions))
        if thin.doses[-1] == candidate.dose:
            candidate.path = thin  # all are needed: it is the same edit
        return thin

    def weakest(self, path: Path) -> Candidate:
        """The weakest edit of a path, whatever it keeps."""
        return self._complete(self._at(path, 0))

    def forgetting(self) -> Candidate | None:
        """Of the edits that forget everything and no more than that, the one that keeps most; None if no path has one.

        Only paths that :meth:`choose` or :meth:`kept` has followed are looked at.
        """
        ends = [self._at(path, last) for path, last in self._ends.values() if last >= 0]
        complete = [self._complete(one) for one in ends if self.forgets(one)]
        return max(complete, key=Candidate.most, default=None)

    def judge(self, edit: Edit) -> Candidate:
        """Score one edit on everything."""
        candidate = Candidate(edit, None)
        self.candidates.append(candidate)
        return self._complete(candidate)

    def forgets(self, candidate: Candidate) -> bool:
        """Whether no forget question is answered and little is left of the probability of their answers."""
        self._score(candidate, FORGETTING)
        return not candidate.answered() and candidate.left() <= FORGOTTEN * self._before()

    def keeps(self, candidate: Candidate) -> bool:
        """Whether it keeps what must stay; retain questions are asked only if it keeps plain text."""
        return self._keeps_text(candidate) and self._keeps_questions(candidate)

    def _keeps_text(self, candidate: Candidate) -> bool:
        if TEXT in self._must_stay:
            self._score(candidate, (TEXT,))
            candidate.kept[TEXT] = share_of_text(self.original[TEXT], candidate.scores[TEXT])
        return candidate.keeps(self._keep)

    def _keeps_questions(self, candidate: Candidate) -> bool:
        questions = [name for name in self._must_stay if name != TEXT]
        self._score(candidate, questions)
        for name in questions:
            self._share(candidate, name)
        if questions:
            before, after = (
                Score.joined([scores[name] for name in questions]) for scores in (self.original, candidate.scores)
            )
            candidate.kept[ALL_HELD_OUT] = share_of_answers(before, after)
            candidate.chosen_first = sum(after.answered) / sum(before.answered) if any(before.answered) else 1.0
        return candidate.keeps(self._keep)

    def _share(self, candidate: Candidate, name: str) -> Share:
        """What is left of a source of questions."""
        self._score(candidate, [name])
        candidate.kept[name] = share_of_answers(self.original[name], candidate.scores[name])
        return candidate.kept[name]

    def _complete(self, candidate: Candidate) -> Candidate:
        """The candidate with all its scores, whatever it keeps."""
        self._score(candidate, self._scorer.splits)
        self._keeps_text(candidate)
        self._keeps_questions(candidate)
        return candidate

    def _score(self, candidate: Candidate, names: Iterable[str]) -> None:
        missing = [name for name in names if name in self._scorer.splits and name not in candidate.scores]
        if not missing or candidate.edit is None:
            return
        candidate.scores |= self._scorer.scores(candidate.edit, missing)


def tries(questions: int) -> int:
    """How often directions are left out at most, by the number of forget questions."""
    return min(MOST_TRIES, THINNING // questions)


def _first(count: int, holds: Callable[[int], bool]) -> int:
    """The first of ``count`` places at which a condition holds that holds from some place on; ``count`` if nowhere."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
