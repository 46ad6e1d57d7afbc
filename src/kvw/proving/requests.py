"""Requests that a user could make: what to forget, what to keep, and what neither file names."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Literal, get_args

from kvw.data import Example
from kvw.data.example import ImageSource
from kvw.errors import UserError
from kvw.files import write_bytes, write_text
from kvw.folding import collapsed
from kvw.models.checkpoint import Checkpoint
from kvw.progress import Reporter
from kvw.proving.facts import Fact, is_given

Half = Literal["choosing", "reporting"]
HALVES: tuple[Half, ...] = get_args(Half)
"""Defaults are chosen by the requests of the one half and reported on those of the other."""
PLAN = {10: 3, 3: 6, 1: 24}
"""How many requests of how many subjects each half has."""
RETAINED, UNUSED = 24, 60
"""Subjects of the retain set, and subjects that neither set names."""


@dataclass(frozen=True)
class Request:
    """One request.

    Args:
        half: Its half.
        number: Its place there, from 0.
        subjects: Whom or what to forget.
        splits: Examples by split. ``forget``: facts about the subjects; ``held_out``: the same, asked in other ways;
            ``retain``: facts about others whom the user names; ``unused``: facts about subjects that are in neither,
            in ways of both kinds; ``floor``: the answers of the forget set to questions about subjects that do not
            exist. Each example has the fact in its metadata.
    """

    half: Half
    number: int
    subjects: tuple[str, ...]
    splits: dict[str, list[Example]]

    @property
    def name(self) -> str:
        """Its folder below the one of its half."""
        return f"{self.number:02d}"

    def write(self, folder: Path) -> dict[str, Path]:
        """Write every split as a JSON Lines file with a question, an answer, a subject and its images in each row.

        Returns:
            The files by split.

        Raises:
            UserError: They cannot be written.
        """
        files = {split: folder / f"{split}.jsonl" for split in self.splits}
        for split, file in files.items():
            rows = [_row(one, folder) for one in self.splits[split]]
            write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return files


@dataclass(frozen=True)
class Part:
    """A part of the proving ground: requests to one model.

    Args:
        name: What the command line calls it.
        model: The MODEL that it asks if no other is named.
        requests: The requests of a half, for a model.
        gold: For each half the MODEL that has never seen what its requests forget; empty if there can be none.
    """

    name: str
    model: str
    requests: Callable[[Half, Checkpoint, Reporter], list[Request]]
    gold: Mapping[Half, str] = field(default_factory=dict)


def make_requests(known: Sequence[Fact], half: Half, plan: dict[int, int] = PLAN) -> list[Request]:
    """All requests of one half; equal facts give equal requests.

    Every second subject belongs to ``choosing``, the others to ``reporting``; no subject is forgotten in two requests.
    A request of several subjects takes them from one kind of fact and from many by turns. All that is known about a
    subject is forgotten.

    Args:
        known: Facts that the model knows.
        half: Which half.
        plan: How many requests of how many subjects.

    Raises:
        UserError: The model knows too few facts.
    """
    pools = _pools(known, half)
    needed, there = sum(size * count for size, count in plan.items()), sum(map(len, pools.values()))
    if there < needed:
        raise UserError(
            "The model knows too few of the facts for requests to be made of them.",
            found=f"{there} subjects in this half, where {needed} are needed",
            do="take a model that knows more of the world",
        )
    used: Counter[str] = Counter()
    drawn: list[tuple[int, int, list[str]]] = []
    for size, count in plan.items():
        drawn += [(place, size, _draw(pools, used, size, place)) for place in range(count)]
    drawn.sort(key=lambda one: one[:2])  # so that the first few requests are of all sizes
    return [_request(known, half, number, subjects) for number, (_, _, subjects) in enumerate(drawn)]


def _row(example: Example, folder: Path) -> dict[str, Any]:
    images = {"images": [str(_file(image, folder)) for image in example.images]} if example.images else {}
    return {"question": example.question, "answer": example.answer, **images, **example.metadata}


def _file(image: ImageSource, folder: Path) -> Path:
    """Where an image is; one that is not a file becomes one in the folder."""
    if isinstance(image, Path):
        return image.resolve()
    file = folder / "images" / hashlib.sha256(image).hexdigest()[:16]
    write_bytes(file, image)
    return file.resolve()


def _pools(known: Sequence[Fact], half: Half) -> dict[str, list[str]]:
    """The subjects of a half by the kind of the first fact about them."""
    home: dict[str, str] = {}
    for fact in known:
        home.setdefault(fact.subject, fact.domain.name)
    kinds = list(dict.fromkeys(home.values()))
    ordered = sorted(home, key=lambda subject: (kinds.index(home[subject]), ordering(subject)))
    pools: dict[str, list[str]] = {kind: [] for kind in kinds}
    for subject in ordered[HALVES.index(half) :: len(HALVES)]:
        pools[home[subject]].append(subject)
    return pools


def _draw(pools: dict[str, list[str]], used: Counter[str], size: int, place: int) -> list[str]:
    """Take subjects out of the pools: even requests of one kind where a kind has enough, odd ones of several."""
    large = [kind for kind, left in pools.items() if len(left) >= size]
    if place % 2 == 0 and large:
        kinds = [min(large, key=lambda kind: (used[kind], -len(pools[kind])))] * size
    else:
        kinds = _turns(pools, used, size)
    used.update(set(kinds))
    return [pools[kind].pop(0) for kind in kinds]


def _turns(pools: dict[str, list[str]], used: Counter[str], size: int) -> list[str]:
    left = {kind: len(subjects) for kind, subjects in pools.items()}
    turns: list[str] = []
    for _ in range(size):
        kind = min((one for one in left if left[one]), key=lambda one: (turns.count(one), used[one], -left[one]))
        left[kind] -= 1
        turns.append(kind)
    return turns


def _request(known: Sequence[Fact], half: Half, number: int, subjects: Sequence[str]) -> Request:
    keys = {collapsed(subject) for subject in subjects}
    forget = [fact for fact in known if collapsed(fact.subject) in keys]
    others = sorted(
        (fact for fact in known if not any(_related(fact, one) for one in forget)),
        key=lambda fact: ordering(*sorted(subjects), fact.domain.name, fact.subject),
    )
    kinds = list(dict.fromkeys(fact.domain.name for fact in forget))
    same = [[fact for fact in others if fact.domain.name == kind] for kind in kinds]
    other = [fact for fact in others if fact.domain.name not in kinds]
    taken: set[str] = set()
    # The user names half of what there is of the same kinds at most, so that some of each kind is in neither set.
    retain = _of_others(chain(_by_turns([facts[::2] for facts in same]), other[::2]), RETAINED, taken)
    near = _of_others(_by_turns([facts[1::2] for facts in same]), UNUSED // 2, taken)
    unused = near + _of_others(other[1::2], UNUSED - len(near), taken)
    return Request(
        half,
        number,
        tuple(subjects),
        {
            "forget": [one for fact in forget for one in fact.examples(fact.domain.asked)],
            "held_out": [one for fact in forget for one in fact.examples(fact.domain.held_out)],
            "retain": [one for fact in retain for one in fact.examples(fact.domain.asked)],
            "unused": [one for place, fact in enumerate(unused) for one in _two_ways(fact, place)],
            "floor": [one for place, fact in enumerate(forget) for one in about_nothing(fact, place)],
        },
    )


def _related(fact: Fact, forgotten: Fact) -> bool:
    """Whether one of two facts names the subject or the answer of the other: nobody could say which set it is in."""
    pairs = ((fact, forgotten), (forgotten, fact))
    return any(is_given(one.subject, other.sentence) or is_given(one.name, other.sentence) for one, other in pairs)


def _of_others(facts: Iterable[Fact], count: int, taken: set[str]) -> list[Fact]:
    """The first ``count`` facts about subjects that are not taken; these are taken then."""
    found: list[Fact] = []
    for fact in facts:
        key = collapsed(fact.subject)
        if len(found) < count and key not in taken:
            taken.add(key)
            found.append(fact)
    return found


def _by_turns(lists: Sequence[Sequence[Fact]]) -> Iterator[Fact]:
    for row in zip_longest(*lists):
        yield from (fact for fact in row if fact is not None)


def _two_ways(fact: Fact, place: int) -> list[Example]:
    asked, held_out = fact.domain.asked, fact.domain.held_out
    return fact.examples((asked[place % len(asked)], held_out[place % len(held_out)]))


def about_nothing(fact: Fact, place: int) -> list[Example]:
    """Two questions for a fact, each about another subject that does not exist, with the answer of a fact that does.

    What a model gives these answers is what it gives an answer of the right kind that it cannot know.
    """
    asked, invented = fact.domain.asked, fact.domain.invented
    return [
        one
        for turn in (2 * place, 2 * place + 1)
        for one in Fact(fact.domain, invented[turn % len(invented)], fact.answer).examples([asked[turn % len(asked)]])
    ]


def ordering(*texts: str) -> str:
    """A text to sort by: an order that depends on nothing but these texts."""
    return hashlib.sha256("\0".join(texts).encode("utf-8")).hexdigest()
