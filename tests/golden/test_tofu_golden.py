"""Our metrics against the evaluation logs that TOFU's authors published."""

from __future__ import annotations

import functools
import math
from statistics import fmean

import pytest
from scipy.stats import ks_2samp
from tests.golden.tofu_logs import HERE, MODELS, SETS, log

from kvw.evaluation.metrics import (
    SetUtility,
    answer_probability,
    forget_quality,
    forget_truth_ratio,
    is_refusal,
    jensen_shannon,
    mean_interval,
    model_utility,
    normalised_probability,
    paired_difference,
    retain_truth_ratio,
    rouge_1,
    rouge_l,
    truth_ratio,
)

EVERY_SET = pytest.mark.parametrize(("model", "part"), [(model, part) for model in MODELS for part in SETS])
GOLDEN = {
    # probability (normalised where there are alternatives), ROUGE-L recall, retain use of the truth ratio
    ("full", "retain"): (0.926088, 0.929253, 0.482683),
    ("full", "authors"): (0.377360, 0.415667, 0.456009),
    ("full", "world"): (0.408998, 0.777350, 0.492337),
    ("retain90", "retain"): (0.923114, 0.920043, 0.484739),
    ("retain90", "authors"): (0.384187, 0.475333, 0.463836),
    ("retain90", "world"): (0.408088, 0.755698, 0.488263),
}
# probability, ROUGE-L recall, mean of min(TR, 1/TR)
FORGET = {"full": (0.928239, 0.924861, 0.483356), "retain90": (0.134907, 0.427867, 0.628842)}


def ratios(model, part):
    columns = log(model, part)
    return [
        truth_ratio(paraphrased, perturbed)
        for paraphrased, perturbed in zip(columns["avg_paraphrased_loss"], columns["average_perturb_loss"], strict=True)
    ]


@functools.cache
def rouge_recalls(model, part):
    return [rouge_l(generated, reference).recall for _, generated, reference in log(model, part)["generated_text"]]


def probabilities(model, part):
    columns = log(model, part)
    if part in ("retain", "forget"):
        return [answer_probability(loss) for loss in columns["avg_gt_loss"]]
    return [
        normalised_probability(loss, wrong)
        for loss, wrong in zip(columns["avg_gt_loss"], columns["average_perturb_loss"], strict=True)
    ]


def utility(model, part):
    return SetUtility(
        probability=fmean(probabilities(model, part)),
        rouge_l_recall=fmean(rouge_recalls(model, part)),
        truth_ratio=fmean(retain_truth_ratio(ratio) for ratio in ratios(model, part)),
    )


def test_the_logs_are_whole():
    for model in MODELS:
        assert [len(log(model, part)["avg_gt_loss"]) for part in SETS] == [300, 100, 117, 300]


@pytest.mark.thorough
@EVERY_SET
def test_every_rouge_recall_to_the_last_digit(model, part):
    columns = log(model, part)
    assert rouge_recalls(model, part) == columns["rougeL_recall"]
    found = [rouge_1(generated, reference).recall for _, generated, reference in columns["generated_text"]]
    assert found == columns["rouge1_recall"]


@EVERY_SET
def test_every_truth_ratio_to_single_precision(model, part):
    assert ratios(model, part) == pytest.approx(log(model, part)["truth_ratio"], rel=1e-6, abs=0)


@EVERY_SET
def test_every_probability(model, part):
    columns = log(model, part)
    if part in ("authors", "world"):
        stored = [math.exp(-value) for value in columns["normalized_gt_loss"]]
        assert probabilities(model, part) == pytest.approx(stored, rel=0, abs=5e-16)
    losses = [total / tokens for total, tokens in zip(columns["gt_loss"], columns["num_token_gt"], strict=True)]
    found = [answer_probability(loss) for loss in columns["avg_gt_loss"]]
    assert found == pytest.approx([answer_probability(loss) for loss in losses], rel=1e-6)


@pytest.mark.parametrize(("model", "part"), GOLDEN)
def test_the_means_of_every_set(model, part):
    found = utility(model, part)
    assert (found.probability, found.rouge_l_recall, found.truth_ratio) == pytest.approx(
        GOLDEN[model, part], rel=0, abs=5e-7
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_means_of_the_forget_set(model):
    found = (
        fmean(probabilities(model, "forget")),
        fmean(rouge_recalls(model, "forget")),
        fmean(forget_truth_ratio(ratio) for ratio in ratios(model, "forget")),
    )
    assert found == pytest.approx(FORGET[model], rel=0, abs=5e-7)


@pytest.mark.parametrize(("model", "expected"), [("full", 0.522074), ("retain90", 0.531991)])
def test_model_utility(model, expected):
    found = model_utility(*(utility(model, part) for part in ("retain", "authors", "world")))
    assert found == pytest.approx(expected, rel=0, abs=5e-7)


def test_forget_quality_is_the_exact_p_value():
    full, gold = ratios("full", "forget"), ratios("retain90", "forget")
    found = forget_quality(full, gold)
    assert found.statistic == pytest.approx(0.346667, rel=0, abs=5e-7)
    assert found.p_value == pytest.approx(2.1943e-16, rel=5e-5)
    assert ks_2samp(full, gold, method="asymp").pvalue == pytest.approx(1.3080e-16, rel=5e-5)
    assert forget_quality(gold, gold).p_value == 1


def test_the_histograms_tell_the_models_apart_too():
    """Ours, no published number: far on the forget set, at the level of chance on the retain set."""
    forget = jensen_shannon(ratios("full", "forget"), ratios("retain90", "forget"))
    retain = jensen_shannon(ratios("full", "retain"), ratios("retain90", "retain"))
    assert forget > 2.5 * retain


def test_the_interval_of_a_published_mean():
    recalls = {model: rouge_recalls(model, "forget") for model in MODELS}
    alone = mean_interval(recalls["full"])
    assert alone.mean == pytest.approx(0.924861, abs=5e-7)
    assert 0.90 < alone.low < alone.mean < alone.high < 0.95
    # 20 questions about each author, in order.
    authors = [str(item // 20) for item in range(300)]
    drop = paired_difference(recalls["full"], recalls["retain90"], authors)
    assert drop.mean == pytest.approx(0.427867 - 0.924861, abs=1e-6)
    assert drop.high < -0.4
    assert drop.units == 15


def test_refusals_are_told_from_answers():
    lines = (HERE / "idontknow.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 100
    assert [line for line in lines if not is_refusal(line)] == []
    answers = [
        text for model in MODELS for part in SETS for _, *texts in log(model, part)["generated_text"] for text in texts
    ]
    assert [text for text in answers if is_refusal(text)] == []
