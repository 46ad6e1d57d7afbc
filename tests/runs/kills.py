"""Kills ``kvw erase``, ``kvw apply`` and ``kvw bench run`` at many moments, and looks what is there afterwards.

The commands run in forks of one process, so that libraries are imported once. Half of the kills come before a call of
the operating system that changes the disk, the other half after a time. What one kill leaves is what the next run
finds. After every tenth kill the command runs to its end.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from tests import tiny_models
from tests.checkpoints import gate_edit, sharded
from tests.data.benchmarks import copies

from kvw import claim
from kvw.cli import main
from kvw.evaluation import loaded
from kvw.models.loading import find_checkpoint

CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync", "open", "link", "ftruncate", "copy_file_range")
BENCH = """
title = "kills"
[benchmark]
name = "clear"
setting = "forget05"
source = "{source}"
[models]
vanilla = "{model}"
gold = "{model}"
[evaluation]
at_most = 1
max_new_tokens = 2
tasks = ["forget/name", "retain/name"]
[[method]]
name = "kvw"
schedule = "one-shot"
"""


CHANGING = ("finished", "costs", "seconds", "nonce")
"""What differs between two runs of the same."""


class Scenario:
    """A command, what it writes to, and how to know the states."""

    def __init__(
        self, folder: Path, command: list[str], before: list[str] | None = None, *, grows: bool = False
    ) -> None:
        self.out, self.place, self.grows = folder / "out", folder, grows
        self.inputs = {path.name for path in folder.iterdir()}
        self.old, self.spare = None, folder.parent / "spare"
        if before is not None:
            self.command = [*before, "--out", str(self.out)]
            assert self.run() == 0
            self.old = exact(self.out)
            self.out.rename(self.spare)
        self.command = [*command, "--out", str(self.out)] + (["--force"] if before is not None else [])
        for _ in range(2):  # the second one finds in the cache what the first one has left, as all others will
            began = time.monotonic()
            assert self.run() == 0
            self.seconds = time.monotonic() - began
            self.complete = state(self.out)
            self.reset()

    def reset(self) -> None:
        """Bring the state before the command back."""
        shutil.rmtree(self.out)
        if self.old is not None:
            shutil.copytree(self.spare, self.out)

    def run(self, before: Callable[[], None] = lambda: None, seconds: float | None = None) -> int:
        """The exit code of the command in a fork, -9 if it was killed."""
        child = os.fork()
        if not child:
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                    before()
                    try:
                        main(self.command)
                    except SystemExit as stop:
                        if stop.code:
                            sys.__stderr__.write(said.getvalue())
                        os._exit(int(stop.code or 0))
                os._exit(0)
            except BaseException:  # noqa: BLE001
                traceback.print_exc(file=sys.__stderr__)
                os._exit(1)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def look(self) -> str:
        """Which state the output is in; an assertion if it is a wrong one."""
        if self.grows:
            return "growing" if self.out.exists() else "absent"
        if not self.out.exists():
            assert self.old is None, "the output is missing"
            return "absent"
        if exact(self.out) == self.old:
            return "old"
        assert not (wrong := self.wrong()), f"the output is wrong: {wrong}"
        self.reset()
        return "new"

    def wrong(self) -> list[str]:
        """The files that are not what they should be."""
        found = state(self.out)
        return sorted(
            name for name in found.keys() | self.complete.keys() if found.get(name) != self.complete.get(name)
        )

    def finish(self) -> None:
        """Let the command come to its end; nothing hidden is left, and what was kept is complete."""
        assert self.run() == 0, "the command fails after a kill"
        if self.grows:
            assert not (wrong := self.wrong()), f"the output is wrong: {wrong}"
            hidden = [str(path) for path in self.out.rglob(".*") if path.name != ".kvw"]
            assert not hidden, hidden
            self.reset()
        else:
            assert self.look() == "new"
        for kept in self.place.glob("out.kept*"):
            assert {"edit.safetensors", "samples.jsonl", "run.json"} <= {path.name for path in kept.iterdir()}
            shutil.rmtree(kept)
        left = {path.name for path in self.place.iterdir()} - self.inputs
        assert left <= {"out"}, left


def exact(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def state(folder: Path) -> dict[str, Any]:
    """Every file without what differs between two runs: times and costs."""
    found: dict[str, Any] = dict(exact(folder))
    for name in found:
        if name.endswith(".json") and (name == "run.json" or name.startswith("records/")):
            found[name] = without_costs(json.loads((folder / name).read_text("utf-8")))
        elif name == "evidence.json":  # of this run: it speaks of the other files as they are
            statement = json.loads(base64.b64decode(json.loads((folder / name).read_text("utf-8"))["payload"]))
            digests = exact(folder)
            found[name] = [
                one["name"] for one in statement["subject"] if digests[one["name"]] == one["digest"]["sha256"]
            ]
        elif name == "report.html":  # with times and costs: it is whole
            found[name] = (folder / name).read_text("utf-8").rstrip().endswith("</html>")
        elif name.endswith("README.md"):  # what is heard is not the same in every process
            lines = (folder / name).read_text("utf-8").splitlines()
            found[name] = [line for line in lines if "ordinary" not in line]
    return found


def without_costs(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_costs(one) for key, one in value.items() if key not in CHANGING}
    return value


def killing(moment: int, report: Path | None = None) -> Callable[[], None]:
    """Lets this process be killed before the so-manieth call that changes the disk; or reports how many there were."""

    def install() -> None:
        count, leave = 0, os._exit

        def reporting(code: int) -> None:
            if report is not None:
                report.write_text(str(count))
            leave(code)

        os._exit = reporting

        def counted(plain: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                if changes(*arguments):
                    if count == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                return plain(*arguments, **options)

            return call

        for name in CALLS:
            writes = (lambda _, flags=0, *more: flags & (os.O_WRONLY | os.O_RDWR)) if name == "open" else None
            setattr(os, name, counted(getattr(os, name), writes or (lambda *_: True)))
        claim.exchange = counted(claim.exchange, lambda *_: True)

    return install


def calls_of(scenario: Scenario) -> int:
    """How many calls change the disk in one run."""
    report = scenario.place.parent / "calls"
    assert scenario.run(killing(sys.maxsize, report)) == 0
    scenario.reset()
    return int(report.read_text())


def make(name: str, folder: Path) -> Scenario:
    """A scenario in an empty folder."""
    kind, _, force = name.partition(" ")
    if kind == "bench":
        source, model = copies.clear(folder / "clear"), tiny_models.save("llava", folder / "model")
        (folder / "recipe.toml").write_text(BENCH.format(source=source, model=model))
        return Scenario(folder, ["bench", "run", str(folder / "recipe.toml")], grows=True)
    if kind == "apply":
        checkpoint = sharded(folder / "model", shards=4, hidden=64, width=96, layers=4)
        commands = []
        for layer in (1, 2):
            gate_edit(checkpoint, 0, layer).save(folder / f"{layer}.safetensors")
            commands.append(["apply", str(folder / f"{layer}.safetensors"), str(folder / "model")])
        return Scenario(folder, commands[0], commands[1] if force else None)
    model = tiny_models.save("llava", folder / "model")
    for part in ("forget", "retain"):
        Image.new("RGB", (24, 20), (90, len(part), 120)).save(folder / f"{part}.png")
        rows = [{"question": f"Who is {n}?", "answer": f"{part} {n}", "image": f"{part}.png"} for n in range(2)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain, checkpoint = loaded.Loaded.load, find_checkpoint(str(model))
    ready = plain(checkpoint)
    loaded.Loaded.load = classmethod(lambda *_, **__: ready)  # a fork folds the edit into its own copy
    files = ["--forget", str(folder / "forget.jsonl"), "--retain", str(folder / "retain.jsonl")]
    command = ["erase", str(model), *files, "--method", "kvw", "--max-new-tokens", "2", "--write-damaged", "--gamma"]
    return Scenario(folder, [*command, "1"], [*command, "2"] if force else None)


def kill(name: str, kills: int, folder: Path) -> dict[str, Any]:
    """Kill so often; returns what was seen.

    Raises:
        AssertionError: The output was wrong, half or missing after a kill.
    """
    os.environ["KVW_CACHE"] = str(folder / "cache")
    (folder / "place").mkdir()
    scenario = make(name, folder / "place")
    seconds, calls = scenario.seconds, calls_of(scenario)
    moments = random.Random(0)
    places = [round(number * calls / (kills // 2)) for number in range(kills // 2)]
    seen: Counter[str] = Counter()
    for number in range(kills):
        if number % 2:
            code = scenario.run(killing(places[number // 2]))
        else:
            code = scenario.run(seconds=moments.uniform(0, 1.05 * seconds))
        assert code in (0, -signal.SIGKILL), code
        found = scenario.look()
        seen[found] += 1
        seen["killed" if code else "ended before"] += 1
        if number % 10 == 9 or (scenario.grows and not code):  # a run that has grown to its end is not killed again
            scenario.finish()
    scenario.finish()
    return {"scenario": name, "kills": kills, "calls": calls, "seconds of a run": round(seconds, 2), **seen}
