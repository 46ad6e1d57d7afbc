"""Where the runs of a benchmark are. Importing this loads nothing heavy."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"
"""The file that every run has."""


def run_folders(out: Path) -> list[Path]:
    """The run directories in ``out``: itself, or, of a recipe with several settings or seeds, one for each."""
    if (out / MANIFEST).is_file() or not out.is_dir():
        return [out]
    folders = [path.parent for depth in ("*", "*/seed-*") for path in out.glob(f"{depth}/{MANIFEST}")]
    # Settings and seeds are names with a number: the shorter name has the smaller one.
    return sorted(folders, key=lambda place: [(len(part), part) for part in place.relative_to(out).parts]) or [out]
