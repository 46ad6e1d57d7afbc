"""Long documents in parts that a model can read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from kvw.data.documents import document
from kvw.data.example import Example
from kvw.data.rendering import Processor, unchanged

WINDOW = 512
"""Tokens of a part, unless the model takes fewer: longer parts cost memory and say no more."""
OVERLAP = 8
"""Windows overlap by one of this many parts."""
SMALLEST = 32
"""A model that takes fewer is told that the text is too long."""
AROUND = 8
"""Tokens left for what the tokenizer puts before a text."""
PIECE = re.compile(r"\s*(?:[!-~]{1,24}|\S{1,8})")
"""What is never divided: a word, or a part of a long one."""


def in_windows(examples: Sequence[Example], processor: Processor, limit: int | None) -> list[Example]:
    """Divide documents into parts that overlap; other examples stay as they are.

    Args:
        examples: Any.
        processor: Its tokenizer counts.
        limit: The most tokens that the model takes at once; None if it has no limit.

    Returns:
        All examples in order. Parts are named ``<identifier>, part <n> of <N>``; what fits as a whole is not renamed.
    """
    size = max(SMALLEST, min(WINDOW, WINDOW if limit is None else limit - AROUND))
    found: list[Example] = []
    for example in examples:
        parts = _parts(example, processor.tokenizer, size) if example.plain else []
        if len(parts) < 2:
            found.append(example)
            continue
        for number, text in enumerate(parts, start=1):
            name = f"{example.identifier}, part {number} of {len(parts)}"
            found.append(document(text, name, example.metadata))
    return found


def _parts(example: Example, tokenizer: Any, size: int) -> list[str]:
    text = example.question + example.answer
    pieces = list(PIECE.finditer(text))
    with unchanged(tokenizer):
        ids = tokenizer([piece[0] for piece in pieces], add_special_tokens=False)["input_ids"]
    parts = [text[pieces[first].start() : pieces[last - 1].end()] for first, last in _spans([*map(len, ids)], size)]
    return [part for part in parts if len(part.strip()) > 1]  # a last letter alone predicts nothing


def _spans(tokens: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of pieces of at most ``size`` tokens, or of one piece; each but the first begins inside the one before."""
    first = 0
    while True:
        last, held = first, 0
        while last < len(tokens) and (last == first or held + tokens[last] <= size):
            held += tokens[last]
            last += 1
        yield first, last
        if last == len(tokens):
            return
        begin, again = last, 0
        # At least one piece, unless it would be most of the window.
        while begin - 1 > first and again + tokens[begin - 1] <= size // (OVERLAP if again else 2):
            begin -= 1
            again += tokens[begin]
        first = begin
