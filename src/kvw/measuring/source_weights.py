"""From shares of sources to a weight for every token of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.positions import predicting_positions
from kvw.measuring.sources import Sources

IMAGE_TOKENS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")


def image_token_ids(model: PreTrainedModel) -> tuple[int, ...]:
    """Ids of the placeholders that images and videos take in ``input_ids``; none for text models and for models that
    see images by cross-attention."""
    ids = (getattr(model.config, name, None) for name in IMAGE_TOKENS)
    return tuple(dict.fromkeys(value for value in ids if isinstance(value, int)))


def source_weights(
    batch: Mapping[str, Tensor], sources: Sources, rows: Tensor, image_ids: Sequence[int] = ()
) -> Tensor:
    """The weight of every token in the second moment, source by source.

    A row's weights add up to the row's own weight, whatever its length and padding: the share of each source that the
    row has is spread evenly over its positions.

    Args:
        batch: ``labels``, and ``attention_mask`` unless nothing is padded, both (batch, tokens); ``input_ids`` if there
            are images.
        sources: Shares.
        rows: Weight of each row: (batch,), float64.
        image_ids: From :func:`image_token_ids`.

    Returns:
        (sources, batch * tokens), float64, on the CPU, in the order of :data:`~kvw.measuring.sources.SOURCES`.

    Raises:
        UserError: Labels, mask and ids do not have the same shape.
    """
    predicting = predicting_positions(batch).cpu()
    answer = torch.zeros(batch["labels"].shape, dtype=torch.bool)
    answer.view(-1)[predicting] = True
    attended = batch.get("attention_mask", torch.ones_like(batch["labels"])).bool().cpu()
    first = attended & (attended.cumsum(1) == 1)  # of each row, also if it is padded on the left
    image = torch.zeros_like(answer)
    ids = batch.get("input_ids")
    if ids is not None and ids.shape != answer.shape:
        raise UserError(
            "The labels do not line up with the tokens.",
            found=f"labels {tuple(answer.shape)}, input_ids {tuple(ids.shape)}",
            do="give labels of the shape of input_ids",
        )
    if ids is not None and image_ids:
        image = torch.isin(ids.cpu(), torch.tensor(image_ids))
    # Each position is of one source: answer before first token before image before prompt.
    image &= attended & ~answer & ~first
    prompt = attended & ~answer & ~first & ~image
    first &= ~answer
    image &= (image.cumsum(1) - 1) % sources.image_every == 0
    masks = torch.stack([answer, prompt, image, first]).double()  # (sources, rows, tokens)
    counts = masks.sum(2)  # (sources, rows)
    # A row without images gives their share to its other sources.
    shares = torch.tensor(sources.shares, dtype=torch.float64)[:, None] * (counts > 0)
    shares = shares / shares.sum(0).clamp(min=torch.finfo(torch.float64).tiny)
    return (masks * (shares * rows / counts.clamp(min=1))[:, :, None]).flatten(1)
