"""The base of what is written as JSON and read again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A model whose values stay as they are, and that refuses fields which it does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
