"""What a client must change, or what went wrong here, as OpenAI's clients expect to be told."""

from __future__ import annotations

from typing import Any

LONGEST_MESSAGE = 2000
"""Characters of a message: what a client has sent may be quoted in it."""


class Refusal(Exception):
    """A request that gets no answer.

    Args:
        status: HTTP status; 4xx the client must change something, 5xx the server is at fault.
        message: For whoever reads the client's exception. It may quote the request: what is not valid Unicode is
            escaped, and what is too long is cut.
        parameter: Which field of the request, or which header, is to blame; None for none of them.
        code: A short name of the reason for programs; None if the status says it all.
    """

    def __init__(self, status: int, message: str, *, parameter: str | None = None, code: str | None = None) -> None:
        self.status = status
        self.message = shortened(message, LONGEST_MESSAGE)
        self.parameter = None if parameter is None else shortened(parameter)
        self.code = code
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        """The body of the reply."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}


def shortened(text: str, limit: int = 100) -> str:
    """A text of the client's as a message may quote it: not too long, and valid Unicode."""
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    return cut.encode("utf-8", "backslashreplace").decode("utf-8")
