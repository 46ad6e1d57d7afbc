"""Directions of each subject by itself."""

import pytest
import torch

from kvw.edits.low_rank import MOST_OF_EACH
from kvw.measuring.moments import Tokens
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.of_each import directions_of_each
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solver import metric, solve
from kvw.methods.subspace.vectors import Columns, view_means

WIDTH = 12
SETTINGS = SubspaceSettings(gate="hard", threshold=-5.0)


def retain() -> torch.Tensor:
    rows = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows.T @ rows / len(rows)


def columns(subjects: list[str]) -> Columns:
    """One token for each subject, which weigh the same."""
    rows = torch.randn(len(subjects), WIDTH, generator=torch.Generator().manual_seed(1))
    tokens = Tokens(
        rows, torch.arange(len(subjects)), torch.zeros(len(subjects), dtype=torch.int64), torch.ones(len(subjects))
    )
    return view_means(tokens, Labels(list(range(len(subjects))), subjects))


def test_each_subject_gets_what_it_would_get_alone() -> None:
    found, both = metric(retain(), 0.1), columns(["Ann", "Bo", "Ann"])
    settings = SubspaceSettings(gate="wiener", mu=0.5)
    own = directions_of_each(found, both, settings, -5.0)
    assert {subject: value.rank for subject, value in own.items()} == {"Ann": 2, "Bo": 1}
    vectors = both.values.double() / both.weights.sqrt()  # the tokens themselves
    alone = solve(found, vectors[:, [0, 2]] / 2**0.5)
    assert torch.allclose(own["Ann"].patterns.abs(), alone.patterns.abs().float(), atol=1e-5)
    assert torch.allclose(own["Ann"].log_gates, -(0.5 * alone.eigenvalues).log1p().float(), atol=1e-4)
    assert torch.allclose(own["Ann"].filters.T @ own["Ann"].patterns, torch.eye(2), atol=1e-5)
    assert not torch.allclose(own["Ann"].filters.T @ own["Bo"].patterns, torch.zeros(2, 1), atol=1e-2)


@pytest.mark.parametrize(
    ("subjects", "settings"),
    [
        (["Ann", "Ann"], SETTINGS),
        ([f"person {number}" for number in range(MOST_OF_EACH + 1)], SETTINGS),
        (["Ann", "Bo"], SubspaceSettings(held_out_ratio=1.5)),
        (["Ann", "Bo"], SubspaceSettings(instead="refusal")),
    ],
)
def test_there_are_none_of_one_subject_of_many_or_if_more_than_lambda_judges(subjects, settings) -> None:
    assert directions_of_each(metric(retain(), 0.1), columns(subjects), settings, -5.0) == {}


def test_the_threshold_and_the_rank_hold_for_each() -> None:
    found, both = metric(retain(), 0.1), columns(["Ann", "Bo", "Ann"])
    few = directions_of_each(found, both, SubspaceSettings(gate="hard", threshold=-5.0, rank=1), -5.0)
    assert few["Ann"].rank == 1
    assert directions_of_each(found, both, SETTINGS, 50.0)["Ann"].rank == 0
