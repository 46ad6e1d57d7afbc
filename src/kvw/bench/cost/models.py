"""Models of real shapes with random weights, made where they are used: nothing is downloaded or read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from kvw.bench.cost.recipe import SHAPES, TOY_PREFIX, ModelPart, check_config
from kvw.models.loading import find_checkpoint, is_text_model, load_config
from kvw.models.placement import find_device
from kvw.toy import checkpoint


def find_config(name: str) -> PretrainedConfig:
    """The configuration of a shipped shape, of a shipped toy model, of a folder or of a hub id.

    Raises:
        UserError: There is none; the message names the closest shape.
    """
    if name.startswith(TOY_PREFIX):
        return _of_file(checkpoint("gold" if name == f"{TOY_PREFIX}gold" else "vanilla") / "config.json")
    if "/" in name or Path(name).is_dir():
        return load_config(find_checkpoint(name))
    check_config(name)
    return _of_file(SHAPES / f"{name}.json")


def random_model(part: ModelPart) -> PreTrainedModel:
    """A model with random weights on its device, in evaluation mode; the same weights at every call.

    Weights are drawn as transformers does for training from scratch, on the device and in the dtype, so it never takes
    more than its own memory.

    Raises:
        UserError: There is no such configuration or device.
    """
    config, device = find_config(part.config), find_device(part.device or None)
    torch.manual_seed(0)
    with device:
        model = build(config, getattr(torch, part.dtype))
    model.eval()
    return model


def build(config: PretrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A model of images and text, or of text alone, with the weights that it begins with; in float32 if not told."""
    factory: Any = AutoModelForCausalLM if is_text_model(config) else AutoModelForImageTextToText
    model: PreTrainedModel = factory.from_config(config, dtype=dtype or torch.float32)
    return model


def _of_file(path: Path) -> PretrainedConfig:
    values = json.loads(path.read_text("utf-8"))
    config: PretrainedConfig = AutoConfig.for_model(**values)
    return config
