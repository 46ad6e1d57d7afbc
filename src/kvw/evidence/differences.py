"""How files differ from what they should be, in words."""

from __future__ import annotations

from collections.abc import Mapping


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is missing, more or changed, in words and in the order of the names."""
    words = []
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            words.append(f"{name} is missing")
        elif name not in expected:
            words.append(f"{name} is not part of it")
        elif expected[name] != found[name]:
            words.append(f"{name} is another")
    return words
