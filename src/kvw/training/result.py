"""What training leaves behind, as files and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kvw.claim import new_directory
from kvw.data.rendering import Processor
from kvw.edits.edit import package_versions
from kvw.errors import UserError
from kvw.files import write_text
from kvw.training.adapters import merge_adapter
from kvw.training.state import StepRecord, write_tensors

WEIGHTS, ADAPTER, RECORD = "weights.safetensors", "adapter_model.safetensors", "training.json"


@dataclass(frozen=True)
class Result:
    """What a method changed; the model itself holds it already.

    Args:
        method: Name of the method.
        settings: Settings of the method and of the training.
        weights: The weights that may have changed, by name: live tensors of the model, not copies.
        adapter: Under LoRA the adapters' tensors, under the names of a peft file; they are merged into ``weights``.
        adapter_config: peft's configuration of them; None without LoRA.
        history: One record per optimiser step, with the examples in it.
        stopped: Which stop rule ended training early; empty if none did.
        kept_zeros: How many zeros of a pruned model stayed zero. An adapter would fill them, so there is none then.
    """

    method: str
    settings: dict[str, Any]
    weights: Mapping[str, Tensor]
    adapter: Mapping[str, Tensor] = field(default_factory=dict)
    adapter_config: Any = None
    history: tuple[StepRecord, ...] = ()
    stopped: str = ""
    kept_zeros: int = 0

    def save(self, folder: Path | str, *, force: bool = False) -> None:
        """Write a folder: an adapter that peft and other programs load, or the changed weights; and a record.

        Raises:
            UserError: The folder holds something and ``force`` is off, or cannot be written.
        """
        with new_directory(Path(folder), "training", force=force) as temporary:
            if self.adapter_config is not None:
                write_tensors(temporary / ADAPTER, self.adapter, {"format": "pt"})
                self.adapter_config.save_pretrained(temporary)
            else:
                write_tensors(temporary / WEIGHTS, {name: value.contiguous() for name, value in self.weights.items()})
            record = {
                "method": self.method,
                "settings": self.settings,
                "stopped": self.stopped,
                "changed": sorted(self.weights),
                "versions": package_versions(),
                "history": [asdict(step) for step in self.history],
            }
            write_text(temporary / RECORD, json.dumps(record, indent=1, default=str) + "\n")


def apply_result(model: PreTrainedModel, folder: Path | str) -> None:
    """Put a saved result into the plain model that it was trained from: merge its adapter, or copy its weights.

    Raises:
        UserError: The folder holds no result, or one of another model.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file():
        merge_adapter(model, folder)
        return
    live = dict(model.named_parameters())
    try:
        stored = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise UserError(
            f"{folder / WEIGHTS} cannot be read.", found=str(error), do="make it again: the file is damaged"
        ) from error
    wrong = [name for name, value in stored.items() if name not in live or live[name].shape != value.shape]
    if wrong:
        raise UserError(
            f"The weights in {folder} do not fit this {type(model).__name__}.",
            found=", ".join(wrong[:3]),
            do="use them with the model that they were trained from",
        )
    with torch.no_grad():
        for name, value in stored.items():
            live[name].copy_(value)


def save_model(model: PreTrainedModel, processor: Processor, folder: Path | str, *, force: bool = False) -> None:
    """Write a trained model and its processor as an ordinary checkpoint folder.

    Raises:
        UserError: The folder holds something and ``force`` is off, or cannot be written.
    """
    with new_directory(Path(folder), "model", force=force, public=True) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
