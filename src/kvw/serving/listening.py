"""A port of this machine, and the server that listens there."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

import h11
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from kvw.errors import UserError
from kvw.serving.limits import SECONDS_FOR_HEADERS

SECONDS_TO_FINISH = 5
"""What answers on their way get when the server is told to end."""


def listen(host: str, port: int) -> socket.socket:
    """Take a port; clients that come before the server is ready wait.

    Args:
        host: A name or address of this machine.
        port: 0 for any free one.

    Raises:
        UserError: It is in use or may not be used, or this machine has no such address.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"The server cannot listen at {host}, port {port}.",
            found=str(error),
            do="name another --port (0 takes a free one) or --host",
        ) from error


def address(listening: socket.socket) -> str:
    """The URL for clients of OpenAI's protocol."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def reachable_from_outside(listening: socket.socket) -> bool:
    """Whether other machines may reach the port."""
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback


class TimedHeaders(H11Protocol):
    """A connection that is closed if a request does not get as far as the end of its headers in time.

    uvicorn has time limits for connections on which nothing is under way, and none for this.
    """

    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._tell_time()

    def data_received(self, data: bytes) -> None:
        """Take what came, and wait on if it was not all of the headers."""
        super().data_received(data)
        self._tell_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        self._stop()

    def _tell_time(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._clock is None:
            self._clock = self.loop.call_later(SECONDS_FOR_HEADERS, self.transport.close)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def server(app: Starlette) -> uvicorn.Server:
    """What serves an application; h11 bounds the length of headers, which the other parser of uvicorn does not."""
    config = uvicorn.Config(
        app,
        http=TimedHeaders,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=SECONDS_TO_FINISH,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_a_fault)
    return uvicorn.Server(config)


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Not what is cut off when the server ends: that is said once, with the number of answers."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or not issubclass(kind, asyncio.CancelledError)


def run(app: Starlette, listening: socket.socket) -> None:
    """Serve until the process is told to end.

    Raises:
        KeyboardInterrupt: It was Ctrl-C; answers on their way had :data:`SECONDS_TO_FINISH`.
    """
    server(app).run(sockets=[listening])
