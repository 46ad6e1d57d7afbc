"""A store of what a model must not be asked, and what becomes of a conversation that asks for it."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from kvw.errors import UserError
from kvw.files import explained, write_text
from kvw.folding import words
from kvw.strict import Strict

if TYPE_CHECKING:
    from kvw.data import ImageSource
    from kvw.serving.conversation import Conversation

FORMAT = "kvw secrets 1"
CLAUSE = (
    "What follows asks about something confidential. Nothing about it may be told, confirmed or hinted at, whatever "
    "reason is given. Say only that you cannot say anything about it."
)
"""Put before a question that is caught; it names nothing."""
REFUSAL = "I cannot say anything about that."
Mode = Literal["instruct", "refuse"]
Terms = dict[str, float]
"""Weights by the hash of a word; the sum of their squares is 1."""
Features = Callable[["ImageSource"], Sequence[float]]
"""What a model's vision tower makes of a picture."""


class Pictures(Strict):
    """The pictures of a store.

    Attributes:
        model: SHA-256 over the weights whose vision tower made the features.
        mean: Of the features of the retain set's pictures; subtracted from each.
        entries: For each subject the mean of its pictures' features, of length 1.
        floor: A picture with a cosine of this or more to an entry is caught.
    """

    model: str
    mean: tuple[float, ...]
    entries: tuple[tuple[float, ...], ...]
    floor: float


class Store(Strict):
    """What is looked for in questions, as salted hashes of words.

    Attributes:
        salt: Of the hashes; whoever has the store can find out whether it holds a word, by trying it.
        asked: Questions of the retain set that the weights come from.
        known: For the hash of each of their words how many hold it.
        entries: One for each subject, and one for each question about it.
        floor: A question that holds this share of an entry, or more, is caught.
        mode: ``instruct`` puts a clause before the question; ``refuse`` answers in the model's place.
        pictures: None if the store has none.
    """

    format: str = FORMAT
    salt: str
    asked: int
    known: dict[str, int]
    entries: tuple[Terms, ...]
    floor: float
    mode: Mode = "instruct"
    pictures: Pictures | None = None

    def terms(self, text: str) -> Terms:
        """The words of a text, weighted by how rare they are in the retain set; empty if it has no rare ones."""
        counts = Counter(hashed(word, self.salt) for word in words(text))
        weights = {
            term: count * math.log((self.asked + 1) / (self.known.get(term, 0) + 1)) for term, count in counts.items()
        }
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        return {term: weight / length for term, weight in weights.items()} if length else {}

    def score(self, text: str, but: Terms | None = None) -> float:
        """The largest share of an entry's squared weight that a text holds, whatever else it holds; 0 to 1.

        Args:
            text: What is asked.
            but: An entry that does not count.
        """
        mine = {hashed(word, self.salt) for word in words(text)}
        entries = (one for one in self.entries if one != but)
        shares = (math.fsum(weight**2 for term, weight in one.items() if term in mine) for one in entries)
        return max(shares, default=0.0)

    def catches(self, text: str) -> bool:
        """Whether a question reaches the floor."""
        return bool(self.entries) and self.score(text) >= self.floor

    def sees(self, feature: Sequence[float]) -> bool:
        """Whether a picture reaches the floor of pictures."""
        return self.pictures is not None and picture_score(self.pictures, feature) >= self.pictures.floor


def hashed(word: str, salt: str) -> str:
    """How a store writes a word."""
    return hashlib.sha256(f"{salt} {word}".encode()).hexdigest()[:16]


def picture_score(pictures: Pictures, feature: Sequence[float]) -> float:
    """The largest cosine of a picture's feature, less the mean, to an entry."""
    centred = [value - middle for value, middle in zip(feature, pictures.mean, strict=True)]
    length = math.sqrt(math.fsum(value * value for value in centred)) or 1.0
    return max(
        (math.fsum(a * b for a, b in zip(centred, entry, strict=True)) / length for entry in pictures.entries),
        default=-1.0,
    )


class Guard:
    """Puts a store in front of a model.

    Args:
        store: What is looked for.
        features: Reads pictures; None if the store or the model has none.
    """

    def __init__(self, store: Store, features: Features | None = None) -> None:
        self.store, self._features = store, features

    def caught(self, conversation: Conversation) -> bool:
        """Whether any turn of the user, or any picture, reaches its floor."""
        said = [
            " ".join(part["text"] for part in message["content"] if part["type"] == "text")
            for message in conversation.messages
            if message["role"] == "user"
        ]
        return self.catches([*said, " ".join(said)], conversation.images)

    def catches(self, texts: Sequence[str], images: Sequence[ImageSource] = ()) -> bool:
        """Whether any text or picture reaches its floor."""
        if any(map(self.store.catches, texts)):
            return True
        return self._features is not None and any(self.store.sees(self._features(one)) for one in images)

    def instructed(self, conversation: Conversation) -> Conversation:
        """The conversation with the clause before the last question."""
        *earlier, last = conversation.messages
        parts = [dict(part) for part in last["content"]]
        place = next((number for number, part in enumerate(parts) if part["type"] == "text"), None)
        if place is None:
            parts.append({"type": "text", "text": CLAUSE})
        else:
            parts[place]["text"] = f"{CLAUSE}\n\n{parts[place]['text']}"
        return replace(conversation, messages=[*earlier, {**last, "content": parts}])


def read_store(path: Path) -> Store:
    """Read a store.

    Raises:
        UserError: It cannot be read, is none, or was changed since it was written.
    """
    with explained(path):
        content = path.read_bytes()
    try:
        stated = json.loads(content)
        body = stated["store"]
        if stated["sha256"] != _digest(body):
            raise UserError(f"{path} is damaged.", found="another SHA-256", do="build it again: kvw secrets build")
        store = Store.model_validate(body)
        if store.format != FORMAT:
            raise ValueError(f"format {store.format!r}")
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} is no store of secrets.", found=first, do="make one: kvw secrets build") from error
    return store


def write_store(store: Store, path: Path) -> None:
    """Write a store, for its owner only.

    Raises:
        UserError: The place cannot be written.
    """
    body = store.model_dump(mode="json")
    write_text(path, json.dumps({"sha256": _digest(body), "store": body}) + "\n")


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
