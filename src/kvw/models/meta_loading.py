"""What transformers would make of a checkpoint's weights, found out from their names and shapes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import str_to_torch_dtype
from transformers.utils import logging

from kvw.errors import UserError
from kvw.models.config_check import built_from_config
from kvw.models.headers import read_header
from kvw.models.weight_files import weight_files


@dataclass(frozen=True)
class Report:
    """How the tensors of a checkpoint's files and the parameters of its model fit.

    Args:
        missing: Parameters that no tensor fills; transformers would make random ones.
        unexpected: Tensors that no parameter takes.
        mismatched: Parameters whose tensor has another shape, with both shapes.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    def refuse_unfit(self, name: str) -> None:
        """Refuse weights that would be replaced by random ones.

        Args:
            name: The checkpoint, for the message.

        Raises:
            UserError: Parameters are missing or mismatched.
        """
        if self.missing:
            raise UserError(
                f"The checkpoint {name} lacks weights, and random ones would take their place.",
                found=_some(self.missing),
                do="get a complete checkpoint",
            )
        if self.mismatched:
            raise UserError(
                f"The weights of {name} could not be loaded: they have other shapes than its config.json says.",
                found=_some(self.mismatched),
                do="get the configuration of these weights",
            )


def loading_report(model: PreTrainedModel, checkpoint_folder: Path) -> Report:
    """Load a checkpoint on the ``meta`` device, where tensors have shapes and no content.

    Names and conversions are those of transformers, as they would be for the real weights, and nothing but the
    headers of the files is read.

    Args:
        model: Its skeleton; left as it is.
        checkpoint_folder: Where its files are.

    Raises:
        UserError: A file is damaged, or transformers cannot convert what it holds.
    """
    tensors: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for path in weight_files(checkpoint_folder):
        for name, stored in read_header(path).items():
            if stored.dtype not in str_to_torch_dtype:
                raise UserError(
                    f"{path.name} holds a tensor of an unknown dtype.",
                    found=f"{name} in {stored.dtype}",
                    do="write the checkpoint in bfloat16, float16 or float32",
                )
            tensors[name] = str_to_torch_dtype[stored.dtype], stored.shape
    config = copy.deepcopy(model.config)
    config.name_or_path = ""
    settings = config.to_json_string(use_diff=False)
    return _report_on(_Described(type(model), settings, tuple(tensors.items()), config, checkpoint_folder))


@dataclass(frozen=True)
class _Described:
    """All that a report depends on; ``config`` and ``folder`` say the same as the rest once more, for transformers."""

    model: type[PreTrainedModel]
    settings: str
    tensors: tuple[tuple[str, tuple[torch.dtype, tuple[int, ...]]], ...]
    config: PretrainedConfig = field(compare=False)
    folder: Path = field(compare=False)


@lru_cache(maxsize=8)
def _report_on(described: _Described) -> Report:
    """The report; one run asks for it several times, of a checkpoint and of copies that must be like it."""
    tensors: dict[str, Tensor] = {
        name: torch.empty(shape, dtype=dtype, device="meta") for name, (dtype, shape) in described.tensors
    }
    with built_from_config(described.folder), _quiet():
        loaded: Any = described.model.from_pretrained(
            None,
            config=described.config,
            state_dict=tensors,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    info = loaded[1]
    mismatched = (f"{name} {list(stored)}, by config.json {list(own)}" for name, stored, own in info["mismatched_keys"])
    return Report(
        tuple(sorted(info["missing_keys"])), tuple(sorted(info["unexpected_keys"])), tuple(sorted(mismatched))
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress and no table of unexpected tensors: both come when the weights themselves are loaded."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
