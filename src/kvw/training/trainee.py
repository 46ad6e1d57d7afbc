"""A model made ready for training, and put back in order afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups, to_model
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.training.adapters import Adapter, linear_names
from kvw.training.answers import answers
from kvw.training.objective import Rows, Sets
from kvw.training.parts import trained_names, within
from kvw.training.settings import LoraSettings, TrainingSettings
from kvw.training.sparsity import surviving


class Reference:
    """A model that does not change while another (or the same one with adapters) is trained.

    Args:
        model: A model of its own, or the one being trained.
        adapter: The adapters to do without, if it is the one being trained.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter | None = None) -> None:
        self._model, self._adapter = model, adapter

    @contextmanager
    def model(self) -> Iterator[PreTrainedModel]:
        """The reference in evaluation mode and without gradients, for the block."""
        with ExitStack() as stack:
            if self._adapter is not None:
                stack.enter_context(self._adapter.disabled())
            stack.enter_context(evaluating(self._model))
            yield self._model


@dataclass(frozen=True)
class Trainee:
    """A model in training.

    Args:
        model: The model; with adapters inside it under LoRA.
        processor: Its processor.
        settings: How to train.
        forget: The forget set.
        retain: The retain set.
        parameters: What is trained, by name.
        adapter: The adapters, under LoRA.
        other: A model to take as the reference instead of the model before training.
        survivors: Where pruned matrices are not zero whose zeros are kept, by the names of the model without adapters:
            see :func:`kvw.training.sparsity.surviving`.
    """

    model: PreTrainedModel
    processor: Processor
    settings: TrainingSettings
    forget: Sequence[Prepared]
    retain: Sequence[Prepared]
    parameters: dict[str, nn.Parameter]
    adapter: Adapter | None = None
    other: PreTrainedModel | None = None
    survivors: Mapping[str, Tensor] = field(default_factory=dict)

    def only(self, modules: Sequence[str]) -> None:
        """Train nothing but what is in these modules, by dotted name without adapters; before the first step."""
        for name in [name for name in self.parameters if not within(name, modules)]:
            self.parameters.pop(name).requires_grad_(False)

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 for matrix products, if the settings say so."""
        if self.settings.precision == "bf16":
            return torch.autocast(self.model.device.type, torch.bfloat16)
        return nullcontext()

    def rows(self, prepared: Sequence[Prepared], indices: Sequence[int]) -> Rows:
        """Examples with equal image counts as a batch on the model's device."""
        batch = answer_batch([prepared[index] for index in indices], self.processor)
        return Rows(tuple(indices), to_model(batch, self.model))

    def batches(self, prepared: Sequence[Prepared], indices: Sequence[int]) -> list[tuple[int, ...]]:
        """Split examples into batches: equal image counts, at most ``batch_size`` examples."""
        size = self.settings.batch_size
        return [
            tuple(indices[position] for position in group[start : start + size])
            for group in image_groups([prepared[index] for index in indices])
            for start in range(0, len(group), size)
        ]

    def reference(self) -> Reference:
        """The model before training, for use while training: without its adapters, or else as a frozen copy.

        To be called before the first step.
        """
        if self.other is not None:
            return Reference(self.other)
        if self.adapter is not None:
            return Reference(self.model, self.adapter)
        return Reference(copy.deepcopy(self.model).requires_grad_(False))

    def reference_log_likelihoods(self, prepared: Sequence[Prepared]) -> Tensor:
        """log p(answer | question, images) under the model before training, summed over tokens.

        To be called before the first step; it needs no copy of the model, since what it says about fixed examples is
        a number each.

        Returns:
            (examples,), nats, on the model's device.
        """
        reference = Reference(self.other) if self.other is not None else Reference(self.model, self.adapter)
        sums = torch.zeros(len(prepared), device=self.model.device)
        with reference.model() as model, self.autocast():
            for batch in self.batches(prepared, range(len(prepared))):
                values = answers(model, self.rows(prepared, batch).batch).log_likelihoods
                sums = sums.to(values.dtype).index_copy(0, torch.tensor(batch, device=sums.device), values)
        return sums


@contextmanager
def in_training(
    model: PreTrainedModel,
    processor: Processor,
    settings: TrainingSettings,
    sets: Sets,
    *,
    layers: tuple[int, int] | None = None,
    other: PreTrainedModel | None = None,
) -> Iterator[Trainee]:
    """Make a model ready: choose what is trained, attach adapters, set the mode and the precision.

    At the end of the block adapters are merged into the weights, and modes, gradient flags and dtypes are what they
    were. If the block raises, adapters are taken off and the model is bit for bit what it was; a model trained in full
    stays as far as it came.

    Args:
        model: A plain model.
        processor: Its processor.
        settings: How to train.
        sets: The forget set and the retain set.
        layers: See :func:`kvw.training.parts.trained_names`.
        other: See :class:`Trainee`.

    Raises:
        UserError: The model has no such part, carries adapters, or has 16-bit weights that cannot be trained as they
            are.
    """
    if hasattr(model, "peft_config"):
        raise UserError(
            "The model carries a PEFT adapter already.", do="merge it first: model = model.merge_and_unload()"
        )
    adapter: Adapter | None = None
    with ExitStack() as stack:
        stack.enter_context(restored(model))
        if settings.lora is not None:
            targets = linear_names(model, settings.parts, layers)
            weights = {f"{name}.weight": getattr(model.get_submodule(name), "weight", None) for name in targets}
            survivors = surviving(model, weights, settings)
            stack.enter_context(_zeros_again(model, survivors))
            adapter = stack.enter_context(_adapted(model, targets, settings.lora, settings.seed))
            parameters = adapter.parameters
        else:
            parameters = _in_full(model, settings, layers)
            survivors = surviving(model, parameters, settings)
            stack.enter_context(_in_float32(parameters, settings))
        trainee = Trainee(
            model, processor, settings, sets["forget"], sets["retain"], parameters, adapter, other, survivors
        )
        model.requires_grad_(False)
        for parameter in trainee.parameters.values():
            parameter.requires_grad_(True)
        if settings.gradient_checkpointing:
            stack.enter_context(_checkpointing(model))
        model.train()
        yield trainee


@contextmanager
def restored(model: PreTrainedModel) -> Iterator[None]:
    """Give parameters their gradient flags and modules their training flags back after the block."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


@contextmanager
def _zeros_again(model: PreTrainedModel, survivors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put the zeros of pruned matrices back after adapters were merged into them."""
    yield
    with torch.no_grad():
        for name, alive in survivors.items():
            model.get_parameter(name).mul_(alive)


@contextmanager
def _adapted(model: PreTrainedModel, targets: Sequence[str], settings: LoraSettings, seed: int) -> Iterator[Adapter]:
    adapter = Adapter(model, targets, settings, seed)
    try:
        yield adapter
    except BaseException:
        adapter.detach()
        raise
    adapter.merge()


def _in_full(
    model: PreTrainedModel, settings: TrainingSettings, layers: tuple[int, int] | None
) -> dict[str, nn.Parameter]:
    named = dict(model.named_parameters())
    chosen = {name: named[name] for name in trained_names(model, settings.parts, layers, named)}
    for name, parameter in chosen.items():
        if not parameter.is_floating_point():
            raise UserError(
                f"{name} holds quantised weights, which cannot be trained.",
                found=str(parameter.dtype),
                do="train adapters (lora), or load the full-precision checkpoint",
            )
        if parameter.dtype in (torch.bfloat16, torch.float16) and settings.precision == "as loaded":
            raise UserError(
                "Small updates of 16-bit weights round to nothing.",
                found=f"{name} in {parameter.dtype}",
                do="set precision to bf16 (it keeps float32 weights meanwhile), load the model in float32, or use lora",
            )
    return chosen


@contextmanager
def _in_float32(parameters: dict[str, nn.Parameter], settings: TrainingSettings) -> Iterator[None]:
    """Keep what is trained in float32 at least under autocast; round it once at the end."""
    dtypes = {name: parameter.dtype for name, parameter in parameters.items()}
    if settings.precision == "bf16":
        for parameter in parameters.values():
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = parameter.data.to(dtypes[name])
            parameter.grad = None


@contextmanager
def _checkpointing(model: PreTrainedModel) -> Iterator[None]:
    # Newer releases of transformers have renamed both.
    model_: Any = model
    enable = getattr(model_, "activation_checkpointing_enable", None) or model_.gradient_checkpointing_enable
    disable = getattr(model_, "activation_checkpointing_disable", None) or model_.gradient_checkpointing_disable
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        yield
        return
    # The reentrant kind loses the gradients of adapters behind frozen embeddings.
    enable({"use_reentrant": False})
    try:
        yield
    finally:
        disable()
