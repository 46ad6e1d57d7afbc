"""Multiple choice as MMLU has it: a list of options, and the number of the right one."""

from __future__ import annotations

from kvw.data.benchmarks.items import Item
from kvw.data.benchmarks.prompts import Prompt, lettered
from kvw.data.benchmarks.rows import Rejected, Row
from kvw.data.benchmarks.store import Columns

NUMBERED = Columns(("question", "choices", "answer"), ("subject", "task", "examples"))
FOUR_OPTIONS = Prompt(
    "letter of an option",
    "{question}\n{options}\nAnswer with the letter of the right option.",
    "options as in MMLU; a reply is read, where published scripts compare the likelihoods of the letters",
    show_options=lettered(". "),
    reply="letter",
)


def numbered_choice(row: Row, subject: str) -> Item:
    """The question of a row with the columns :data:`NUMBERED`, options in their order.

    Raises:
        Rejected: Two options are the same, or none has the number of the answer.
    """
    choices, correct = row.texts("choices"), row.values["answer"]
    if len(choices) != len(row.values["choices"] or [""]):
        raise Rejected("options are empty or the same")
    if isinstance(correct, bool) or not isinstance(correct, int) or not 0 <= correct < len(choices):
        raise Rejected(f"the answer {correct!r} is the number of none of {len(choices)} options")
    return Item(
        row.text("question"),
        choices[correct],
        subject,
        row.name,
        choices=choices,
        correct=correct,
        metadata=row.metadata(),
    )
