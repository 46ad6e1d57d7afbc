"""Questions of general ability that ship with kvw. No run uses them for an edit or for its strength."""

from __future__ import annotations

from pathlib import Path

GENERAL = {
    "general": Path(__file__).parent / "language.jsonl",
    "general-pictures": Path(__file__).parent / "pictures.jsonl",
}
"""Data files by what ``--eval`` calls them: ten kinds of ten questions in words, and questions about drawn pictures."""
