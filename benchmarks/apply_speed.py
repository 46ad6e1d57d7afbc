"""How fast ``kvw apply`` is beside a plain copy of the same files, side by side in one run.

The plain copy is ``shutil.copyfile`` and fsync, file by file, and checks nothing. ``kvw apply`` writes the edit, brings
the files to the disk too, reads them back and compares them with the source and with what was computed. Reading back is
served by the operating system's page cache where the files fit into it: what is compared is what it holds, not what the
disk's platters or cells hold.

The first ``kvw apply`` of a checkpoint also hashes the source, to say whether the edit was made on these weights; any
later one, or one after ``kvw erase``, finds the digests in the cache. Both are measured.

usage: python benchmarks/apply_speed.py [--folder DIR] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints import gate_edit, sharded

from kvw.models.loading import Checkpoint
from kvw.models.weight_files import weight_files
from kvw.progress import SILENT
from kvw.runs.apply import apply

TARGET = 0.7


def plain_copy(checkpoint: Checkpoint, out: Path) -> None:
    """Copy the weight files and bring them to the disk."""
    out.mkdir()
    for path in weight_files(checkpoint.folder):
        shutil.copyfile(path, out / path.name)
        with (out / path.name).open("rb") as file:
            os.fsync(file.fileno())


def timed(work: Callable[[], object], out: Path) -> float:
    """Seconds of one call; its output is removed afterwards."""
    os.sync()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds


def main() -> None:
    """Print the speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary directory")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        checkpoint = sharded(folder / "model", shards=4, hidden=4096, width=11008, layers=2, vocabulary=16000)
        edit = gate_edit(checkpoint, 0, 1)
        size = sum(path.stat().st_size for path in weight_files(checkpoint.folder)) / 1e9
        edited = apply(edit, checkpoint, folder / "warm-up", SILENT).files
        shutil.rmtree(folder / "warm-up")
        ratios: dict[str, list[float]] = {"first": [], "later": []}
        for turn in range(arguments.repeats):
            os.environ["KVW_CACHE"] = str(folder / f"cache {turn}")
            for which, found in ratios.items():
                plain = timed(lambda: plain_copy(checkpoint, folder / "copy"), folder / "copy")
                ours = timed(lambda: apply(edit, checkpoint, folder / "out", SILENT), folder / "out")
                found.append(plain / ours)
                print(f"turn {turn + 1}: plain copy {size / plain:.2f} GB/s, {which} kvw apply {size / ours:.2f} GB/s")
    changed = sum(file.changed for file in edited)
    print(f"{size:.2f} GB in {len(edited)} weight files, {changed} matrices of {4096 * 11008 * 2 / 1e6:.0f} MB changed")
    for which, found in ratios.items():
        print(
            f"median ratio {which} kvw apply / plain copy: {statistics.median(found):.2f} (target: at least {TARGET})"
        )


if __name__ == "__main__":
    main()
