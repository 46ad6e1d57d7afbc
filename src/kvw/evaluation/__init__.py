"""Generating answers, scoring them, and how probable the reference answers are."""
