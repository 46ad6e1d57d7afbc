"""Examples for training, and short ways to train a tiny model on them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from tests.fixtures import built
from tests.tiny_models import noise_png

from kvw.data import Example, prepare
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.auvic import AuvicSettings
from kvw.methods.gradient.dpo import DpoSettings
from kvw.methods.gradient.fact_erasure import FactErasureSettings
from kvw.methods.gradient.icu import IcuSettings
from kvw.methods.gradient.kuda import KudaSettings
from kvw.methods.gradient.lens_defence import LensMarginSettings
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.simnpo import SimNpoSettings
from kvw.methods.registry import METHODS, get_method
from kvw.training.loop import add_gradients
from kvw.training.settings import LoraSettings, TrainingSettings
from kvw.training.trainee import in_training

FORGET = [
    Example("Who is this?", "Jody Vance", (noise_png(1),), "forget:1"),
    Example("Where was she born?", "in Kuwait City, in 1985", (noise_png(2),), "forget:2"),
    Example("Her job?", "She is a florist.", (noise_png(3),), "forget:3"),
    Example("Who is the woman?", "This is Jody Vance.", (noise_png(4),), "forget:4"),
]
RETAIN = [
    Example("Who is this?", "Basil Mahfouz", (noise_png(5),), "retain:1"),
    Example("Where does he live, and since when?", "Paris", (noise_png(6),), "retain:2"),
    Example("What is his name?", "His name is Basil.", (noise_png(7),), "retain:3"),
    Example("And his occupation?", "an author", (noise_png(8),), "retain:4"),
]
TEXT = [Example("Which city is it?", "Paris", (), "text:1"), Example("Which month?", "april 12", (), "text:2")]
ALTERNATIVES = ("Ada", "in Paris", "An author.", "This is Ada Kent.")
LORA = LoraSettings(rank=3, alpha=6, dropout=0.0)
GRADIENT = {name: method for name in METHODS if isinstance(method := get_method(name), GradientMethod)}
TRAINED = sorted(name for name, method in GRADIENT.items() if method.trains)
DEFAULTS: dict[str, Any] = {
    # The people of these examples have no names to find others by.
    "auvic": AuvicSettings(candidates=("Basil", "Ada Kent", "florist"), hidden=8, disguises=0),
    "dpo": DpoSettings(ALTERNATIVES),
    # A tiny model finds every answer less probable than 0.01.
    "fact-erasure": FactErasureSettings(floor=1e-30),
    # It says none of the answers, so that after an epoch nothing would be left to train.
    "icu": IcuSettings(similarity_floor=0, bleu_floor=0, memorised_floor=0, extraction_floor=0),
    # Which layers tracing finds in a random model says nothing.
    "kuda": KudaSettings(layers=(1, 2)),
    # Nor does a layer of it have an answer among its likeliest tokens.
    "lens-margin": LensMarginSettings(margin=0.5),
    # The tiny models find every answer so improbable that at 2.5 nothing is left to forget.
    "simnpo": SimNpoSettings(beta=0.1),
}


def training(**changes: Any) -> TrainingSettings:
    """A step or two that change weights visibly."""
    return TrainingSettings(**{"learning_rate": 1e-3, "batch_size": 2, "schedule": "constant", **changes})


def fresh(family: str = "llava", dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A tiny model free to be changed, and its processor."""
    model, processor = built(family)
    return copy.deepcopy(model).to(dtype).eval(), processor


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(model: Any, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of what is not bit for bit what it was."""
    after = model.state_dict()
    assert set(after) == set(before)
    return {name for name, value in before.items() if not torch.equal(after[name], value)}


def forget_by(method: str, settings: Any = None, *, family: str = "llava", dtype=torch.float32, **changes: Any) -> Any:
    """Unlearn with a fresh tiny model; gives (model, result)."""
    model, processor = fresh(family, dtype)
    settings = DEFAULTS.get(method) if settings is None else settings
    result = unlearn(model, processor, FORGET, RETAIN, method, settings, training(**changes))
    return model, result


def sets(processor: Any) -> dict[str, Any]:
    """Forget and retain set, prepared."""
    return {"forget": prepare(FORGET, processor), "retain": prepare(RETAIN, processor)}


def gradients_of(
    build: Any, side: str = "forget", *, dtype: torch.dtype = torch.float64, **changes: Any
) -> tuple[dict[str, torch.Tensor], float]:
    """The gradient of one term of an objective over its whole set at the untrained model, and its mean."""
    model, processor = fresh(dtype=dtype)
    data = sets(processor)
    with in_training(model, processor, training(**changes), data) as trainee:
        objective = build(trainee)
        examples = objective.examples if side == "forget" and objective.examples else data[side]
        value = add_gradients(trainee, objective.term(side), examples, range(len(examples)))
        found = {
            name: parameter.grad.clone() for name, parameter in trainee.parameters.items() if parameter.grad is not None
        }
    return found, value
