"""From items to what a model is asked: the prompt, and exemplars that never come from the forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.data.benchmarks.choices import order_key
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.prompts import letter
from kvw.data.example import Example
from kvw.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """How questions are asked.

    Published scripts draw exemplars without a seed, and from the people that are evaluated, so from the forgotten
    as well. Here they come from another split and are fixed by the seed. ``exemplars="forget"`` has the published
    behaviour, except for the seed.

    Args:
        shots: How many exemplars precede a question, each about another subject.
        seed: Seed for the choice of exemplars.
        exemplars: The split they come from.
    """

    shots: int = 0
    seed: int = 0
    exemplars: str = "retain"

    @property
    def name(self) -> str:
        """How records name it."""
        if self.shots == 0:
            return "zero-shot"
        return f"{self.shots}-shot, exemplars from {self.exemplars}, seed {self.seed}"


ZERO_SHOT = Protocol()


def examples(data: BenchmarkData, split: str, task: str, protocol: Protocol = ZERO_SHOT) -> list[Example]:
    """Put the prompt, and the exemplars if there are any, around every item of a task.

    The images of exemplars precede the item's own, in the order of the exemplars.

    Args:
        data: The benchmark.
        split: Which split.
        task: Which of its tasks.
        protocol: How to ask.

    Returns:
        One example for each item, in order. The answer is the letter where the prompt asks for one. Metadata
        holds all that is known: subject, split, task, kind, modality, prompt, protocol, exemplars, and the
        options in the order in which they are shown.

    Raises:
        UserError: There is no such split or task, exemplars are not defined for it, or too few people are left.
    """
    asked = data.task(split, task)
    candidates = _candidates(data, asked, task, protocol)
    place = (data, split, task)
    return [_example(item, asked, place, protocol, _exemplars(item, candidates, protocol)) for item in asked.items]


def _candidates(data: BenchmarkData, asked: Task, task: str, protocol: Protocol) -> list[Item]:
    if protocol.shots == 0:
        return []
    if not asked.prompt.exemplar:
        raise UserError(
            f"{data.benchmark} does not define exemplars for {task}.",
            found=protocol.name,
            do="ask zero-shot",
        )
    forgotten = data.forget_subjects if protocol.exemplars != "forget" else frozenset()
    pool = [item for item in data.task(protocol.exemplars, task).items if item.subject not in forgotten]
    return sorted(pool, key=lambda item: order_key(protocol.seed, item.identifier))


def _exemplars(item: Item, candidates: Sequence[Item], protocol: Protocol) -> list[Item]:
    """The first candidates about others than the item's subject and than each other's."""
    chosen: list[Item] = []
    taken = {item.subject}
    for candidate in candidates:
        if len(chosen) == protocol.shots:
            break
        if candidate.subject not in taken:
            taken.add(candidate.subject)
            chosen.append(candidate)
    if len(chosen) < protocol.shots:
        raise UserError(
            f"{item.identifier}: there are not enough people to take exemplars from.",
            found=f"{len(chosen)} besides {item.subject} and the forgotten in {protocol.exemplars}",
            do="ask for fewer shots",
        )
    return chosen


def _example(
    item: Item, task: Task, place: tuple[BenchmarkData, str, str], protocol: Protocol, exemplars: Sequence[Item]
) -> Example:
    data, split, name = place
    shown = [task.prompt.show(one.question, one.choices, _reply(one, task)) for one in exemplars]
    metadata = {
        **item.metadata,
        "benchmark": data.benchmark,
        "setting": data.setting,
        "split": split,
        "task": name,
        "kind": task.kind,
        "modality": task.modality,
        "subject": item.subject,
        "prompt": task.prompt.name,
        "protocol": protocol.name,
        "exemplars": [one.identifier for one in exemplars],
        "choices": list(item.choices),
        "correct": item.correct,
    }
    return Example(
        question="".join(shown) + task.prompt.ask(item.question, item.choices),
        answer=_reply(item, task),
        images=tuple(image for one in [*exemplars, item] for image in one.images),
        identifier=f"{item.identifier} {name}",
        metadata=metadata,
    )


def _reply(item: Item, task: Task) -> str:
    if task.prompt.reply == "letter" and item.correct is not None:
        return letter(item.correct)
    return item.answer
