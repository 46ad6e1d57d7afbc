"""A small network that changes pictures within a bound, trained against the model that is to forget them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import Prepared
from kvw.data.images import load_image
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.evaluation.tower import tower_features
from kvw.methods.steering.perturbation import PIXELS, PixelRange, to_8_bits
from kvw.training.objective import Rows


class PixelGenerator(nn.Module):
    """Three linear maps with ReLU between them, and tanh: from what the tower sees to a change of each pixel.

    Args:
        features: Width of what it reads.
        hidden: Width between its maps.
        pixels: How many numbers it changes: height x width x 3.
        epsilon: The most that it changes one by, in brightness from 0 to 1.
    """

    def __init__(self, features: int, hidden: int, pixels: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.maps = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, pixels)
        )

    def forward(self, seen: Tensor) -> Tensor:
        """(images, features) to changes within epsilon: (images, pixels)."""
        changes: Tensor = self.epsilon * torch.tanh(self.maps(seen))
        return changes


class Adversary:
    """Changes the pictures of examples by a :class:`PixelGenerator`, and trains it.

    Args:
        model: The model before training; its tower's output is read once and stays what it was.
        processor: Its processor.
        items: The examples; each shows a picture.
        hidden: See :class:`PixelGenerator`.
        epsilon: The same.
        rate: Learning rate of its AdamW.
        seed: Of its first weights.

    Attributes:
        generator: The network.
        beside: Its weights and what its optimiser remembers, for saved states.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        items: Sequence[Prepared],
        *,
        hidden: int,
        epsilon: float,
        rate: float,
        seed: int,
    ) -> None:
        device = model.device
        by_size: dict[tuple[tuple[int, int], ...], PixelRange] = {}
        self._ranges: list[PixelRange] = []
        for item in items:
            sizes = tuple(load_image(source, item.example.identifier).size for source in item.example.images)
            if sizes not in by_size:
                by_size[sizes] = PixelRange.measure(item, processor).on(device)
            self._ranges.append(by_size[sizes])
        read = tower_features(model, processor)
        seen = [torch.tensor([read(image) for image in item.example.images]).mean(0) for item in items]
        self._seen = torch.stack(seen).to(device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            most = max(found.pixels for found in self._ranges)
            self.generator = PixelGenerator(self._seen.shape[1], hidden, most, epsilon).to(device)
        self._optimizer = torch.optim.AdamW(self.generator.parameters(), lr=rate, weight_decay=0.0)
        self.beside = self._remembered()

    def pixels(self, rows: Rows) -> Tensor:
        """``pixel_values`` of a batch with every picture changed, differentiable by the generator.

        They are 8-bit values within epsilon of the original ones; rounding has the gradient of none.

        Raises:
            UserError: The pictures of a batch are laid out otherwise than those of each example alone.
        """
        given = rows.batch[PIXELS]
        ranges = [self._ranges[index] for index in rows.indices]
        lengths = [len(found.black) for found in ranges]
        if sum(lengths) != len(given) or any(found.black.shape[1:] != given.shape[1:] for found in ranges):
            raise UserError(
                "The pictures of a batch cannot be told apart.",
                found=f"pixel values of {list(given.shape)} for {[list(found.black.shape) for found in ranges]}",
                do="set batch_size to 1",
            )
        changes = self.generator(self._seen[list(rows.indices)])
        parts = []
        for found, own, change in zip(ranges, torch.split(given, lengths), changes, strict=True):
            clean = found.brightness(own.float()).clamp(0, 1)
            moved = (clean + change[: found.pixels][found.pixel]).clamp(0, 1)
            rounded = to_8_bits(moved.detach(), clean, self.generator.epsilon)
            parts.append(found.values(moved + (rounded - moved).detach()))
        return torch.cat(parts).to(given.dtype)

    def ascend(self, losses: Sequence[Callable[[], Tensor]]) -> None:
        """One step that makes the sum of losses larger; each is worked out and freed before the next."""
        weights = list(self.generator.parameters())
        self._optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            for weight, gradient in zip(weights, torch.autograd.grad(-loss(), weights), strict=True):
                weight.grad = gradient if weight.grad is None else weight.grad + gradient
        self._optimizer.step()

    def _remembered(self) -> dict[str, Tensor]:
        """The tensors that steps change in place; those of the optimiser are made by a step that moves nothing."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        for weight in self.generator.parameters():
            weight.grad = torch.zeros_like(weight)
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        self._optimizer.step()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        found = {}
        for name, weight in self.generator.named_parameters():
            found[name] = weight.data
            for key, value in self._optimizer.state[weight].items():
                value.zero_()
                found[f"{key}.{name}"] = value
        return found
