"""``apply`` in a process of its own: how much memory it takes, and what is there when it is killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
from tests.checkpoints import gate_edit, low_rank_edit, sharded

from kvw.claim import partial_path
from kvw.edits import load_edit
from kvw.models import patching
from kvw.models.loading import find_checkpoint, skeleton
from kvw.progress import SILENT
from kvw.runs.apply import apply


def watch_memory(folder: Path, sizes: dict[str, int], kind: str) -> dict[str, int]:
    """By how many bytes the process grew at most, and how many the weights have."""
    small = sharded(folder / "small", shards=2, hidden=64, width=96, layers=2)
    make = {"gates": gate_edit, "low rank": low_rank_edit}[kind]
    apply(make(small, 0, 1), small, folder / "small out", SILENT)  # what is imported on the way does not count
    large = sharded(folder / "large", **sizes)
    edit = make(large, *range(sizes["layers"]))
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    apply(edit, large, folder / "large out", SILENT)
    done.set()
    watcher.join()
    weights = sum(path.stat().st_size for path in (folder / "large").glob("*.safetensors"))
    return {"growth": peak - before, "weights": weights}


def kill_often(source: Path, edit_file: Path, out: Path, kills: int) -> dict[str, Any]:
    """Start, kill after a time, and look, so often; then let one run come to its end."""
    checkpoint, edit = find_checkpoint(str(source)), load_edit(edit_file)
    skeleton(checkpoint)
    patching.WRITTEN_AT_A_TIME = 30_000
    plain = patching._Megabytes.__call__

    def slow(self: Any, count: int) -> None:
        time.sleep(0.002)
        plain(self, count)

    patching._Megabytes.__call__ = slow

    def start(folder: Path) -> int:
        child = os.fork()
        if child:
            return child
        try:
            apply(edit, checkpoint, folder, SILENT)
            os._exit(0)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            os._exit(1)

    began = time.monotonic()
    reference = out.parent / "reference"
    assert os.waitpid(start(reference), 0)[1] == 0
    seconds = time.monotonic() - began

    moments, snapshots = random.Random(0), []
    for _ in range(kills):
        child = start(out)
        time.sleep(moments.uniform(0, 1.05 * seconds))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        root = partial_path(out)
        names = [path.name.removesuffix(".json") for path in (root / "finished").glob("*.json")]
        content = _state(root / "content")
        seen = {"status": status, "finished": {name: content[name] for name in names if name in content}, "out": None}
        if out.exists():
            seen |= {"out": _hashes(out), "state": _state(out), "finished": {}}
            shutil.rmtree(out)
        snapshots.append(seen)
    status = os.waitstatus_to_exitcode(os.waitpid(start(out), 0)[1])
    last = {"status": status, "finished": {}, "out": _hashes(out), "state": _state(out)}
    left = sorted(path.name for path in out.parent.iterdir())
    return {"reference": _hashes(reference), "snapshots": [*snapshots, last], "left": left}


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _state(folder: Path) -> dict[str, list[int]]:
    return {path.name: [path.stat().st_ino, path.stat().st_mtime_ns] for path in folder.glob("*.safetensors")}
