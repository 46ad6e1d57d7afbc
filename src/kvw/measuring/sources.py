"""Which positions count when measuring, and in second moments how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from kvw.errors import UserError
from kvw.settings import Count, NotNegative, Settings

Positions = Literal["answer", "all"]
"""``answer``: positions that predict an answer token. ``all``: positions that predict any token of the sequence."""
SOURCES = ("answer", "prompt", "image", "first")


@dataclass(frozen=True)
class Sources(Settings):
    """Shares of one example's second moment.

    An edit acts at every position, so what must stay as it is includes more than the answers. The share of a source
    that an example lacks goes to the others.

    Args:
        answer: Positions that predict an answer token.
        prompt: The other text.
        image: Image tokens.
        first: The first position, where many models keep activations of a size of their own.
        image_every: One image token in this many is taken, since there are many and they are alike.

    Raises:
        UserError: A share is negative, all are 0, or ``image_every`` is below 1.
    """

    answer: NotNegative = 0.5
    prompt: NotNegative = 0.15
    image: NotNegative = 0.25
    first: NotNegative = 0.1
    image_every: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not sum(self.shares):
            raise UserError(
                "The shares of the sources must not all be 0.",
                found=str(asdict(self)),
                do="give one of them a number above 0",
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares in the order of :data:`SOURCES`; they need not add up to 1."""
        return self.answer, self.prompt, self.image, self.first
