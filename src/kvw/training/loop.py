"""The one training loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env, reduce
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import Prepared
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.fingerprint import digest, example_digest, processor_parts
from kvw.progress import Progress
from kvw.training.answers import answers
from kvw.training.objective import Objective, Sets, Side, Term
from kvw.training.plan import Plan
from kvw.training.settings import TrainingSettings, identified, learning_rate
from kvw.training.sparsity import importance_of, redistributed
from kvw.training.state import Progressed, StepRecord, load_state, save_state
from kvw.training.trainee import Trainee

SEEDS_APART = 1_000_003
"""So that the steps of trainings with neighbouring seeds draw different numbers."""
SAMPLED = 16
"""Numbers of each weight that tell whether a model is the one that training began with."""


def train(
    trainee: Trainee,
    objective: Objective,
    sets: Sets,
    *,
    about: Mapping[str, object],
    state: Path | None = None,
    progress: Progress | None = None,
) -> Progressed:
    """Minimise an objective.

    Every step takes its examples from :class:`~kvw.training.plan.Plan`, sums losses over forwards (and over the
    processes that accelerate started), divides by the number of answer tokens or examples of the whole step, clips and
    updates once per pass. Dropout is seeded anew for each step; the caller's random numbers stay as they are.

    Args:
        trainee: From :func:`kvw.training.trainee.in_training`.
        objective: What to minimise.
        sets: The forget set and the retain set.
        about: Method and settings, for the saved state.
        state: Where to save the state. One of the same training is gone on with, to the same final weights.
        progress: Called after every step with the steps done and their total.

    Raises:
        UserError: A loss or gradient is not finite, a set is empty, or the saved state belongs to another training.
    """
    # As accelerate's own Accelerator starts it: what its launcher was told comes by this variable.
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    settings = trainee.settings
    sets = {"forget": objective.examples or sets["forget"], "retain": sets["retain"]}
    plan = _plan(objective, sets, settings)
    optimizer = torch.optim.AdamW(
        trainee.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    identity = _identity(trainee, sets, about) if state is not None else {}
    progressed = Progressed()
    if state is not None and state.is_file():
        progressed = load_state(state, trainee.parameters, optimizer, identity, objective.beside)
    for step in range(len(progressed.history), plan.steps):
        if step and step % plan.steps_per_epoch == 0:
            _leave_out(objective, progressed, step, step // plan.steps_per_epoch)
        if progressed.stopped:
            break
        examples = _examples(objective, plan, step, progressed.active)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed * SEEDS_APART + step)
            record, progressed.stopped = _step(trainee, objective, sets, examples, optimizer, step, plan.steps)
        if not progressed.stopped:
            progressed.history.append(record)
        done = step + 1 == plan.steps or bool(progressed.stopped)
        if state is not None and (done or (step + 1) % settings.save_every == 0):
            if PartialState().is_main_process:
                save_state(state, trainee.parameters, optimizer, progressed, identity, objective.beside)
            PartialState().wait_for_everyone()
        if progress:
            progress(step + 1, plan.steps)
    if objective.finish is not None:
        with torch.no_grad():
            objective.finish(trainee.parameters)
    return progressed


def _leave_out(objective: Objective, progressed: Progressed, step: int, epoch: int) -> None:
    """Before an epoch, ask the objective which forget examples are still trained, and stop if none is."""
    if objective.active is None or progressed.stopped:
        return
    progressed.active = list(objective.active(epoch))
    if not progressed.active:
        progressed.stopped = f"step {step}: the model no longer says any of the forget answers"


def _examples(objective: Objective, plan: Plan, step: int, active: Sequence[int] | None) -> dict[Side, tuple[int, ...]]:
    """The positions of a step's examples in each set; none in either if all its forget examples are left out."""
    chosen: dict[Side, tuple[int, ...]] = {side: plan.examples(step, side) for side in plan.counts}
    if active is not None:
        trained = set(active)
        chosen["forget"] = tuple(index for index in chosen["forget"] if index in trained)
        if not chosen["forget"]:
            return dict.fromkeys(chosen, ())
    if objective.pairs:
        chosen["retain"] = tuple(objective.pairs[index] for index in chosen["forget"])
    return chosen


def _step(
    trainee: Trainee,
    objective: Objective,
    sets: Sets,
    examples: Mapping[Side, tuple[int, ...]],
    optimizer: torch.optim.Optimizer,
    step: int,
    steps: int,
) -> tuple[StepRecord, str]:
    """One optimiser step; returns its record and, if it was not finished, which rule stopped it."""
    settings = trainee.settings
    losses: dict[str, float] = {}
    norms: list[float] = []
    rate = learning_rate(settings, step, steps)
    if not any(examples.values()):
        return StepRecord(step, (), (), losses, (), rate), ""
    for group in optimizer.param_groups:
        group["lr"] = rate
    if settings.retain_ceiling is not None:
        losses["watched retain"] = _watched(trainee, sets["retain"], examples["retain"])
    if objective.before_step is not None:
        objective.before_step(examples)
    stopped = ""
    for part in objective.passes:
        optimizer.zero_grad(set_to_none=True)
        for side in part.sides:
            if (term := objective.term(side)) is not None:
                losses[side] = add_gradients(trainee, term, sets[side], examples[side])
        stopped = _reason_to_stop(settings, step, losses)
        if stopped:
            break
        masks = objective.masks if part.masked else {}
        norms.append(update(trainee, optimizer, settings.clip, masks, objective.steps))
    return StepRecord(step, examples["forget"], examples["retain"], losses, tuple(norms), rate), stopped


def add_gradients(trainee: Trainee, term: Term, prepared: Sequence[Prepared], indices: Sequence[int]) -> float:
    """Add the gradient of one term over some examples to the parameters; batches are shared out over the processes.

    Args:
        trainee: The model.
        term: The loss.
        prepared: The set.
        indices: Its examples that count, each as often as it is named.

    Returns:
        The term's mean over these examples, unweighted.

    Raises:
        UserError: The gradient is not finite.
    """
    processes = PartialState()
    units = sum(len(prepared[index].answer_ids) for index in indices) if term.per == "token" else len(indices)
    batches = trainee.batches(prepared, indices)
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches[processes.process_index :: processes.num_processes]:
        with trainee.autocast():
            loss = term.loss(trainee.model, trainee.rows(prepared, batch))
        value = loss.detach().double().cpu()
        if not math.isfinite(value):
            names = [prepared[index].example.identifier for index in batch]
            raise UserError(
                "The loss is not finite.",
                found=f"{value} on {', '.join(names[:5])}",
                do="lower the learning rate, or set retain_ceiling or forget_floor to stop before",
            )
        total += value
        torch.autograd.backward(loss * (term.weight / units))
    return float(_summed(total, trainee)) / units


def update(
    trainee: Trainee,
    optimizer: torch.optim.Optimizer,
    clip: float | None = None,
    masks: Mapping[str, Tensor] = {},
    steps: Mapping[str, Callable[[Tensor], Tensor]] = {},
) -> float:
    """One optimiser update, with the gradients that are there.

    Args:
        trainee: The model.
        optimizer: Over its parameters.
        clip: Highest norm of the gradient; None does not clip.
        masks: See :class:`~kvw.training.objective.Objective`.
        steps: The same.

    Returns:
        The norm of the gradient before clipping.

    Raises:
        UserError: The gradient is not finite.
    """
    parameters, settings = trainee.parameters, trainee.settings
    survivors = {name: alive for name, alive in trainee.survivors.items() if name in parameters}
    if PartialState().num_processes > 1:
        for parameter in parameters.values():
            mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(mine, reduction="sum")
    if settings.redistribution == "off":
        masks = _both(masks, survivors)
    for name, mask in masks.items():
        gradient = parameters[name].grad
        if gradient is not None:
            gradient.mul_(mask)
    norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), math.inf if clip is None else clip))
    if not math.isfinite(norm):
        raise UserError(
            "The gradient is not finite.", found=str(norm), do="lower the learning rate, or load in float32"
        )
    # Gradients of zero do not hold weights still: the optimiser decays weights and remembers earlier gradients.
    before = {name: parameters[name].detach().clone() for name in {*masks, *steps, *survivors}}
    optimizer.step()
    with torch.no_grad():
        for name, instead in steps.items():
            parameters[name].copy_(before[name] + instead(parameters[name] - before[name]))
        if settings.redistribution != "off":
            for name, alive in survivors.items():
                _redistribute(parameters[name], before[name], alive, settings)
        for name, mask in masks.items():
            parameters[name].copy_(torch.where(mask, parameters[name], before[name]))
    return norm


def _redistribute(parameter: nn.Parameter, before: Tensor, alive: Tensor, settings: TrainingSettings) -> None:
    """Keep the zeros of a matrix that an optimiser has moved; the steps stay those of one that moved them, too."""
    gradient = torch.zeros_like(before) if parameter.grad is None else parameter.grad
    weights = importance_of(before, gradient, settings.importance)
    rows = len(before) if settings.redistribution == "row" else 1
    parameter.copy_(before + redistributed(parameter - before, alive, weights, rows, settings.largest_step))


def _both(masks: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that hold what either holds."""
    return {**masks, **{name: mask & masks[name] if name in masks else mask for name, mask in others.items()}}


def _plan(objective: Objective, sets: Sets, settings: TrainingSettings) -> Plan:
    counts: dict[Side, int] = {"forget": 0, "retain": 0}
    for side in counts:
        watched = side == "retain" and settings.retain_ceiling is not None
        if objective.term(side) is not None or watched:
            counts[side] = len(sets[side])
            if not sets[side]:
                raise UserError(
                    f"The {side} set is empty.",
                    found="the retain ceiling needs it" if watched else "the method needs it",
                    do="give examples, or set the weight of its loss to 0",
                )
    if not any(counts.values()):
        raise UserError(
            "There is nothing to train on.",
            found="every loss has the weight 0",
            do="set the weight of one of them above 0",
        )
    return Plan(counts, settings.batch_size * settings.accumulation, settings.epochs, settings.seed)


def _watched(trainee: Trainee, prepared: Sequence[Prepared], indices: Sequence[int]) -> float:
    """Mean negative log-likelihood per answer token, as the model answers now."""
    total, tokens = 0.0, 0
    with evaluating(trainee.model), trainee.autocast():
        for batch in trainee.batches(prepared, indices):
            losses = answers(trainee.model, trainee.rows(prepared, batch).batch).losses
            total, tokens = total + float(losses.double().sum()), tokens + len(losses)
    return total / tokens


def _reason_to_stop(settings: TrainingSettings, step: int, losses: Mapping[str, float]) -> str:
    ceiling, floor = settings.retain_ceiling, settings.forget_floor
    if ceiling is not None and losses["watched retain"] >= ceiling:
        return f"step {step}: the retain loss {losses['watched retain']:.4g} has reached the ceiling {ceiling:g}"
    if floor is not None and losses.get("forget", math.inf) <= floor:
        return f"step {step}: the forget loss {losses['forget']:.4g} has reached the floor {floor:g}"
    return ""


def _summed(value: Tensor, trainee: Trainee) -> Tensor:
    """The sum over the processes."""
    if PartialState().num_processes == 1:
        return value
    total: Tensor = reduce(value.to(trainee.model.device), reduction="sum")
    return total


def _identity(trainee: Trainee, sets: Sets, about: Mapping[str, object]) -> dict[str, str]:
    """What the result depends on, part by part."""
    settings = {name: value for name, value in identified(trainee.settings).items() if name != "save_every"}
    return {
        **{name: digest(json.loads(json.dumps(value, default=str))) for name, value in about.items()},
        "training settings": digest(settings),
        "forget set": digest([example_digest(item.example) for item in sets["forget"]]),
        "retain set": digest([example_digest(item.example) for item in sets["retain"]]),
        "processor": digest(processor_parts(trainee.processor)),
        "model": _sampled_digest(trainee.model),
        "reference": _sampled_digest(trainee.other) if trainee.other is not None else "",
    }


def _sampled_digest(model: PreTrainedModel) -> str:
    """Tells models apart by the first numbers of each weight: training moves those as well as any."""
    weights = model.named_parameters()
    return digest([(name, list(weight.shape), weight.flatten()[:SAMPLED].tolist()) for name, weight in weights])
