"""Images changed within a bound until the model says a given text: projected gradient descent on pixels.

Madry et al., arXiv 1706.06083, with a target: x <- clip(x - step sign(grad CE(target))), kept within epsilon of the
original in every pixel. It acts on the pixels that the processor hands to the model, after resizing and cropping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import prepare
from kvw.data.batches import Prepared, answer_batch, prompt_batch, to_model
from kvw.data.images import load_image, png
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.methods.steering.settings import SteeringSettings

PIXELS = "pixel_values"
NOISE_IMAGES = 7
"""56 bits for each element: enough that two show the same values only if they show the same pixel."""


@dataclass(frozen=True)
class PixelRange:
    """What the processor makes of black and white, and which elements are one pixel.

    Measured with images of the same size, so neither the normalisation nor the layout of the family has to be known.

    Args:
        black: Elements of ``pixel_values`` where all images are black, float32.
        white: The same of white; equal to ``black`` in padding.
        pixel: Which pixel each element shows: int64, of the same shape (some processors repeat images in time).
        pixels: How many there are.
    """

    black: Tensor
    white: Tensor
    pixel: Tensor
    pixels: int

    @classmethod
    def measure(cls, item: Prepared, processor: Processor) -> PixelRange:
        """Find the range for images of the sizes that an example has."""
        images = [load_image(source, item.example.identifier) for source in item.example.images]
        sizes = [image.size for image in images]
        black, white = (
            _pixel_values(item, [Image.new("RGB", size, colour) for size in sizes], processor)
            for colour in ("black", "white")
        )
        random = Random(0)
        codes = torch.zeros_like(black, dtype=torch.int64)
        span = torch.where(white > black, white - black, 1.0)
        for _ in range(NOISE_IMAGES):
            noise = [Image.frombytes("RGB", size, random.randbytes(3 * size[0] * size[1])) for size in sizes]
            shown = (_pixel_values(item, noise, processor) - black) / span
            codes = codes * 256 + (shown * 255).round().clamp(0, 255).long()
        unique, pixel = torch.unique(codes, return_inverse=True)
        return cls(black, white, pixel, len(unique))

    def on(self, device: torch.device) -> PixelRange:
        """The same on a device."""
        return PixelRange(self.black.to(device), self.white.to(device), self.pixel.to(device), self.pixels)

    def brightness(self, pixels: Tensor) -> Tensor:
        """Elements of ``pixel_values`` as brightness from 0 to 1; 0 in padding."""
        span = self.white - self.black
        return torch.where(span != 0, (pixels - self.black) / torch.where(span != 0, span, 1.0), 0.0)

    def values(self, brightness: Tensor) -> Tensor:
        """Brightness as elements of ``pixel_values``."""
        return self.black + brightness * (self.white - self.black)

    def shared(self, elements: Tensor) -> Tensor:
        """The sum over all elements that show the same pixel, at each of them."""
        sums = elements.new_zeros(self.pixels).index_add_(0, self.pixel.flatten(), elements.flatten())
        return sums[self.pixel]


def perturbed(
    model: PreTrainedModel, processor: Processor, item: Prepared, settings: SteeringSettings, *, seed: str = "0"
) -> Tensor:
    """Change the images of an example so that the model becomes likelier to say the target.

    Args:
        model: The model; left as it is.
        processor: Its processor.
        item: The example; its answer is not looked at.
        settings: ``epsilon``, ``step``, ``steps``, ``random_start`` and ``target``.
        seed: Draws the random start.

    Returns:
        ``pixel_values`` of the example, float32, on the CPU: 8-bit pixels within epsilon of the original ones. At
        epsilon 0 the original ones.

    Raises:
        UserError: The example has no image, or the model is not differentiable with respect to it.
    """
    example = replace(item.example, answer=settings.target)
    if not example.images:
        raise UserError(
            f"{example.identifier}: there is no image to perturb.", do="set epsilon to 0, or give examples with images"
        )
    (target,) = prepare([example], processor)
    batch = answer_batch([target], processor)
    if settings.epsilon == 0:
        return batch[PIXELS].float()
    pixels = PixelRange.measure(target, processor)
    clean = pixels.brightness(batch[PIXELS].float()).clamp(0, 1)
    now = clean.clone()
    if settings.random_start:
        drawn = torch.rand(pixels.pixels, generator=torch.Generator().manual_seed(Random(seed).getrandbits(40)))
        now = _within(clean + settings.epsilon * (2 * drawn[pixels.pixel] - 1), clean, settings.epsilon)
    with evaluating(model):
        for _ in range(settings.steps):
            gradient = pixels.shared(_gradient(model, batch, pixels, now))
            now = _within(now - settings.step * gradient.sign(), clean, settings.epsilon)
    return pixels.values(to_8_bits(now, clean, settings.epsilon))


def to_8_bits(brightness: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """The nearest 8-bit values that are still within epsilon of the clean ones.

    Where there is none (epsilon below half a step) the clean value stays.
    """
    # A thousandth of a step, so that clean values that are 8-bit themselves are not lost to float32.
    slack = 1e-3
    lowest = (255 * (clean.double() - epsilon) - slack).ceil()
    highest = (255 * (clean.double() + epsilon) + slack).floor()
    levels = (255 * brightness.double()).round().clamp(min=lowest, max=highest).clamp(0, 255)
    return torch.where(lowest <= highest, levels / 255, clean.double()).float()


def _within(brightness: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    return brightness.clamp(min=clean - epsilon, max=clean + epsilon).clamp(0, 1)


def _gradient(model: PreTrainedModel, batch: dict[str, Tensor], found: PixelRange, brightness: Tensor) -> Tensor:
    """Gradient of the target's cross-entropy by brightness, float32, on the CPU."""
    with torch.enable_grad():
        leaf = brightness.detach().requires_grad_()
        inputs = to_model({**batch, PIXELS: found.values(leaf)}, model)
        loss = model(**inputs, use_cache=False).loss
        if not loss.requires_grad:
            raise UserError(
                "The model cannot be differentiated with respect to its images.",
                found=type(model).__name__,
                do="set epsilon to 0, or load the model in full precision",
            )
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient


def _pixel_values(item: Prepared, images: Sequence[Image.Image], processor: Processor) -> Tensor:
    """What the processor makes of these images in place of the example's, float32."""
    shown = replace(item, example=replace(item.example, images=tuple(map(png, images))))
    return prompt_batch([shown], processor)[PIXELS].float()
