"""What must hold for all input."""

import math
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kvw.evaluation.metrics import (
    Outcome,
    OutcomeCounts,
    answer_probability,
    clear_forget_quality,
    extraction_strength,
    forget_accuracy_both,
    forget_quality,
    forget_rouge_both,
    forget_truth_ratio,
    harmonic_mean,
    jensen_shannon,
    letter_outcome,
    membership_auc,
    min_k,
    min_k_plus_plus,
    normalised_probability,
    relative_forgetting,
    retain_accuracy_both,
    retain_rouge_both,
    retain_truth_ratio,
    truth_ratio,
)

quick = settings(max_examples=60, deadline=None)
losses = st.floats(0, 50)
any_loss = st.floats(0, math.inf)
shares = st.floats(0, 1)
sample = st.lists(st.floats(0, 100), min_size=1, max_size=40)
hits = st.lists(st.booleans(), min_size=1, max_size=30)


@quick
@given(any_loss, st.lists(any_loss, min_size=1, max_size=8))
def test_probabilities_are_between_0_and_1(loss, wrong):
    assert 0 <= answer_probability(loss) <= 1
    assert 0 <= normalised_probability(loss, wrong) <= 1


@quick
@given(st.lists(losses, min_size=2, max_size=6), losses)
def test_normalised_probabilities_of_all_answers_add_up_to_1_and_ignore_a_common_factor(answers, shift):
    parts = [normalised_probability(loss, answers[:index] + answers[index + 1 :]) for index, loss in enumerate(answers)]
    assert math.fsum(parts) == pytest.approx(1)
    shifted = normalised_probability(answers[0] + shift, [loss + shift for loss in answers[1:]])
    assert shifted == pytest.approx(parts[0], rel=1e-9)


@quick
@given(losses, st.lists(losses, min_size=1, max_size=6))
def test_the_two_orientations_are_inverse_and_agree_in_use(right, wrong):
    ratio, inverse = truth_ratio(right, wrong), truth_ratio(right, wrong, "right/wrong")
    assert ratio * inverse == pytest.approx(1)
    assert forget_truth_ratio(ratio) == pytest.approx(forget_truth_ratio(inverse))
    assert retain_truth_ratio(ratio) == pytest.approx(retain_truth_ratio(inverse, "right/wrong"), abs=1e-12)
    assert 0 <= forget_truth_ratio(ratio) <= 1
    assert 0 <= retain_truth_ratio(ratio) <= 1


@quick
@given(sample)
def test_equal_samples_are_not_told_apart(values):
    shuffled = random.Random(0).sample(values, len(values))
    assert forget_quality(values, shuffled).p_value == 1
    assert forget_quality(values, shuffled).statistic == 0
    assert jensen_shannon(values, shuffled) == 0
    assume(sum(values) > 0)
    assert clear_forget_quality(values, values) == pytest.approx(1, abs=1e-7)


@quick
@given(sample, sample, st.integers(2, 30))
def test_distances_are_symmetric_and_bounded(first, second, bins):
    distance = jensen_shannon(first, second, bins)
    assert 0 <= distance <= 1
    assert jensen_shannon(second, first, bins) == pytest.approx(distance, abs=1e-12)
    one, other = forget_quality(first, second), forget_quality(second, first)
    assert (one.statistic, one.p_value) == pytest.approx((other.statistic, other.p_value))
    assert 0 <= one.statistic <= 1
    assert 0 <= one.p_value <= 1


@quick
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_an_increasing_scale_changes_no_distance(first, second):
    raised = [[math.exp(value) for value in values] for values in (first, second)]
    assert jensen_shannon(*raised) == jensen_shannon(first, second)
    assert forget_quality(*raised) == forget_quality(first, second)


@quick
@given(hits, st.integers(0))
def test_extraction_strength_never_falls_when_a_token_is_learned(is_argmax, place):
    before = extraction_strength(is_argmax)
    learned = list(is_argmax)
    learned[place % len(learned)] = True
    assert 0 <= before <= extraction_strength(learned) <= 1
    assert before == 1 or not is_argmax[len(is_argmax) - 1 - round(before * len(is_argmax))]


@quick
@given(hits)
def test_extraction_strength_is_the_definition(is_argmax):
    """The smallest prefix from which the rest is reproduced, the empty rest included."""
    size = len(is_argmax)
    smallest = min(prefix for prefix in range(size + 1) if all(is_argmax[prefix:]))
    assert extraction_strength(is_argmax) == pytest.approx(1 - smallest / size)


@quick
@given(st.lists(shares, min_size=1, max_size=12))
def test_a_harmonic_mean_lies_between_the_extremes(values):
    assert min(values) <= harmonic_mean(values) <= max(values)
    assert harmonic_mean([*values, 0.0]) == 0


@quick
@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=12))
def test_rlf_is_above_and_rlr_below_the_plain_mean(pairs):
    first, second = [list(values) for values in zip(*pairs, strict=True)]
    plain = math.fsum(first + second) / (2 * len(pairs))
    low, high = retain_rouge_both(first, second), forget_rouge_both(first, second)
    assert -1e-12 <= low <= plain + 1e-12
    assert plain - 1e-12 <= high <= 1 + 1e-12
    assert high == pytest.approx(forget_rouge_both(second, first))


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_accf_accr_and_the_mixed_items_are_everything(pairs):
    first, second = zip(*pairs, strict=True)
    mixed = sum(one != other for one, other in pairs) / len(pairs)
    assert forget_accuracy_both(first, second) + retain_accuracy_both(first, second) + mixed == pytest.approx(1)


@quick
@given(st.floats(1e-6, 1), shares)
def test_relative_forgetting_is_1_only_when_nothing_is_left(before, after):
    assert relative_forgetting(before, after) <= 1
    assert relative_forgetting(before, before) == 0
    assert relative_forgetting(before, 0) == 1


@quick
@given(st.lists(st.floats(-50, 0), min_size=1, max_size=30), st.floats(0.01, 1))
def test_min_k_lies_between_the_smallest_value_and_the_mean(values, share):
    found = min_k(values, share)
    assert min(values) - 1e-9 <= found <= math.fsum(values) / len(values) + 1e-9
    # Standardised by a mean of 0 and a deviation of 1, Min-K++ is Min-K.
    assert min_k_plus_plus(values, [0.0] * len(values), [1.0] * len(values), share) == found


@quick
@given(sample, sample)
def test_an_auc_turns_around_when_the_sets_do(members, others):
    found = membership_auc(members, others)
    assert 0 <= found <= 1
    assert found + membership_auc(others, members) == pytest.approx(1)
    wins = sum((one > other) + 0.5 * (one == other) for one in members for other in others)
    assert found == pytest.approx(wins / (len(members) * len(others)))


@pytest.mark.thorough
@quick
@given(st.lists(st.one_of(st.none(), st.text(max_size=30)), max_size=12))
def test_no_reply_is_lost(replies):
    counts = OutcomeCounts.of(letter_outcome(reply, {"A": "one", "B": "two"}, "A") for reply in replies)
    assert counts.total == len(replies)
    assert counts.failed == replies.count(None)
    assert all(isinstance(letter_outcome(reply, {"A": "one", "B": "two"}, "A"), Outcome) for reply in replies)
