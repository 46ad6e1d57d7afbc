"""Settings of training and the learning rate."""

from __future__ import annotations

import pytest

from kvw.errors import UserError
from kvw.training.settings import YOUNGER, LoraSettings, TrainingSettings, identified, learning_rate


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"accumulation": True}, "accumulation must be a whole number"),
        ({"save_every": 0}, "save_every"),
        ({"schedule": "step"}, "schedule must be one of"),
        ({"precision": "fp16"}, "precision must be one of"),
        ({"warm_up": 1.5}, "warm_up must be a number of at least 0 and at most 1"),
        ({"weight_decay": -1}, "weight_decay must be a number of at least 0"),
        ({"clip": 0}, "clip must be a number above 0"),
        ({"parts": "vision"}, "parts must name each part"),
        ({"gradient_checkpointing": "False"}, "gradient_checkpointing must be True or False"),
        ({"parts": ()}, "parts must name each part"),
        ({"parts": True}, "parts must name each part"),
        ({"parts": (["language"],)}, "parts must be one of"),
        ({"warm_up": "long"}, "warm_up must be a number"),
        ({"parts": ("language", "language")}, "parts must name each part"),
        ({"parts": ("audio",)}, "parts must be one of"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingSettings(**changes)


@pytest.mark.parametrize("changes", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}], ids=str)
def test_adapters_that_make_no_sense_are_refused(changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        LoraSettings(**changes)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule, expected):
    settings = TrainingSettings(learning_rate=1.0, schedule=schedule, warm_up=1 / 3)
    assert [learning_rate(settings, step, 6) for step in range(6)] == pytest.approx(expected)


def test_younger_settings_are_part_of_a_digest_only_where_they_do_something():
    plain = identified(TrainingSettings())
    assert not set(YOUNGER) & set(plain)
    assert plain["learning_rate"] == 1e-5
    assert identified(TrainingSettings(keep_zeros="off")) == {**plain, "keep_zeros": "off"}
