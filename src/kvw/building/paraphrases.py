"""Further phrasings of questions about facts, written by another model, which is told no name and no answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from kvw.building.phrasings import FIELD, Phrasings
from kvw.errors import UserError
from kvw.folding import collapsed

WANTED = 6
"""Paraphrases of each question that are asked for."""
TOKENS_EACH = 60
"""Longest answer, in tokens for each paraphrase."""
LONGEST = 200
"""Characters of a line that may be a question."""
ASKED = (
    "Write {count} other ways to ask this question, one on each line and nothing else. Keep {{name}} as it is, with "
    "its braces: it stands for a name.\n\n{question}"
)
_MARK = re.compile(r"^\s*(?:[-*\u2022]|\(?\d+[.):])?\s*[\"'\u201c]?(.*?)[\"'\u201d]?\s*$")
"""A line without what lists put before it, and without quotation marks around it."""
Ask = Callable[[Sequence[str]], Sequence[str]]
"""From prompts to replies; a reply is empty where there is none."""


def paraphrased(words: Phrasings, facts: Sequence[str], ask: Ask) -> tuple[Phrasings, dict[str, int]]:
    """Phrasings with paraphrases of the first question about each fact behind those that are there.

    Args:
        words: The phrasings.
        facts: What is asked about the subjects: columns of the table.
        ask: Asks a model.

    Returns:
        The phrasings, and how many paraphrases each fact has got. A line is taken if it has ``{name}`` once, no other
        field, and is not there already.

    Raises:
        UserError: No line of any reply can be taken.
    """
    firsts = {fact: _about(fact, words.of(fact).questions[0]) for fact in facts}
    replies = ask([ASKED.format(count=WANTED, question=question) for question in firsts.values()])
    wordings, counts = dict(words.facts), dict[str, int]()
    for fact, reply in zip(firsts, replies, strict=True):
        wording = words.of(fact)
        new = _usable(reply, [_about(fact, question) for question in wording.questions])
        counts[fact] = len(new)
        wordings[fact] = wording.model_copy(update={"questions": (*wording.questions, *new)})
    if facts and not any(counts.values()):
        first = next((line for reply in replies for line in reply.splitlines() if line.strip()), "nothing")
        raise UserError(
            "The server has written no paraphrase that can be used.",
            found=first[:LONGEST],
            do="ask another model: each line must be a question with {name} in it",
        )
    return words.model_copy(update={"facts": wordings}), counts


def _about(fact: str, question: str) -> str:
    return FIELD.sub(lambda field: fact if field[1] == "fact" else field[0], question)


def _usable(reply: str, there: Sequence[str]) -> list[str]:
    """The lines of a reply that are new questions about ``{name}``, at most as many as were asked for."""
    known, found = {collapsed(question) for question in there}, list[str]()
    for line in reply.splitlines():
        match = _MARK.match(line)
        question = match[1] if match else ""
        fields = FIELD.findall(question)
        if fields == ["name"] and len(question) <= LONGEST and collapsed(question) not in known:
            known.add(collapsed(question))
            found.append(question)
    return found[:WANTED]
