"""From a folder or hub id to a model that is safe to measure."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_MAPPING,
)

from kvw.data.templates import chat_template, check_bounds, with_options
from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.models.checkpoint import Checkpoint, checkpoint_of, find_checkpoint, first_line
from kvw.models.config_check import built_from_config, check_config, check_encoder, not_usable
from kvw.models.detection import confirm_value_matrices
from kvw.models.meta_loading import Report, loading_report
from kvw.models.placement import device_map, execution_device
from kvw.models.quantised import FULL_PRECISION, Quantise, plain_tensors, quantisation, stored_quantisation
from kvw.models.repairs import repair_processor
from kvw.models.weight_files import find_weights

NO_ADAPTER = ".no-adapter"
"""A folder that no checkpoint has. Transformers puts an adapter that lies beside the weights on the model if peft is
installed; it finds none where it looks for it here, so what is loaded does not depend on that."""

__all__ = [
    "Checkpoint",
    "check_finite",
    "find_checkpoint",
    "is_text_model",
    "load_config",
    "load_model",
    "load_processor",
    "skeleton",
]


def load_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """Read a checkpoint's configuration.

    Raises:
        UserError: It cannot be read, or this transformers does not know it.
    """
    check_config(checkpoint.folder)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise UserError(
            f"The configuration of {checkpoint} could not be read.",
            found=first_line(error),
            do="download or write the model again, or use a version of transformers that knows it",
        ) from error
    except Exception as error:  # transformers lets through whatever wrong settings lead to
        raise not_usable(checkpoint.folder, error) from error
    check_encoder(checkpoint.folder, config)
    return config


def skeleton(checkpoint: Checkpoint, config: PretrainedConfig | None = None) -> PreTrainedModel:
    """The model's modules without weights (on the ``meta`` device), to look at its structure.

    Args:
        checkpoint: Its folder.
        config: Its configuration; None to read it.

    Raises:
        UserError: The installed transformers cannot build it.
    """
    # A decoder that is built of both halves writes into its configuration that there is no encoder.
    config = load_config(checkpoint) if config is None else copy.deepcopy(config)
    classes = (
        (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
        (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
        (AutoModel, MODEL_MAPPING),
    )
    factory: Any = next((factory for factory, known in classes if type(config) in known), None)
    if factory is not None:
        with built_from_config(checkpoint.folder), torch.device("meta"):
            model: PreTrainedModel = factory.from_config(config, trust_remote_code=False)
        if checkpoint.value_matrices:
            confirm_value_matrices(model, checkpoint.value_matrices)
        return model
    raise UserError(
        f"The installed transformers has no model class for '{config.model_type}'.",
        do="use a newer transformers, or one of the families listed in the documentation",
    )


def load_model(
    checkpoint: Checkpoint | str | Path,
    device: torch.device | str | None = None,
    *,
    quantise: Quantise | None = None,
    outline: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """Load a model in its own dtype and check that every weight is there and finite.

    Args:
        checkpoint: From :func:`find_checkpoint`, or what that takes; a model of images and text, or of text only.
        device: Where to; None for the accelerator if there is one, ``auto`` for all there are, and what does not fit
            offloaded to memory and disk.
        quantise: Quantise a full-precision checkpoint while it is loaded.
        outline: Its :func:`skeleton`, if there is one already.

    Raises:
        UserError: Unknown family, no such device, weights that are missing, unreadable, or hold NaN or infinity, or a
            package that quantised weights need is not installed.
    """
    checkpoint = checkpoint_of(checkpoint)
    config = load_config(checkpoint) if outline is None else outline.config
    # Refuses names that transformers would follow to a pickle or out of the folder.
    find_weights(checkpoint.folder).check_loadable()
    if not stored_quantisation(checkpoint.folder):  # packed weights have other names and shapes in files
        _report(checkpoint, outline or skeleton(checkpoint, config)).refuse_unfit(str(checkpoint))
    factory: Any = AutoModelForCausalLM if is_text_model(config) else AutoModelForImageTextToText
    options = {"quantization_config": _quantiser(checkpoint, config, quantise)} if quantise else {}
    try:
        loaded: Any = factory.from_pretrained(
            checkpoint.folder,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=False,
            device_map=device_map(device),
            output_loading_info=True,
            adapter_kwargs={"subfolder": NO_ADAPTER},
            **options,
        )
    except ImportError as error:
        raise UserError(
            f"The weights of {checkpoint} need a package that is not installed.",
            found=first_line(error),
            do="install it; for bitsandbytes: pip install 'kvw[quantised]'",
        ) from error
    except UserError:  # no such device
        raise
    except Exception as error:  # transformers lets through whatever damaged files and wrong settings lead to
        raise UserError(
            f"The weights of {checkpoint} could not be loaded.",
            found=first_line(error),
            do="download or write the model again",
        ) from error
    model: PreTrainedModel = loaded[0]
    Report(missing=tuple(sorted(loaded[1]["missing_keys"]))).refuse_unfit(str(checkpoint))
    check_finite(model)
    if checkpoint.value_matrices:
        confirm_value_matrices(model, checkpoint.value_matrices)
    model.eval()
    return model


def _report(checkpoint: Checkpoint, outline: PreTrainedModel) -> Report:
    try:
        return loading_report(outline, checkpoint.folder)
    except UserError as error:
        found = f"{error.what} {error.found}".strip()
        raise UserError(f"The weights of {checkpoint} could not be loaded.", found=found, do=error.do) from error


def is_text_model(config: PretrainedConfig) -> bool:
    """Whether a configuration is that of a text-only model."""
    return type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def load_processor(checkpoint: Checkpoint | str | Path, config: PretrainedConfig | None = None) -> Any:
    """Load the checkpoint's own processor (tokenizer, image processor, chat template).

    Args:
        checkpoint: From :func:`find_checkpoint`, or what that takes.
        config: Its configuration; None to read it.

    Returns:
        The processor; of a text-only model its tokenizer as a :class:`kvw.data.TextProcessor`.

    Raises:
        UserError: There is none, a package it needs is missing, or its chat template goes beyond the bounds of time and
            memory, or does not have an option; or it lacks a setting that the model's configuration does not have
            either.
    """
    checkpoint = checkpoint_of(checkpoint)
    config = config or load_config(checkpoint)
    text = is_text_model(config)
    factory: Any = AutoTokenizer if text else AutoProcessor
    try:
        loaded = factory.from_pretrained(checkpoint.folder, trust_remote_code=False)
    except Exception as error:  # the readers of tokenizers raise errors of no kind of their own
        raise UserError(
            f"The processor of {checkpoint} could not be loaded.",
            found=first_line(error),
            do="the folder needs the tokenizer and processor files beside the weights",
        ) from error
    processor = TextProcessor(loaded) if text else loaded
    if not text:
        repair_processor(processor, config)
    check_bounds(processor, str(checkpoint))
    if checkpoint.template_options:
        processor.chat_template = with_options(chat_template(processor), checkpoint.template_options)
        check_bounds(processor, str(checkpoint))
    return processor


def check_finite(model: PreTrainedModel) -> None:
    """Refuse weights that hold NaN or infinity; of packed weights the scales are looked at, too.

    Raises:
        UserError: Names the first such tensors.
    """
    device = execution_device(model)
    flags: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        packed = quantisation(module) is not None
        with align_module_device(module):  # brings offloaded weights here, one module at a time
            for name, tensor in plain_tensors(module):
                if name in module._parameters or packed:
                    flags[f"{prefix}.{name}".lstrip(".")] = _is_finite(tensor).to(device)
    found = torch.stack(list(flags.values())).tolist()
    broken = [name for name, finite in zip(flags, found, strict=True) if not finite]
    if broken:
        raise UserError(
            "The checkpoint's weights hold NaN or infinity.",
            found=", ".join(broken[:5]) + (", ..." if len(broken) > 5 else ""),
            do="get an intact checkpoint; this one cannot give meaningful answers",
        )


def _is_finite(tensor: Tensor) -> Tensor:
    # Eight-bit floats know NaN, but not how to look for it.
    if "float8" in str(tensor.dtype):
        tensor = tensor.float()
    return tensor.isfinite().all() if tensor.dtype in FULL_PRECISION else torch.tensor(True)


def _quantiser(checkpoint: Checkpoint, config: PretrainedConfig, quantise: Quantise) -> BitsAndBytesConfig:
    scheme = stored_quantisation(checkpoint.folder)
    if scheme:
        raise UserError(f"The checkpoint {checkpoint} is quantised already.", found=scheme, do="leave out --quantise")
    if quantise == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=config.dtype or torch.float32
    )
