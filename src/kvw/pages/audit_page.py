"""The page of one ``kvw audit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvw.pages.frame import Verdict, page
from kvw.records.audit import AuditRecord, Try

TOY = "toy:"
SHOWN = 3
"""Examples of each attack."""
MARKS = {"comes back": "forget", "holds": "keep", "says nothing": "unseen"}
"""Which of the frame's marks a verdict has."""


@dataclass(frozen=True)
class Example:
    """A question of an attack, before and now.

    Args:
        now: The try that found the answer, or the first one.
        before: What the original said to the same prompt; None if that is not known.
    """

    now: Try
    before: Try | None


def audit_page(record: AuditRecord, *, show_examples: bool = False) -> str:
    """The page of an audit.

    Args:
        record: Its ``audit.json``.
        show_examples: Whether questions and answers are shown. Those of the toy, who are made up, always are.

    Returns:
        One HTML file, see :func:`kvw.pages.frame.page`.
    """
    toy = record.model.name.startswith(TOY)
    examples = {line.attack: _examples(record.answers[line.attack]) for line in record.lines}
    return page(
        "audit.html",
        title=f"Report of kvw audit: {record.model.name}",
        verdict=_verdict(record),
        confidential=_confidential(shown=show_examples or toy, toy=toy),
        record=record,
        marks=MARKS,
        examples={name: one for name, one in examples.items() if one} if show_examples or toy else {},
    )


def _verdict(record: AuditRecord) -> Verdict:
    verdicts = {line.verdict for line in record.lines}
    if "comes back" in verdicts:
        return Verdict("bad", "Not forgotten", record.verdict)
    if "holds" in verdicts:
        return Verdict("part" if "says nothing" in verdicts else "good", "Holds", record.verdict)
    return Verdict("unknown", "Not known", record.verdict)


def _confidential(*, shown: bool, toy: bool) -> str:
    if toy:
        return "It shows questions and answers of the audit. Here the people are made up."
    if shown:
        return "It shows what was to be forgotten, in questions and answers. Do not publish it with the model."
    return "It names the files of the forget set. It shows no question and no answer."


def _examples(answers: Mapping[str, Sequence[Try]]) -> list[Example]:
    """Some tries of one attack: those that found the answer first, one for each question."""
    before = {(one.identifier, one.how, one.asked): one for one in answers.get("original", ())}
    ordered = sorted(answers["now"], key=lambda one: not one.found)
    chosen = {one.identifier: one for one in reversed(ordered) if one.reply is not None}
    first = [one for one in ordered if chosen.get(one.identifier) is one][:SHOWN]
    return [Example(one, before.get((one.identifier, one.how, one.asked))) for one in first]
