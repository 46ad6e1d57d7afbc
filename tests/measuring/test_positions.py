"""Which positions count."""

from __future__ import annotations

import pytest
import torch

from kvw.errors import UserError
from kvw.measuring.positions import predicting_positions

LABELS = torch.tensor([[-100, -100, 7, 8, -100], [-100, -100, -100, -100, 9]])


def test_the_last_prompt_token_is_in_and_the_last_answer_token_is_out():
    assert predicting_positions({"labels": LABELS}).tolist() == [1, 2, 8]


def test_padding_never_counts():
    attention = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 1]])
    batch = {"labels": LABELS, "attention_mask": attention}
    assert predicting_positions(batch).tolist() == [1, 2]
    assert predicting_positions(batch, "all").tolist() == [0, 1, 2]


def test_all_means_every_position_that_predicts_a_token():
    assert predicting_positions({"labels": LABELS}, "all").tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_label_at_the_first_position_is_predicted_by_nothing():
    assert predicting_positions({"labels": torch.tensor([[5, -100]])}).tolist() == []


def test_unusable_batches_are_refused():
    with pytest.raises(UserError, match="no 'labels'"):
        predicting_positions({"input_ids": LABELS})
    with pytest.raises(UserError, match=r"\(batch, tokens\)"):
        predicting_positions({"labels": LABELS, "attention_mask": torch.ones(2, 1, 5, 5)})
