"""What is found of one fact in one model, kept as a file as soon as it is complete."""

from __future__ import annotations

from pathlib import Path

from kvw.bench.record import read_file
from kvw.files import write_text
from kvw.strict import Strict


class Hit(Strict):
    """One attack on one fact."""

    found: bool
    """Whether one of at most B tries has the answer; of the lens, whether the first token of it is a candidate."""
    share: float
    """Share of the tries, or of the tokens of the answer, that have it."""


class Finding(Strict):
    """One fact in one model."""

    key: str
    """Digest of all that it depends on."""
    fact: str
    attacks: dict[str, Hit]
    """By name; an attack that the data have no prompt for is absent."""
    likelihoods: dict[str, list[float]]
    """log p(answer | prompt) in nats: of ``question``, ``rephrased`` and ``image``; ``alternative`` is that of the
    wrong answer to the question."""
    others: dict[str, bool]
    """Other facts, and whether they are answered right."""
    neighbours: list[bool]
    """Whether each neighbouring question is answered right."""
    no_edit: str = ""
    """Why there is no edit; the rest is then of the original."""


def read_finding(path: Path, key: str) -> Finding | None:
    """What was found under the same conditions; None if there is nothing."""
    found = read_file(path, Finding) if path.is_file() else None
    return found if found is not None and found.key == key else None


def write_finding(path: Path, found: Finding) -> None:
    """Keep what was found."""
    write_text(path, found.model_dump_json(indent=1) + "\n")
