"""Everyday questions of all kinds, written for kvw: cooking, health, school, numbers, words, code, small talk."""

from __future__ import annotations

from pathlib import Path

QUESTIONS = Path(__file__).parent / "questions.txt"
"""One question a line. They name no person, place or work, so that they are about nobody's request."""


def everyday_questions() -> list[str]:
    """The shipped questions, in the order of the file."""
    return QUESTIONS.read_text("utf-8").splitlines()
