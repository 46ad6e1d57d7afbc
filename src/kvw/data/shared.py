"""Sets of examples with what belongs to them: retain examples that all requests share, and earlier requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvw.data.example import Example

SHARED = frozenset({"everyday", "facts", "pictures", "text"})
"""The sources that do not depend on what is to be forgotten."""


def is_shared(example: Example) -> bool:
    """Whether an example comes from such a source."""
    return example.metadata.get("source") in SHARED


class RetainSet(Sequence[Example]):
    """Retain examples, and the shared ones that are not among them because they mention what is to be forgotten.

    Args:
        examples: What must stay.
        excluded: The shared examples that were left out. What was measured on all shared examples is good for this
            request, too, once they are taken out.
    """

    def __init__(self, examples: Iterable[Example], excluded: Iterable[Example] = ()) -> None:
        self._examples = list(examples)
        self.excluded = tuple(excluded)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        return self._examples[index]


class ForgetSet(Sequence[Example]):
    """Forget examples, and what was kept of earlier requests that are to be forgotten with them.

    Args:
        examples: What is to be forgotten.
        earlier: From methods that :attr:`kvw.methods.method.Method.takes_earlier`.
    """

    def __init__(self, examples: Iterable[Example], earlier: Iterable[Any]) -> None:
        self._examples = list(examples)
        self.earlier = tuple(earlier)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        return self._examples[index]
