"""The attacks of an audit by name; importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.errors import UserError
from kvw.known import known


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: Name of the option.
        title: What is done.
        kind: ``reply``: other prompts, judged by the replies; ``weights``: the model is changed and then asked as it
            was; the others are measured in a way of their own.
    """

    name: str
    title: str
    kind: str


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("asked", "asked as it was", "reply"),
        Attack("forced", "first choice word by word, teacher-forced", "scores"),
        Attack("rephrased", "asked in other words", "reply"),
        Attack("name", "only the subject is named", "reply"),
        Attack("noise", "meaningless prefixes", "reply"),
        Attack("jailbreak", "talked into answering", "reply"),
        Attack("hints", "first letter and length of the answer", "reply"),
        Attack("context", "other facts before the question", "reply"),
        Attack("choice", "the most probable of up to four answers", "scores"),
        Attack("samples", "many answers drawn at temperature 1", "samples"),
        Attack("lens-hp", "logit lens, head projection", "lens"),
        Attack("lens-pd", "logit lens, first differences", "lens"),
        Attack("lens-pd2", "logit lens, second differences", "lens"),
        Attack("membership", "Min-K++ beside subjects that do not exist", "scores"),
        Attack("photo", "the photo is changed", "reply"),
        Attack("bf16", "weights rounded to bfloat16", "weights"),
        Attack("int8", "weights rounded to 8 bits, groups of 128", "weights"),
        Attack("int4", "weights rounded to 4 bits, groups of 128", "weights"),
        Attack("relearn-retain", "trained on the retain set", "weights"),
        Attack("relearn-forget", "trained on half of the subjects, asked about the other half", "weights"),
    )
}
RELEARNING = ("relearn-retain", "relearn-forget")


def parse_attacks(text: str) -> tuple[str, ...]:
    """The names in ``--attacks``, in the order of :data:`ATTACKS`.

    Raises:
        UserError: There is no such attack (the message names the closest), or none is named.
    """
    names = [known(name.strip(), ATTACKS, "attack") for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("No attack is named.", found=repr(text), do=f"name some of {', '.join(ATTACKS)}")
    return in_order(names)


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Each once, in the order of :data:`ATTACKS`."""
    return tuple(name for name in ATTACKS if name in names)
