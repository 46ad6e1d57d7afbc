"""How much a client may ask for; each bound is checked before the work that it bounds."""

from __future__ import annotations

from dataclasses import dataclass

from kvw.errors import UserError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What the operator of a server sets.

    Args:
        body: Bytes of a request.
        images: Pictures of a request.
        prompt_tokens: Tokens of a prompt; None for what the model reads, and where it does not say that,
            :data:`PROMPT_TOKENS`.
        seconds: From the beginning of a request to the end of its answer.
        answer_tokens: New tokens of an answer.
        requests: Requests that are received, wait or are answered at the same time.
        together: Requests under the same edits that are answered together.

    Raises:
        UserError: One of them allows nothing.
    """

    body: int = 64 * MIB
    images: int = 8
    prompt_tokens: int | None = None
    seconds: float = 600.0
    answer_tokens: int = 1024
    requests: int = 32
    together: int = 8

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--max-body", self.body, 1),
            ("--max-images", self.images, 0),
            ("--max-prompt-tokens", self.prompt_tokens, 1),
            ("--timeout", self.seconds, 1),
            ("--max-new-tokens", self.answer_tokens, 1),
            ("--max-requests", self.requests, 1),
            ("--together", self.together, 1),
        ):
            if value is not None and not value >= least:
                raise UserError(
                    "With this limit no request could be answered.",
                    found=f"{option} {value}",
                    do=f"give {least} or more, or leave the option out",
                )


DEFAULTS = Limits()
PROMPT_TOKENS = 32_768
"""Longest prompt where neither the operator nor the model says how long it may be."""
SECONDS_FOR_HEADERS = 20.0
"""From the first byte of a request to the end of its headers."""
SECONDS_FOR_BODY = 60.0
"""From the end of the headers to the end of the body."""
PIXELS = 64 * 10**6
"""Most pixels of all pictures of a request together."""
MARKS = 400_000
"""Commas and opening brackets in a body, those in texts included: a bound on what a JSON parser makes of it."""
VALUES = 20_000
"""Values in a body: the entries of all its objects and lists."""
MESSAGES = 2048
"""Messages of a request, and parts of all its messages together."""
NAME = 4096
"""Characters of the name of a model: it may be a path."""
STOP = 1000
"""Characters of a text that ends the answer."""
