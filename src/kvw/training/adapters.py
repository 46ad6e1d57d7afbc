"""LoRA adapters on a live model, by peft."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.batch_sizing import out_of_memory
from kvw.models.value_matrix import linear_shape
from kvw.training.parts import find_parts, trained_names
from kvw.training.settings import LoraSettings, Part


def load_peft() -> ModuleType:
    """Import peft, which takes seconds.

    Raises:
        UserError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise UserError(
            "LoRA needs the package peft.", found=str(error), do="install it with: pip install 'kvw[train]'"
        ) from error
    return peft


def linear_names(model: PreTrainedModel, parts: Sequence[Part], layers: tuple[int, int] | None) -> list[str]:
    """The linear maps of some parts of a model, the output layer excepted; see :func:`trained_names`.

    Raises:
        UserError: The model has no such part, or the part has no linear map.
    """
    output = find_parts(model).output
    linear = [name for name, module in model.named_modules() if linear_shape(module) and name != output]
    names = trained_names(model, parts, layers, linear)
    if not names:
        raise UserError(
            f"There is no linear map for an adapter in {', '.join(parts)} of {type(model).__name__}.",
            do="train these parts in full, or choose other parts",
        )
    return names


class Adapter:
    """Adapters that act on a model. The model object stays the one to call; peft's wrapper is kept aside.

    Args:
        model: A model without adapters; its linear maps are replaced by peft's.
        targets: Full dotted names of the linear maps.
        settings: Rank, scale and dropout.
        seed: Seed of the first weights of A; B starts at zero, so the model's function is what it was.

    Attributes:
        config: peft's configuration of the adapters.
    """

    def __init__(self, model: PreTrainedModel, targets: Sequence[str], settings: LoraSettings, seed: int) -> None:
        peft = load_peft()
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            # As a pattern of full names: peft takes a list as suffixes, and q_proj is in vision towers too.
            target_modules="|".join(map(re.escape, targets)),
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._wrapper: Any = peft.get_peft_model(model, config)
        self._peft = peft
        self.config: Any = self._wrapper.peft_config["default"]
        # peft notes where this machine keeps the model.
        self.config.base_model_name_or_path = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained: ``<linear map>.lora_A.default.weight`` (rank, in) and ``lora_B`` (out, rank)."""
        base = self._wrapper.get_base_model()
        return {name: parameter for name, parameter in base.named_parameters() if ".lora_" in name}

    def tensors(self) -> dict[str, Tensor]:
        """Copies on the CPU, under the names of a peft adapter file."""
        state = self._peft.get_peft_model_state_dict(self._wrapper)
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The model without its adapters for the block."""
        with self._wrapper.disable_adapter():
            yield

    def merge(self) -> None:
        """Add the adapters to the weights and take them off; the model is a plain one again.

        Raises:
            UserError: They hold NaN or infinity; they are taken off without merging. (If only their product has some,
                in 16 bits, linear maps before that one are merged already.)
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters.values()):
            self.detach()
            raise UserError(
                "The adapters could not be merged.",
                found="weights that are not finite",
                do="train with a smaller learning_rate, or in float32",
            )
        try:
            self._wrapper.merge_and_unload(safe_merge=True)
        except ValueError as error:
            self.detach()
            raise UserError(
                "The adapters could not be merged.",
                found=str(error),
                do="train with a smaller learning_rate, or in float32",
            ) from error

    def detach(self) -> None:
        """Take the adapters off without merging; the model is bit for bit what it was."""
        self._wrapper.unload()


def merge_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Add an adapter folder to the weights of a live plain model, in place.

    Raises:
        UserError: There is no adapter in the folder, or it is for another model.
    """
    peft = load_peft()
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} is not an adapter folder.",
            found="no adapter_config.json",
            do="name the folder that training has written",
        )
    try:
        with warnings.catch_warnings():
            # Weights that find no place are only a warning to peft.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            wrapper = peft.PeftModel.from_pretrained(model, folder)
        wrapper.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, UserWarning) as error:
        if out_of_memory(error):
            raise
        raise UserError(
            f"The adapter {folder} does not fit this {type(model).__name__}.",
            found=str(error).splitlines()[0],
            do="use it with the model that it was trained on",
        ) from error
