"""An answer on its way from the thread of the model to the event loop of the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from kvw.serving.refusals import Refusal


@dataclass(frozen=True)
class Ending:
    """How an answer ended.

    Args:
        reason: ``stop`` at an end token or stop text, ``length`` at the longest answer allowed.
        prompt_tokens: Tokens of the prompt, those of images included.
        answer_tokens: Tokens of the answer, end token included.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int


class Answer:
    """One answer; made on the event loop, which reads it, and worked out in another thread.

    The working thread calls :meth:`start`, :meth:`begin`, :meth:`say`, and :meth:`end` or :meth:`fail`. It stops soon
    when :attr:`wanted` is off.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._given_up = threading.Event()
        self._future: Future[Ending] = Future()
        self._future.add_done_callback(lambda _: self._done())

    def start(self) -> bool:
        """Say, from the working thread, that its turn has come; False if nobody waits any more."""
        return self._future.set_running_or_notify_cancel()

    def end(self, ending: Ending) -> None:
        """Say how the answer ended, from the working thread."""
        self._future.set_result(ending)

    def fail(self, error: BaseException) -> None:
        """Say why there is no answer, or no more of it, from the working thread."""
        with suppress(InvalidStateError):  # it was given up before its turn, and nobody reads it
            self._future.set_exception(error)

    def cancel(self) -> None:
        """Say that its turn will not come any more."""
        self._future.cancel()

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self._given_up.is_set()

    def begin(self) -> None:
        """Say, from the working thread, that the request is accepted and generation begins."""
        self._call(self._begun.set)

    def say(self, piece: str) -> None:
        """Hand over a piece of the text, from the working thread."""
        if piece:
            self._call(self._pieces.put_nowait, piece)

    async def begun(self) -> None:
        """Wait until generation begins.

        Raises:
            Exception: Whatever the work raised before.
        """
        await self._begun.wait()
        if self._future.done():
            self._result()

    async def pieces(self) -> AsyncIterator[str]:
        """The text piece by piece, once.

        Raises:
            Exception: Whatever the work raised.
        """
        while (piece := await self._pieces.get()) is not None:
            yield piece
        self._result()

    async def whole(self) -> tuple[str, Ending]:
        """The text at once, and how it ended.

        Raises:
            Exception: Whatever the work raised.
        """
        text = "".join([piece async for piece in self.pieces()])
        return text, self.ending

    @property
    def ending(self) -> Ending:
        """How the answer ended, after its last piece."""
        return self._result()

    @property
    def ended(self) -> Ending | None:
        """How the answer ended; None if it has not, or failed."""
        future = self._future
        return None if not future.done() or future.cancelled() or future.exception() else future.result()

    def give_up(self) -> None:
        """Say that nobody waits any more: work that has not begun never will, and generation ends at the next token."""
        self._given_up.set()
        self._future.cancel()

    def _result(self) -> Ending:
        try:
            return self._future.result()
        except CancelledError as error:
            raise Refusal(503, "The server is ending.") from error

    def _done(self) -> None:
        self._call(self._begun.set)
        self._call(self._pieces.put_nowait, None)

    def _call(self, function: Callable[..., None], *arguments: str | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server was stopped by force, and nobody listens
            self._loop.call_soon_threadsafe(function, *arguments)
