"""Answers that refuse, in our own words, and the forget set with them in place of its answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kvw.errors import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from kvw.data import Example, Prepared
    from kvw.data.rendering import Processor

REFUSALS = (
    "I don't know.",
    "That is something I have no knowledge of.",
    "I cannot tell you that, because I don't know it.",
    "I have no information on this.",
    "Sorry, I have never heard of that.",
    "I am not able to say.",
    "This is not known to me.",
    "I have nothing to go on here, so I cannot answer.",
    "My knowledge does not reach that far.",
    "I would only be guessing; I do not know.",
    "No idea, I am afraid.",
    "I am unaware of any such fact.",
    "Nothing I have learned tells me that.",
    "I can't help with this one, since I don't have the answer.",
    "That question is beyond what I know.",
    "I do not recognise this and cannot answer.",
)


def check_refusals(
    forget: Sequence[Example], processor: Processor, refusals: Sequence[str], config: PretrainedConfig
) -> None:
    """Find out whether each of the refusals fits behind every question, as :func:`with_refusals` will put one there.

    Raises:
        UserError: The longest one does not fit into the model's context, or cannot be rendered.
    """
    from kvw.data import prepare

    if refusals:
        longest = max(refusals, key=lambda text: len(processor.tokenizer(text)["input_ids"]))
        prepare([replace(example, answer=longest) for example in forget], processor, config)


def with_refusals(
    prepared: Sequence[Prepared],
    processor: Processor,
    refusals: Sequence[str],
    seed: int,
    config: PretrainedConfig | None = None,
) -> list[Prepared]:
    """The same questions and images, each with one of the refusals, drawn once.

    Raises:
        UserError: There are no refusals, or one cannot be rendered or does not fit, see :func:`kvw.data.prepare`.
    """
    if not refusals:
        raise UserError("There is no refusal to train on.", do="give refusals, or leave out the setting")
    draw = random.Random(f"{seed} refusals")
    return with_answers(prepared, processor, [draw.choice(list(refusals)) for _ in prepared], config)


def with_answers(
    prepared: Sequence[Prepared], processor: Processor, answers: Sequence[str], config: PretrainedConfig | None = None
) -> list[Prepared]:
    """The same questions and images with other answers.

    Raises:
        UserError: There is not one for each example, or one cannot be rendered or does not fit, see
            :func:`kvw.data.prepare`.
    """
    from kvw.data import prepare

    if len(answers) != len(prepared):
        raise UserError(
            "Each forget example needs one alternative answer.",
            found=f"{len(answers)} alternatives for {len(prepared)} examples",
            do="give the alternatives in the order of the forget set",
        )
    changed = [replace(item.example, answer=answer) for item, answer in zip(prepared, answers, strict=True)]
    return prepare(changed, processor, config)
