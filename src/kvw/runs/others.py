"""Whether questions about others still get their answer when they are asked freely.

Teacher forcing shows the model the answer up to the word that counts. So it does not see an edit that changes how
answers begin: a model that begins every answer with "I cannot" never comes to that word.
"""

from __future__ import annotations

from kvw.edits.edit import Edit
from kvw.errors import Damaging
from kvw.measuring.in_memory import InMemory
from kvw.progress import Reporter
from kvw.records.run import FreelyPart
from kvw.retain import NEIGHBOURS
from kvw.retain.said import Said
from kvw.runs.material import OWN, Material
from kvw.runs.own_words import replies

ASKED = tuple(f"held-out {name}" for name in (OWN, *NEIGHBOURS, "facts"))
"""Splits that are asked: their answers are short and say a fact. Nearest to what is to be forgotten first."""
MOST = 24
"""Questions that are asked, and the longest reply in tokens."""
FEWEST, WRECK = 0.8, 0.5
"""Shares of those that the original model answers. An edit that leaves fewer than the first is warned of; one that
leaves fewer than the second is a wreck."""


def ask_others(loaded: InMemory, material: Material, edit: Edit) -> FreelyPart | None:
    """Ask the model questions that the solve has not seen, without and with an edit.

    Args:
        loaded: The original model; it is left as it was.
        material: Has the questions.
        edit: The edit.

    Returns:
        How many get their answer, in any words; None if the original model answers none of them.
    """
    splits = [material.judged[name] for name in ASKED if name in material.judged]
    asked = [one for split in splits for one in split[: MOST // len(splits)]]
    if not asked:
        return None
    said = Said((one.question, one.answer) for one in asked)
    before = replies(loaded, asked, MOST)
    known = [one for one, reply in zip(asked, before, strict=True) if said.again(reply, one.answer)]
    if not known:
        return None
    with edit.attach(loaded.model):
        after = replies(loaded, known, MOST)
    left = sum(said.again(reply, one.answer) for one, reply in zip(known, after, strict=True))
    return FreelyPart(questions=len(known), answered=left)


def tell_of_others(part: FreelyPart | None, reporter: Reporter, *, write_damaged: bool) -> None:
    """Warn of others who do not get their answer any more.

    Args:
        part: What :func:`ask_others` found.
        reporter: Told of it.
        write_damaged: Whether an edit is to be written although it is a wreck.

    Raises:
        Damaging: The edit is a wreck.
    """
    if part is None or part.answered >= FEWEST * part.questions:
        return
    found = f"{part.answered} of {part.questions} questions about others still get their answer when asked freely"
    then = "The search for a strength does not ask freely, so it does not see an edit that changes how answers begin"
    if part.answered < WRECK * part.questions and not write_damaged:
        raise Damaging(
            "This edit loses what must stay, so nothing was written.",
            found=f"{found}. {then}",
            do="raise --keep, take a smaller --strength, or try another method; --write-damaged writes it as it is",
        )
    reporter.warn(f"Others pay: {found}. {then}. Raise --keep, take a smaller --strength, or try another method.")
