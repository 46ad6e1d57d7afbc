"""Where a model writes its answer: after the thought or the channel that its chat template puts before it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvw.data.templates import Processor, apply_template, chat_template

PROBE = "The-answer-itself"
"""Stands for an answer, to see what the template puts around one."""
LONGEST_MARK = 60
MARK = rf"(?:<[^<>\s]{{1,{LONGEST_MARK}}}>|\[[^\[\]\s]{{1,{LONGEST_MARK}}}\]|◁[^◁▷\s]{{1,{LONGEST_MARK}}}▷)"
MARKS = re.compile(rf"\s*{MARK}(?:.*{MARK})?\s*", re.DOTALL)
"""Text that begins and ends with a mark: a thought, a channel, the name of a channel between its marks."""
LAST_MARK = re.compile(rf"({MARK})(\s*)$")
HALF_A_MARK = re.compile(r"[<\[◁][^<>\[\]◁▷\s]*$")


@dataclass(frozen=True)
class Place:
    """Where the answer to a conversation stands.

    Args:
        prompt: Everything up to where the model writes its answer, a closed thought or channel included.
        shown: What the template shows before an answer, if ``prompt`` takes its place; None if the two agree.
        after: What the template shows after an answer.
    """

    prompt: str
    shown: str | None
    after: str

    def full(self, rendered: str) -> str:
        """The prompt with its answer.

        Args:
            rendered: The conversation and its answer as the template shows them; nothing follows the answer.
        """
        if self.shown is None or not rendered.startswith(self.shown):
            return rendered
        return self.prompt + rendered.removeprefix(self.shown)


def answer_place(
    identifier: str, processor: Processor, conversation: Sequence[Mapping[str, Any]], placeholders: Sequence[str]
) -> Place:
    """Find where the model writes its answer to a conversation.

    That is where the generation prompt ends, with three exceptions. The template may put something between it and an
    answer, an empty thought or the name of a channel: that is part of the prompt. It may show answers after a closed
    thought where the generation prompt opens one: the closed one is taken. And the generation prompt may open a thought
    that is not closed anywhere: it is closed here, empty.

    What stands there without marks (``<...>``, ``[...]``) is left as it is, and no answer will be found after it.

    Args:
        identifier: How messages name the conversation.
        processor: A Hugging Face processor with a chat template.
        conversation: Messages, the last one the user's.
        placeholders: Texts that stand for images; they are no thoughts.

    Raises:
        UserError: See :func:`kvw.data.templates.apply_template`.
    """
    asked = apply_template(identifier, processor, conversation, add_generation_prompt=True)
    answer = {"role": "assistant", "content": [{"type": "text", "text": PROBE}]}
    shown, found, after = apply_template(identifier, processor, [*conversation, answer]).rpartition(PROBE)
    if not found:
        return Place(asked, None, "")
    common = _common(asked, shown)
    tail, gap = asked[common:], shown[common:]
    marks = [
        MARKS.fullmatch(text) and not any(placeholder in text for placeholder in placeholders) for text in (tail, gap)
    ]
    if marks[1] and (not tail.strip() or _closing(tail) in gap):
        prompt = shown
    elif gap.strip() or (tail.strip() and not marks[0]):
        return Place(asked, None, after)
    else:
        prompt = asked
    closed = _closed(prompt, after, processor)
    agree = closed == asked and not tail.strip()
    return Place(closed, None if agree else shown, after)


def _common(left: str, right: str) -> int:
    """How many characters two texts have in common from the start; a mark counts whole or not at all."""
    length = min(len(left), len(right))
    common = next((place for place in range(length) if left[place] != right[place]), length)
    half = HALF_A_MARK.search(left, max(0, common - LONGEST_MARK), common)
    return half.start() if half else common


def _closing(text: str) -> str:
    """The mark that would close the last one of a text: ``</think>`` for ``<think>``; "none" if there is none."""
    found = LAST_MARK.search(text)
    return f"{found[1][0]}/{found[1][1:]}" if found else "none"


def _closed(prompt: str, after: str, processor: Processor) -> str:
    """A prompt without a thought left open at its end.

    What opens a thought is a mark whose closing one the template or the tokenizer knows. If the template closes it
    after the answer, it holds the answer and not a thought.
    """
    found, closing = LAST_MARK.search(prompt), _closing(prompt)
    if found is None or found[1][1:].startswith("/") or after.lstrip().startswith(closing):
        return prompt
    known = closing in (chat_template(processor) or "") or closing in processor.tokenizer.get_added_vocab()
    if not known:
        return prompt
    lines = "\n" in found[2]
    return f"{prompt}\n{closing}\n\n" if lines else f"{prompt}{closing}"
