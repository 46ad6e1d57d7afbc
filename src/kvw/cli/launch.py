"""Being one of several processes that torchrun or accelerate launch has started; imports nothing heavy."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from kvw.errors import LostProcess, UserError

SECONDS_BEFORE_LEAVING = 1.0
"""Launchers end all processes as soon as one has failed; the first one needs a moment to say why."""


def launched_rank() -> int | None:
    """The number of this process among those that a launcher has started; None if there was no launcher."""
    if int(os.environ.get("WORLD_SIZE") or 1) < 2 or "RANK" not in os.environ:
        return None
    return int(os.environ["RANK"])


def shared_by_all(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that all launched processes work on together."""

    @functools.wraps(verb)
    def run(*arguments: Any, **options: Any) -> None:
        if launched_rank() is None:
            return verb(*arguments, **options)
        # Launchers end the other processes when one has failed: like Ctrl-C, so that what was measured is kept.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.ExitStack() as joined:
            with _no_output():
                _join()

                from kvw.processes import together

                joined.enter_context(together())
            return verb(*arguments, **options)

    return run


def run_by_the_first(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb that has nothing to share: of the launched processes only the first runs it."""

    @functools.wraps(verb)
    def run(*arguments: Any, **options: Any) -> None:
        if not launched_rank():
            verb(*arguments, **options)

    return run


@contextlib.contextmanager
def only_the_first_speaks() -> Iterator[None]:
    """Print nothing in the block unless this is the first process."""
    if not launched_rank():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Let nothing reach standard output in the block, from C++ either: some gloo versions say there that they connect.

    Results go there, with ``--json`` for machines.
    """
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nowhere)
        os.close(kept)


def speaks_for_all(error: BaseException) -> bool:
    """Whether this process is the one to print an error that all processes end with.

    If it is not, return only after the first process has had the time to print. The launcher can no longer end it.
    """
    rank = launched_rank()
    if rank is None:
        return True
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if rank == 0:
        return True
    if isinstance(error, LostProcess) and (not error.gone or 0 in error.gone):
        return True
    time.sleep(SECONDS_BEFORE_LEAVING)
    return False


def _join() -> None:
    """Join the process group that the launcher's environment describes."""
    import torch
    from accelerate import PartialState

    from kvw.processes import TIMEOUT

    try:
        # gloo on accelerators too: what is exchanged is small, and a lost process is noticed at once.
        PartialState(cpu=not torch.accelerator.is_available(), backend="gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            "The processes could not find each other.",
            found=str(error).strip().splitlines()[0],
            do="start them with torchrun or accelerate launch, with the same address and port on every machine",
        ) from error
    if not torch.distributed.is_initialized():
        raise UserError(
            "The processes could not find each other.",
            found="no LOCAL_RANK in the environment" if "LOCAL_RANK" not in os.environ else "no process group",
            do="start them with torchrun or accelerate launch",
        )
