"""A port of this machine, and the server that listens there."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from starlette.applications import Starlette

from kvw.errors import UserError

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


def run(app: Starlette, listening: socket.socket) -> None:
    """Serve until the process is told to end.

    Raises:
        KeyboardInterrupt: It was Ctrl-C; answers on their way had :data:`SECONDS_TO_FINISH`.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=SECONDS_TO_FINISH)
    uvicorn.Server(config).run(sockets=[listening])
