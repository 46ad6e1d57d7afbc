"""Plain sentences, written for kvw: what a model must still be able to write, whatever it forgets."""

from __future__ import annotations

from pathlib import Path

from kvw.data.example import Example

SENTENCES = Path(__file__).parent / "sentences.txt"
"""One sentence a line. They name no person, place or work."""
REQUESTS = (
    "Write a sentence.",
    "Tell me something.",
    "Give me an example of a plain sentence.",
    "Write something about everyday life.",
)
"""What the sentences answer, in turn. They say nothing of the sentence, so every token of it has to be written."""


def plain_texts() -> list[str]:
    """The shipped sentences, in the order of the file."""
    return SENTENCES.read_text("utf-8").splitlines()


def text_examples() -> list[Example]:
    """The shipped sentences: every second as plain text without any prompt, the others as answers to a short neutral
    request. An edit can harm the one and spare the other."""
    return [_example(number, sentence) for number, sentence in enumerate(plain_texts())]


def _example(number: int, sentence: str) -> Example:
    plain = number % 2 == 1
    return Example(
        question="" if plain else REQUESTS[number // 2 % len(REQUESTS)],
        answer=sentence,
        identifier=f"text:{number + 1}",
        metadata={"source": "text", "subject": f"text {number + 1}"},
        plain=plain,
    )
