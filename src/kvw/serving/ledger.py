"""What a server did for whom: numbers for Prometheus, and a line for each request in a log; neither has its words."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvw.files import PRIVATE_FILE
from kvw.serving.answer import Answer
from kvw.serving.names import JOIN

ENTRY = "kvw-entry"
"""Where a request carries what is known of it."""
KNOWN = ("/v1/chat/completions", "/v1/models")
SEVERAL = "several"
"""Stands in the numbers for edits that act together: there are more such names than a monitor should keep."""

logger = logging.getLogger(__name__)


@dataclass
class Entry:
    """What is known of one request: nothing that its client has written."""

    path: str
    key: str | None = None
    edits: str | None = None
    stream: bool | None = None
    answer: Answer | None = None

    def tokens(self) -> tuple[int | None, int | None]:
        """Of prompt and answer; None if the answer did not come to its end."""
        if self.answer is None or (ending := self.answer.ended) is None:
            return None, None
        return ending.prompt_tokens, ending.answer_tokens


@dataclass(frozen=True)
class Line:
    """One line of the audit log."""

    time: str
    path: str
    key: str | None
    edits: str | None
    stream: bool | None
    status: int
    prompt_tokens: int | None
    answer_tokens: int | None
    seconds: float


class Ledger:
    """Counts requests, and writes the log if there is one.

    Args:
        audit: The log: JSON, a line for each request, appended; only its owner can read it. It is opened for every
            line, so that it can be moved away at any time.
    """

    def __init__(self, audit: Path | None = None) -> None:
        self._audit = audit
        self._in_progress = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._numbers: defaultdict[tuple[str, str], float] = defaultdict(float)

    def begin(self) -> None:
        """A request came."""
        self._in_progress += 1

    def end(self, entry: Entry, status: int, seconds: float) -> None:
        """A request is over."""
        self._in_progress -= 1
        prompt, answer = entry.tokens()
        edits = entry.edits or ""
        label = SEVERAL if JOIN in edits else edits
        self._requests[label, status] += 1
        self._numbers["kvw_request_seconds_sum", label] += seconds
        self._numbers["kvw_request_seconds_count", label] += 1
        self._numbers["kvw_prompt_tokens_total", label] += prompt or 0
        self._numbers["kvw_answer_tokens_total", label] += answer or 0
        if self._audit is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            place = entry.path if entry.path in KNOWN else "other"
            line = Line(now, place, entry.key, entry.edits, entry.stream, status, prompt, answer, round(seconds, 3))
            self._write(self._audit, json.dumps(asdict(line)) + "\n")

    def metrics(self) -> str:
        """The numbers in the text format of Prometheus."""
        lines = ["# TYPE kvw_requests_in_progress gauge", f"kvw_requests_in_progress {self._in_progress}"]
        lines.append("# TYPE kvw_requests_total counter")
        for (label, status), count in sorted(self._requests.items()):
            lines.append(f'kvw_requests_total{{edits="{label}",status="{status}"}} {count}')
        for family, kind in (
            ("kvw_prompt_tokens_total", "counter"),
            ("kvw_answer_tokens_total", "counter"),
            ("kvw_request_seconds", "summary"),
        ):
            lines.append(f"# TYPE {family} {kind}")
            for (name, label), number in sorted(self._numbers.items()):
                if name.startswith(family):
                    lines.append(f'{name}{{edits="{label}"}} {number:.10g}')
        return "\n".join(lines) + "\n"

    def _write(self, path: Path, line: str) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE_FILE)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError:
            logger.exception("a line of the audit log is lost")


class Kept:
    """Lets every request through to an application and keeps account of it.

    Args:
        app: Answers.
        ledger: Where it is kept.
    """

    def __init__(self, app: ASGIApp, ledger: Ledger) -> None:
        self._app = app
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in ("/health", "/metrics"):
            await self._app(scope, receive, send)
            return
        entry, status, begin = Entry(scope["path"]), 500, time.monotonic()
        scope[ENTRY] = entry

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._ledger.begin()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._ledger.end(entry, status, time.monotonic() - begin)
