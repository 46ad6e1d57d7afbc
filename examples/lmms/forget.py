"""What the task needs beside its file: the pictures of a question, and whether a reply says the answer."""

from typing import Any

from PIL import Image


def pictures(row: dict[str, Any]) -> list[Image.Image]:
    """Those of a row."""
    paths = row.get("images") or [path for path in [row.get("image")] if path]
    return [Image.open(path).convert("RGB") for path in paths]


def score(row: dict[str, Any], replies: list[str]) -> dict[str, float]:
    """1 if the reply says the answer."""
    return {"said": float(row["answer"].lower().rstrip(".") in replies[0].lower())}
