"""What a benchmark gives: items, the tasks they make up, and an account of every row that was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvw.data.benchmarks.prompts import Prompt
from kvw.data.example import Example, ImageSource
from kvw.known import known

Kind = Literal["generation", "choice", "cloze"]
Modality = Literal["image", "text"]


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, before a prompt is put around it.

    Args:
        question: What is asked.
        answer: The right answer as text; for a choice the text of the right option.
        subject: Whom or what it is about. Items of one subject are no independent samples, and never end up in
            different folds.
        identifier: Table, row and place in the row, for example ``forget_5:3 Mask_Task[2]``.
        images: Encoded bytes or files, decoded only when they are used.
        choices: The options in the order in which they are shown; empty for open questions.
        correct: The position of the right answer in ``choices``; absent for open questions.
        paraphrases: Other ways to say the right answer (for the truth ratio).
        perturbed: Wrong answers of the same form (for the truth ratio and the normalised probability).
        question_paraphrases: Other ways to ask.
        metadata: Whatever else is known; ``row`` is always there.
        plain: Question and answer are one running text, as in :attr:`kvw.data.Example.plain`.
    """

    question: str
    answer: str
    subject: str
    identifier: str
    images: tuple[ImageSource, ...] = ()
    choices: tuple[str, ...] = ()
    correct: int | None = None
    paraphrases: tuple[str, ...] = ()
    perturbed: tuple[str, ...] = ()
    question_paraphrases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False

    def example(self) -> Example:
        """The bare question and answer, as used for planting knowledge and for forgetting it."""
        metadata = {**self.metadata, "subject": self.subject}
        return Example(self.question, self.answer, self.images, self.identifier, metadata, plain=self.plain)


@dataclass(frozen=True)
class Task:
    """Items that are asked and scored in one way.

    Args:
        kind: What is done: an open answer, one of several options, or a blank to be filled.
        modality: Whether the question comes with an image.
        prompt: What is put around a question.
        metrics: What the benchmark's paper reports for it.
        max_new_tokens: How long a reply may be, as published.
        shots: How many exemplars the published protocol shows.
        items: The questions.
    """

    kind: Kind
    modality: Modality
    prompt: Prompt
    metrics: tuple[str, ...]
    max_new_tokens: int
    shots: int = 0
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """Something that was read and made no item.

    Args:
        where: Table, row and place in the row.
        purpose: The split and task it was read for; empty if the whole row is unusable.
        reason: Why.
    """

    where: str
    purpose: str
    reason: str


@dataclass(frozen=True)
class Account:
    """What became of one table: ``entries == items + len(unusable)``, and no row is without an entry.

    Args:
        table: Its name.
        rows: How many rows were read.
        outside: How many of them do not belong to the setting (say, people of another forget ratio).
        entries: How many questions the other rows hold; a row that holds none counts as one entry.
        items: How many of the entries became an item.
        unusable: The others.
    """

    table: str
    rows: int
    outside: int
    entries: int
    items: int
    unusable: tuple[Unusable, ...]


@dataclass(frozen=True)
class BenchmarkData:
    """A benchmark in one setting.

    Args:
        benchmark: Its name.
        setting: Which of its settings.
        splits: For evaluation: split, task, items.
        training: For planting and unlearning: ``forget``, ``retain``, what else was planted (``other``), and what
            is to be forgotten without being given to the method (``forget_unseen``), if there is any.
        accounts: One for each table that was read.
        published_folds: To which of two published folds (0 or 1) a subject belongs, where there are such folds;
            two values where a publication has put the subject into both.
        refusals: Answers that refuse, where the benchmark brings some.
    """

    benchmark: str
    setting: str
    splits: Mapping[str, Mapping[str, Task]]
    training: Mapping[str, tuple[Item, ...]]
    accounts: tuple[Account, ...]
    published_folds: Mapping[str, frozenset[int]] = field(default_factory=dict)
    refusals: tuple[str, ...] = ()

    @property
    def planted(self) -> tuple[Item, ...]:
        """What the model knows before unlearning: everything of ``training``."""
        return tuple(item for items in self.training.values() for item in items)

    @property
    def gold(self) -> tuple[Item, ...]:
        """What a model knows that has never seen the forget set."""
        return tuple(item for name, items in self.training.items() if not name.startswith("forget") for item in items)

    @property
    def forget_subjects(self) -> frozenset[str]:
        """Everyone in the forget set, be it for evaluation or for training."""
        evaluated = {item.subject for task in self.splits.get("forget", {}).values() for item in task.items}
        return frozenset(evaluated | {item.subject for item in self.training.get("forget", ())})

    @property
    def unusable(self) -> tuple[Unusable, ...]:
        """Everything that was read and could not be used, of all tables."""
        return tuple(one for account in self.accounts for one in account.unusable)

    def task(self, split: str, task: str) -> Task:
        """One task of one split.

        Raises:
            UserError: There is no such split, or no such task in it.
        """
        tasks = self.splits[known(split, self.splits, "split", self.benchmark)]
        return tasks[known(task, tasks, "task", f"{self.benchmark} / {split}")]
