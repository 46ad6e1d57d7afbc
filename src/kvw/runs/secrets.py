"""``kvw secrets``: a store of what must not be asked, with floors that what must be answered does not reach."""

from __future__ import annotations

import math
import random
import secrets
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from kvw.data import Example, ImageSource
from kvw.data.images import image_digest
from kvw.errors import UserError
from kvw.folding import words
from kvw.percent import percent
from kvw.retain.everyday import everyday_questions
from kvw.retain.mentions import Mentions
from kvw.serving.floors import SURE, enough, floor_of, largest_share, raised
from kvw.serving.secrets import Guard, Mode, Pictures, Store, hashed, picture_score
from kvw.strict import Strict

if TYPE_CHECKING:
    from kvw.evaluation.loaded import Loaded

Read = Callable[[ImageSource], Sequence[float]]
Part = TypeVar("Part")
Made = TypeVar("Made", Store, Pictures)


class Fired(Strict):
    """How often a kind of evidence catches questions, or pictures: shares of each set."""

    entries: int
    floor: float
    forget: float
    """Each question looked up without the entry that is made from it, each picture without itself."""
    asked: int
    """Different retain questions, or pictures."""
    caught: int
    """Of these, each by a store that was made from the half of them that it is not in."""
    at_most: float
    """Share of others like them that may be caught; 95 % sure."""
    told_apart: float
    """Probability that a forget score is above a retain score of the other half (AUC)."""
    shipped: dict[str, float] = Field(default_factory=dict)
    """Caught of what needs no file: everyday questions, and the forget questions about others."""


class SecretsReport(Strict):
    """What a store catches."""

    text: Fired
    pictures: Fired | None = None
    not_by_text: int
    """Forget questions with no word that the retain set lacks: nothing in them says that they are secret."""
    warnings: list[str]


def build_store(
    forget: Sequence[Example],
    retain: Sequence[Example],
    *,
    rate: float = 0.01,
    mode: Mode = "instruct",
    read: Read | None = None,
    model: str = "",
    salt: str = "",
) -> tuple[Store, SecretsReport]:
    """Make a store from a forget set, and find the floors on what must be answered.

    The floor of questions is the highest of three: of the retain set (:func:`~kvw.serving.floors.floor_of`), of the
    shipped everyday questions, and of the forget questions about others, which are those without their subject's words.

    Args:
        forget: What must not be asked; the subjects and questions become entries, the answers do not.
        retain: What must be answered.
        rate: The share of questions like those of the retain set that may be caught by mistake.
        mode: See :class:`~kvw.serving.secrets.Store`.
        read: Reads pictures; None leaves them out.
        model: SHA-256 over the weights that ``read`` is of.
        salt: Of the hashes; drawn if it is empty.

    Raises:
        UserError: A set is empty, or the retain set does not have two different questions.
    """
    asked = list(dict.fromkeys(" ".join(words(one.asked)) for one in retain))
    if not forget or len(asked) < 2:
        raise UserError(
            "A store needs a forget set, and a retain set of two different questions or more.", do="give both"
        )
    texts = _Texts(forget, rate, salt or secrets.token_hex(16), mode)
    store = texts.store(asked)
    crossed = [_Crossed.of(texts.store(some), texts.own, Store.score, rest) for some, rest in _halves(asked)]
    fired = _fired(len(store.entries), store.floor, texts.own(store), crossed)
    fired = fired.model_copy(update={"shipped": texts.shipped(store)})
    told = _warnings("questions", fired, rate)
    report = SecretsReport(text=fired, not_by_text=texts.hidden(store), warnings=told)
    if read is None or not any(one.images for one in forget):
        return store, report
    pictures, seen = _pictures(forget, retain, rate, read, model)
    told = [*told, *_warnings("pictures", seen, rate)]
    report = report.model_copy(update={"pictures": seen, "warnings": told})
    return store.model_copy(update={"pictures": pictures}), report


class Caught(Strict):
    """What a store catches of one file."""

    file: str
    questions: int
    caught: int


class SecretsCheck(Strict):
    """What a store catches of files."""

    files: list[Caught]


def check_store(guard: Guard, files: Mapping[str, Sequence[Example]]) -> SecretsCheck:
    """Ask a store about questions, by their texts and, if it has eyes, their pictures.

    Args:
        guard: The store, as it stands in front of a model.
        files: Questions by the name of their file.
    """
    return SecretsCheck(
        files=[
            Caught(file=name, questions=len(asked), caught=sum(guard.catches([one.asked], one.images) for one in asked))
            for name, asked in files.items()
        ]
    )


def guard_of(store: Store, loaded: Loaded) -> Guard:
    """A store in front of a model; refused if its pictures were read by another one.

    Raises:
        UserError: They were.
    """
    if store.pictures is None:
        return Guard(store)
    if store.pictures.model != loaded.fingerprint:
        raise UserError(
            "The pictures of the store were read by another model.",
            found=f"weights with SHA-256 {store.pictures.model[:12]}, and not {loaded.fingerprint[:12]}",
            do="build it again with this model: kvw secrets build --model",
        )
    from kvw.evaluation.tower import tower_features

    return Guard(store, tower_features(loaded.model, loaded.processor))


class _Texts:
    """Makes stores of one forget set from several retain sets."""

    def __init__(self, forget: Sequence[Example], rate: float, salt: str, mode: Mode) -> None:
        self._forget, self._rate, self._salt, self._mode = forget, rate, salt, mode
        mentions = Mentions(forget)
        self._everyday = [one for one in everyday_questions() if not mentions.inside(Example(one, "?"))]
        self._others = sorted({text for one in forget if (text := _about_others(one))})

    def store(self, asked: Sequence[str]) -> Store:
        """The store whose weights and floor come from these retain questions."""
        known = Counter(hashed(word, self._salt) for text in asked for word in set(words(text)))
        empty = Store(
            salt=self._salt,
            asked=len(asked),
            known=dict(sorted(known.items())),
            entries=(),
            floor=1.0,
            mode=self._mode,
        )
        texts = sorted({text for one in self._forget for text in _texts(one)})
        entries = tuple(terms for text in texts if not known.keys() >= (terms := empty.terms(text)).keys())
        store = empty.model_copy(update={"entries": entries})
        own = self.own(store)
        kept = [[store.score(text) for text in some] for some in (asked, self._everyday)]
        floors = [floor_of(scores, own, self._rate) for scores in kept]
        if others := sorted(map(store.score, self._others), reverse=True):
            lowest = math.nextafter(others[int(self._rate * len(others))], math.inf)
            floors.append(raised(lowest, own))
        return store.model_copy(update={"floor": max(floors)})

    def own(self, store: Store) -> list[float]:
        """What the forget questions score, each without the entry that is made from it."""
        return [store.score(one.asked, but=store.terms(_texts(one)[-1])) for one in self._forget]

    def shipped(self, store: Store) -> dict[str, float]:
        """What is caught of questions that need no file."""
        named = {"everyday questions": self._everyday, "forget questions about others": self._others}
        return {name: sum(map(store.catches, some)) / len(some) for name, some in named.items() if some}

    def hidden(self, store: Store) -> int:
        """Forget questions with no word that the retain set lacks."""
        return sum(all(hashed(word, self._salt) in store.known for word in words(one.asked)) for one in self._forget)


def _texts(example: Example) -> list[str]:
    """The subject alone, and with the question; the question alone if there is no subject."""
    subject = example.subject
    return [example.asked] if subject is None else [subject, f"{subject} {example.asked}"]


def _about_others(example: Example) -> str:
    """A question without the words of its subject; empty if it does not name that."""
    subject, asked = words(example.subject or ""), words(example.asked)
    return " ".join(word for word in asked if word not in subject) if subject and {*subject} <= {*asked} else ""


@dataclass(frozen=True)
class _Crossed:
    """The scores of a forget set, and of the half of a retain set that had no part in a store."""

    own: Sequence[float]
    rest: Sequence[float]
    floor: float

    @classmethod
    def of(
        cls,
        made: Made,
        own: Callable[[Made], Sequence[float]],
        score: Callable[[Made, Part], float],
        rest: Sequence[Part],
    ) -> _Crossed:
        return cls(own(made), [score(made, one) for one in rest], made.floor)

    def told_apart(self) -> float:
        """AUC."""
        ranked = sorted(self.rest)
        below = sum(bisect_left(ranked, one) + bisect_right(ranked, one) for one in self.own)
        return below / 2 / len(ranked) / len(self.own)


def _halves(parts: Sequence[Part]) -> list[tuple[list[Part], list[Part]]]:
    """Two halves, in both orders; at random, but always the same."""
    shuffled = random.Random(0).sample(parts, len(parts))
    return [(shuffled[::2], shuffled[1::2]), (shuffled[1::2], shuffled[::2])]


def _fired(entries: int, floor: float, own: Sequence[float], crossed: Sequence[_Crossed]) -> Fired:
    asked = sum(len(one.rest) for one in crossed)
    caught = sum(score >= one.floor for one in crossed for score in one.rest) if entries else 0
    return Fired(
        entries=entries,
        floor=floor,
        forget=sum(score >= floor for score in own) / len(own) if entries else 0.0,
        asked=asked,
        caught=caught,
        at_most=largest_share(caught, asked),
        told_apart=fmean(one.told_apart() for one in crossed),
    )


def _warnings(name: str, fired: Fired, rate: float) -> list[str]:
    """Whether it can be said of retain questions, or pictures, that no more than the share is caught."""
    if fired.at_most <= rate:
        return []
    measured = f"{fired.caught} of {fired.asked} retain {name} are caught by a store made from the other half"
    if fired.caught > rate * fired.asked:
        return [
            f"{measured}: more than --false-fires {percent(rate)}. Name more {name} to --retain that are like the "
            "forget set and must be answered."
        ]
    few = enough(rate)
    do = f"; {few} of which none is caught would do" if few else ""
    return [
        f"{measured}, so that up to {fired.at_most:.1%} of others like them may be ({SURE:.0%} sure). That is no "
        f"promise of --false-fires {percent(rate)}: give --retain more {name}{do}."
    ]


class _Seen:
    """Makes the pictures of stores of one forget set from the pictures of several retain sets.

    Args:
        subjects: The features of each subject's pictures.
        rate: The share of pictures that may be caught by mistake.
        model: See :class:`~kvw.serving.secrets.Pictures`.
    """

    def __init__(self, subjects: Sequence[Sequence[Sequence[float]]], rate: float, model: str) -> None:
        self._subjects, self._rate, self._model = subjects, rate, model

    def pictures(self, features: Sequence[Sequence[float]]) -> Pictures:
        """Those whose mean and floor come from these retain pictures."""
        mean = tuple(sum(column) / len(column) for column in zip(*features, strict=True))
        entries = tuple(_direction(some, mean) for some in self._subjects)
        made = Pictures(model=self._model, mean=mean, entries=entries, floor=1.0)
        kept = [picture_score(made, one) for one in features]
        return made.model_copy(update={"floor": floor_of(kept, self.own(made), self._rate)})

    def own(self, pictures: Pictures) -> list[float]:
        """What the forget pictures score, each without itself if its subject has others."""
        found = []
        for number, some in enumerate(self._subjects):
            entries = list(pictures.entries)
            for place, one in enumerate(some):
                if len(some) > 1:
                    entries[number] = _direction([*some[:place], *some[place + 1 :]], pictures.mean)
                found.append(picture_score(pictures.model_copy(update={"entries": tuple(entries)}), one))
        return found


def _pictures(
    forget: Sequence[Example], retain: Sequence[Example], rate: float, read: Read, model: str
) -> tuple[Pictures, Fired]:
    kept = [read(one) for one in {image_digest(image): image for one in retain for image in one.images}.values()]
    if len(kept) < 2:
        raise UserError(
            "The floor of pictures needs pictures that must not be caught.",
            found=f"a retain set with {len(kept) or 'none'}",
            do="give --retain questions with pictures, two or more, or leave --model out",
        )
    by_subject: dict[str, dict[object, ImageSource]] = {}
    for one in forget:
        for image in one.images:
            by_subject.setdefault(one.subject_key or one.identifier, {})[image_digest(image)] = image
    seen = _Seen([[read(one) for one in images.values()] for images in by_subject.values()], rate, model)
    made = seen.pictures(kept)
    crossed = [_Crossed.of(seen.pictures(some), seen.own, picture_score, rest) for some, rest in _halves(kept)]
    return made, _fired(len(made.entries), made.floor, seen.own(made), crossed)


def _direction(features: Sequence[Sequence[float]], mean: Sequence[float]) -> tuple[float, ...]:
    """The mean of features, less that of the retain pictures, of length 1."""
    own = [sum(column) / len(features) - middle for *column, middle in zip(*features, mean, strict=True)]
    length = sum(value * value for value in own) ** 0.5 or 1.0
    return tuple(value / length for value in own)
