"""Several processes that do one run together, with the bits of a single process, or up to rounding where results are
too large to be put in order.

Every process calls the same functions in the same order with the same data. Work is scattered, results are put in order
by the first process, and what it makes of them is broadcast. Before anything is exchanged all processes say how they
are, so an error in one of them ends the run in all, and a process that was killed is noticed at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from accelerate.utils import send_to_device
from torch import Tensor

from kvw.errors import LostProcess, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

TIMEOUT = timedelta(hours=1)
"""How long a process may let the others wait. A process that was killed is noticed at once, since its connections
close; this is for those that hang and for machines that lose power or network."""

BLOCK = 2**24
"""How many numbers of a large tensor cross at a time."""


class Processes:
    """The processes of a run. Objects cross between them by torch's object collectives, over the CPU (gloo).

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.

    Args:
        group: A gloo process group; None for a single process.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank = dist.get_rank(group) if group else 0
        self.size = dist.get_world_size(group) if group else 1
        self._told: BaseException | None = None
        self._broken = False
        self._places: list[tuple[str, int]] = []
        if group:
            self._places = self._exchange((socket.gethostname(), os.getpid()))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files, prints and decides."""
        return self.rank == 0

    def scatter(self, items: Iterable[Item], run: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
        """Scatter items over the processes, one each in turn, and run them; the first process gets the results.

        Gathering to one process and sending it the finished total once takes less communication than giving every
        process every result.

        Args:
            items: The same in every process.
            run: Called with this process's items only.

        Yields:
            In the first process every item with its result, tensors on the CPU if there are several processes. In the
            others nothing; they must go through the iterator all the same.

        Raises:
            UserError: Another process met one.
            LostProcess: Another process is gone.
        """
        if self.size == 1:
            for item in items:
                yield item, run(item)
            return
        remaining = iter(items)
        while turn := list(islice(remaining, self.size)):
            result = run(turn[self.rank]) if self.rank < len(turn) else None
            self._meet(f"a turn of {len(turn)}")
            yield from zip(turn, self._gather(send_to_device(result, "cpu")), strict=False)

    def owner(self, number: int) -> int:
        """The process that :meth:`scatter` gives an item to."""
        return number % self.size

    def all_gather(self, value: Result) -> list[Result]:
        """What each process has, small and on the CPU, in the order of the processes.

        Raises:
            UserError: Another process met one.
            LostProcess: Another process is gone.
        """
        if self.size == 1:
            return [value]
        self._meet("all_gather")
        return self._exchange(value)

    def gather(self, value: Result, to: int) -> list[Result]:
        """What each process has, tensors on the CPU, in the order of the processes; in the others nothing.

        Args:
            value: This process's.
            to: The process that gets all.

        Raises:
            UserError: Another process met one.
            LostProcess: Another process is gone.
        """
        if self.size == 1:
            return [value]
        self._meet(f"gather in {to}")
        return self._gather(value, to)

    def add(self, share: Tensor | None, having: Sequence[int], to: int) -> None:
        """Add up large tensors of several processes, in the order of the processes, in one of them.

        Blocks cross by the CPU one after the other, so it takes no more memory than these on either side.

        Args:
            share: Contiguous, of the same shape and dtype in all processes. In process ``to`` the sum takes its place.
                None in processes that are neither in ``having`` nor ``to``.
            having: The processes whose tensors are added, ascending; at least one.
            to: The process that gets the sum.

        Raises:
            UserError: Another process met one.
            LostProcess: Another process is gone.
        """
        if self.size == 1:
            return
        self._meet(f"add in {to}")
        if share is None:
            return
        with self._reaching():
            for block in torch.split(share.view(-1), BLOCK):
                if self.rank == to:
                    block.copy_(self._sum(block, having))
                else:
                    dist.send(block.cpu(), dst=to, group=self._group)

    def broadcast(self, work: Callable[[], Result]) -> Result:
        """Let the first process do something, and broadcast what it returns.

        Work that takes long calls :meth:`working` from time to time.

        Raises:
            UserError: The work or another process met one.
            LostProcess: Another process is gone.
        """
        if self.size == 1:
            return work()
        value = [work() if self.is_first else None]
        while any(news.working for news in self._meet("broadcast")):
            pass
        with self._reaching():
            dist.broadcast_object_list(value, src=0, group=self._group)
        return value[0]  # type: ignore[return-value]

    def working(self) -> None:
        """Inside :meth:`broadcast`: let the waiting processes know, and notice if one of them is gone."""
        if self.size > 1:
            self._meet("broadcast", working=True)

    def agree(self, parts: Mapping[str, str]) -> None:
        """Make sure that all processes have the same before they work on it.

        Args:
            parts: Digests by the name of what was digested.

        Raises:
            UserError: Names the parts that differ.
        """
        if self.size == 1:
            return
        gathered = self._meet("agree", parts=parts)
        differing = [name for name in parts if any(news.parts.get(name) != parts[name] for news in gathered)]
        if differing:
            raise UserError(
                "The processes of this run do not have the same before them.",
                found=f"different: {', '.join(differing)}",
                do="give every machine the same files and the same versions, and use one kind of device",
            )

    def leave(self, error: BaseException) -> None:
        """Tell the others that this process ends because of an error, unless it came from them or they are gone."""
        if self.size == 1 or self._broken or error is self._told:
            return
        failure: BaseException = error
        if isinstance(error, UserError):
            place = f"process {self.rank} of {self.size}, {self._places[self.rank][0]}"
            found = f"{error.found} (in {place})" if error.found else f"in {place}"
            failure = UserError(error.what, found=found, do=error.do)
        elif not isinstance(error, KeyboardInterrupt):
            failure = LostProcess(
                f"Process {self.rank} of {self.size} stopped because of an error in the program.",
                found=f"{type(error).__name__}: {error}",
                do="read what that process printed",
                gone=[self.rank],
            )
        try:
            self._meet("", failure=failure)
        except (UserError, KeyboardInterrupt):
            return  # its own failure, come back, or that of another process; or nobody is left to be told

    def _meet(self, step: str, **more: Any) -> list[_News]:
        """Wait for all processes and hear how they are."""
        gathered = self._exchange(_News(step, **more))
        for news in gathered:
            if news.failure is not None:
                self._told = news.failure
                raise news.failure
        steps = [news.step for news in gathered]
        if len(set(steps)) > 1:
            self._told = UserError(
                "The processes of this run do not do the same thing.",
                found=", ".join(f"process {rank}: {step}" for rank, step in enumerate(steps)),
                do="call the same functions with the same data in every process",
            )
            raise self._told
        return gathered

    def _exchange(self, value: Any) -> list[Any]:
        gathered: list[Any] = [None] * self.size
        with self._reaching():
            dist.all_gather_object(gathered, value, group=self._group)
        return gathered

    def _gather(self, value: Any, to: int = 0) -> list[Any]:
        """The values of all processes in one of them; nothing in the others."""
        gathered: list[Any] = [None] * self.size if self.rank == to else []
        with self._reaching():
            dist.gather_object(value, gathered if self.rank == to else None, dst=to, group=self._group)
        return gathered

    def _sum(self, block: Tensor, having: Sequence[int]) -> Tensor:
        """The sum of a block of this and other processes, on the CPU."""
        total = torch.zeros(block.shape, dtype=block.dtype)
        received = torch.empty_like(total)
        for source in having:
            if source == self.rank:
                total += block.cpu()
            else:
                dist.recv(received, src=source, group=self._group)
                total += received
        return total

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        broken, self._broken = self._broken, True  # whatever interrupts an exchange leaves the others out of step
        if broken:
            raise LostProcess(
                "The connection to the other processes was lost before.",
                gone=self._gone(),
                do="start the run again; it goes on from what was kept",
            )
        try:
            yield
        except RuntimeError as error:  # gloo raises nothing more special
            gone = self._gone()
            names = [str(rank) for rank in gone or range(self.size) if rank != self.rank]
            raise LostProcess(
                f"Process {' or '.join(names)} of this run is gone or does not answer.",
                found=str(error).strip().splitlines()[0].split(". ")[0],
                do="start the same command again: it goes on from what was kept",
                gone=gone,
            ) from error
        self._broken = False

    def _gone(self) -> list[int]:
        """The processes that are known to have ended."""
        if self.size == 2:
            return [1 - self.rank]
        here = socket.gethostname()
        return [rank for rank, (host, process) in enumerate(self._places) if host == here and not _runs(process)]


@dataclass(frozen=True)
class _News:
    """What a process says when all meet: what it is about to do, or why it ends."""

    step: str
    working: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)
    failure: BaseException | None = None


_current = [Processes()]


def current() -> Processes:
    """The processes that work together here."""
    return _current[-1]


@contextmanager
def together() -> Iterator[Processes]:
    """Let the processes of the initialised process group do one run together.

    In the block every process must call the same functions of kvw in the same order with the same data; each gets the
    same results. Callbacks (progress, ``on_step``) are called in the first process only. An error that leaves the
    block in one process ends it in all. Outside of such a block a process works by itself, and so it does inside if no
    process group is initialised.

    Yields:
        The processes.

    Raises:
        UserError: Another process met one.
        LostProcess: Another process is gone.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1 or current().size > 1:
        yield current()
        return
    # A group of its own: gloo notices a lost process at once, whatever backend the caller chose, and the caller's
    # collectives are not disturbed.
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=TIMEOUT))
    processes = Processes(group)
    _current.append(processes)
    try:
        yield processes
    except BaseException as error:
        processes.leave(error)
        raise
    finally:
        _current.remove(processes)
        dist.destroy_process_group(group)


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
