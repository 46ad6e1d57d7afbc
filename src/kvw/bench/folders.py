"""Where the runs of a benchmark are. Importing this loads nothing heavy."""

from __future__ import annotations

from pathlib import Path

MANIFEST = "manifest.json"
"""The file that every run has."""


def run_folders(out: Path) -> list[Path]:
    """The run directories in ``out``: itself, or, of a recipe with several settings, one for each."""
    if (out / MANIFEST).is_file() or not out.is_dir():
        return [out]
    folders = [path.parent for path in out.glob(f"*/{MANIFEST}")]
    # Settings are names with a number: the shorter name has the smaller one.
    return sorted(folders, key=lambda folder: (len(folder.name), folder.name)) or [out]
