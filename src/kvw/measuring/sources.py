"""Which positions count when measuring, and in second moments how much."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal

from kvw.errors import UserError

Positions = Literal["answer", "all"]
"""``answer``: positions that predict an answer token. ``all``: positions that predict any token of the sequence."""
SOURCES = ("answer", "prompt", "image", "first")


@dataclass(frozen=True)
class Sources:
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

    answer: float = 0.5
    prompt: float = 0.15
    image: float = 0.25
    first: float = 0.1
    image_every: int = 10

    def __post_init__(self) -> None:
        shares = self.shares
        if not all(share >= 0 and math.isfinite(share) for share in shares) or not sum(shares):
            raise UserError(
                "The shares of the sources must be numbers of at least 0, not all of them 0.", found=str(asdict(self))
            )
        if not isinstance(self.image_every, int) or self.image_every < 1:
            raise UserError("image_every must be a whole number of at least 1.", found=repr(self.image_every))

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares in the order of :data:`SOURCES`; they need not add up to 1."""
        return self.answer, self.prompt, self.image, self.first
