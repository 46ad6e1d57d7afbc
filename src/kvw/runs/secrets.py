"""``kvw secrets build``: a store of what must not be asked, with floors calibrated on a retain set."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from kvw.data import Example, ImageSource
from kvw.errors import UserError
from kvw.folding import words
from kvw.serving.secrets import Mode, Pictures, Store, floor_of, hashed, picture_score
from kvw.strict import Strict

Read = Callable[[ImageSource], Sequence[float]]
Scored = TypeVar("Scored")


class Fired(Strict):
    """How often a kind of evidence catches questions, or pictures: shares of each set."""

    entries: int
    floor: float
    forget: float
    retain: float
    """Of the half of the retain set that the floor was not taken from."""
    told_apart: float
    """Probability that a forget score is above a retain score of that half (AUC)."""


class SecretsReport(Strict):
    """What a store catches."""

    text: Fired
    pictures: Fired | None = None
    not_by_text: int
    """Forget questions with no word that the retain set lacks: nothing in them says that they are secret."""


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
    """Make a store from a forget set, and find the floors on every second example of the retain set.

    Args:
        forget: What must not be asked; the subjects and questions become entries, the answers do not.
        retain: What must be answered.
        rate: The share of the retain set that may be caught by mistake.
        mode: See :class:`~kvw.serving.secrets.Store`.
        read: Reads pictures; None leaves them out.
        model: SHA-256 over the weights that ``read`` is of.
        salt: Of the hashes; drawn if it is empty.

    Raises:
        UserError: A set is empty, or the retain set has one example only.
    """
    if not forget or len(retain) < 2:
        raise UserError("A store needs a forget set, and a retain set of two questions or more.", do="give both")
    salt = salt or secrets.token_hex(16)
    known = Counter(hashed(word, salt) for one in retain for word in set(words(one.asked)))
    empty = Store(salt=salt, asked=len(retain), known=dict(sorted(known.items())), entries=(), floor=1.0, mode=mode)
    texts = sorted({text for one in forget for text in _texts(one)})
    told = [text for text in texts if any(hashed(word, salt) not in known for word in words(text))]
    store = empty.model_copy(update={"entries": tuple(empty.terms(text) for text in told)})
    asked = [[store.score(one.asked) for one in kept] for kept in (forget, retain[::2], retain[1::2])]
    store = store.model_copy(update={"floor": floor_of(asked[1], rate)})
    hidden = sum(all(hashed(word, salt) in known for word in words(one.asked)) for one in forget)
    report = SecretsReport(text=_fired(len(told), store.floor, asked), not_by_text=hidden)
    if read is None or not any(one.images for one in forget):
        return store, report
    pictures, fired = _pictures(forget, retain, rate, read, model)
    return store.model_copy(update={"pictures": pictures}), report.model_copy(update={"pictures": fired})


def _texts(example: Example) -> list[str]:
    """The subject alone, and with the question; the question alone if there is no subject."""
    subject = example.subject
    return [example.asked] if subject is None else [subject, f"{subject} {example.asked}"]


def _pictures(
    forget: Sequence[Example], retain: Sequence[Example], rate: float, read: Read, model: str
) -> tuple[Pictures, Fired]:
    features = [[read(one) for one in sorted({*_images(some)}, key=repr)] for some in (retain[::2], retain[1::2])]
    if not features[0] or not features[1]:
        raise UserError(
            "The floor of pictures needs pictures that must not be caught.",
            found="a retain set without them",
            do="give --retain questions with pictures, or leave --model out",
        )
    mean = [sum(column) / len(column) for column in zip(*features[0], strict=True)]
    by_subject: dict[str, list[Sequence[float]]] = {}
    for one in forget:
        for image in one.images:
            by_subject.setdefault(one.subject_key or one.identifier, []).append(read(image))
    entries = [_direction([_less(one, mean) for one in found]) for found in by_subject.values()]
    pictures = Pictures(model=model, mean=tuple(mean), entries=tuple(entries), floor=1.0)
    own = [one for found in by_subject.values() for one in found]
    scores = [[picture_score(pictures, one) for one in some] for some in (own, *features)]
    pictures = pictures.model_copy(update={"floor": floor_of(scores[1], rate)})
    return pictures, _fired(len(entries), pictures.floor, scores)


def _fired(entries: int, floor: float, scores: Sequence[Sequence[float]]) -> Fired:
    """From the scores of the forget set, and of the halves of the retain set."""
    forget, _, rest = scores
    above = sum((a > b) + (a == b) / 2 for a in forget for b in rest) / (len(forget) * len(rest))
    reached = [sum(score >= floor for score in some) / len(some) if entries else 0.0 for some in (forget, rest)]
    return Fired(entries=entries, floor=floor, forget=reached[0], retain=reached[1], told_apart=above)


def _images(examples: Sequence[Example]) -> list[ImageSource]:
    return [image for one in examples for image in one.images]


def _less(feature: Sequence[float], mean: Sequence[float]) -> list[float]:
    return [value - middle for value, middle in zip(feature, mean, strict=True)]


def _direction(features: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean of features, of length 1."""
    mean = [sum(column) / len(features) for column in zip(*features, strict=True)]
    length = sum(value * value for value in mean) ** 0.5 or 1.0
    return tuple(value / length for value in mean)
