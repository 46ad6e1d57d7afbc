"""Where a model writes its answer: after the thought or the channel that its chat template puts before it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvw.data.templates import Processor, apply_template, chat_template
from kvw.errors import UserError

PROBE = "The-answer-itself"
"""Stands for an answer, to see what the template puts around one."""
LONGEST_MARK = 60
MARK = rf"(?:<[^<>\s]{{1,{LONGEST_MARK}}}>|\[[^\[\]\s]{{1,{LONGEST_MARK}}}\]|◁[^◁▷\s]{{1,{LONGEST_MARK}}}▷)"
MARKS = re.compile(rf"\s*{MARK}(?:.*{MARK})?\s*", re.DOTALL)
"""Text that begins and ends with a mark: a thought, a channel, the name of a channel between its marks."""
LAST_MARK = re.compile(rf"({MARK})(\s*)$")
THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
"""Found in the mark of a thought, whether the template knows how it is closed or not."""
ENDS = (("START", "END"), ("Start", "End"), ("start", "end"), ("BEGIN", "END"), ("Begin", "End"), ("begin", "end"))
"""Words of marks that open, and those of the marks that close."""
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
        UserError: See :func:`kvw.data.templates.apply_template`; or it is not known how an open thought is closed.
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
    if marks[1] and (not tail.strip() or any(closing in gap for closing in _closings(tail))):
        prompt = shown
    elif gap.strip() or (tail.strip() and not marks[0]):
        return Place(asked, None, after)
    else:
        prompt = asked
    closed = _closed(identifier, prompt, after, processor)
    agree = closed == asked and not tail.strip()
    return Place(closed, None if agree else shown, after)


def _common(left: str, right: str) -> int:
    """How many characters two texts have in common from the start; a mark counts whole or not at all."""
    length = min(len(left), len(right))
    common = next((place for place in range(length) if left[place] != right[place]), length)
    half = HALF_A_MARK.search(left, max(0, common - LONGEST_MARK), common)
    return half.start() if half else common


def _closings(text: str) -> list[str]:
    """The marks that may close the last one of a text: ``</think>`` for ``<think>``; none if it closes one itself."""
    found = LAST_MARK.search(text)
    if found is None or _closes(found[1]):
        return []
    mark = found[1]
    ends = [mark.replace(opens, closes) for opens, closes in ENDS if opens in mark and THOUGHT.search(mark)]
    return ends or ([] if mark.startswith("<|") else [f"{mark[0]}/{mark[1:]}"])


def _closes(mark: str) -> bool:
    return mark[1] == "/" or any(closes in mark for _, closes in ENDS)


def _closed(identifier: str, prompt: str, after: str, processor: Processor) -> str:
    """A prompt without a thought left open at its end.

    What opens a thought is a mark that says so ("think"), or one whose closing mark the template or the tokenizer
    knows. If the template closes it after the answer, it holds the answer and not a thought.
    """
    found, closings = LAST_MARK.search(prompt), _closings(prompt)
    if found is None or _closes(found[1]) or after.lstrip().startswith(tuple(closings)):
        return prompt
    template, vocabulary = chat_template(processor) or "", processor.tokenizer.get_added_vocab()
    closing = next((mark for mark in closings if mark in template or mark in vocabulary), None)
    if closing is None and THOUGHT.search(found[1]):
        if not closings:
            raise UserError(
                f"{identifier}: the chat template opens a thought, and how it is closed is not known.",
                found=f"{found[1]!r} at the end of the prompt",
                do="switch the thought off with --template-option, or use a template that closes it",
            )
        closing = closings[0]
    if closing is None:
        return prompt
    lines = "\n" in found[2]
    return f"{prompt}\n{closing}\n\n" if lines else f"{prompt}{closing}"
