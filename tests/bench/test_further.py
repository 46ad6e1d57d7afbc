"""What benchmarks report besides one score for each task, by hand."""

from __future__ import annotations

import pytest
from tests.bench.records import MANIFEST, record

from kvw.bench.further import further_rows, utilities
from kvw.bench.record import PlantingPart, TaskPart
from kvw.bench.results import summarise
from kvw.bench.scores import ItemScore
from kvw.bench.together import alone
from kvw.evaluation.metrics import Outcome, harmonic_mean
from kvw.report.bench_tables import bench_table


def score(place, subject, pair="", **scores):
    split, task = place.split("/")
    return ItemScore(
        split=split,
        task=task,
        identifier=f"{place} {subject} {pair}",
        subject=subject,
        modality="text" if task.endswith("_text") else "image",
        pair=pair,
        reply="reply",
        outcome=Outcome.CORRECT,
        scores=scores,
    )


def part(place, metric, named):
    split, task = place.split("/")
    modality = "text" if task.endswith("_text") else "image"
    return TaskPart(split=split, task=task, modality=modality, metric=metric, items=2, named=named)


def manifest(benchmark, tasks):
    return MANIFEST.model_copy(update={"benchmark": benchmark, "tasks": tasks})


def cells(rows, name="vanilla"):
    return {
        (row.split, row.task, row.metric): (row.modality, row.cells[name].mean, row.cells[name].items) for row in rows
    }


def test_other_scores_that_the_benchmark_names_and_the_run_has_measured():
    named = ["rouge_l_recall", "probability", "truth_ratio", "unheard_of", "bleu"]
    tasks = [part("forget/face", "rouge_l_recall", named), part("retain/face", "rouge_l_recall", named)]
    items = [
        score(f"{split}/face", subject, rouge_l_recall=1, probability=probability, truth_ratio=0.5)
        for split in ("forget", "retain")
        for subject, probability in (("a", 0.2), ("c", 0.4))
    ]
    found = further_rows(manifest("CLEAR", tasks), {"vanilla": items, "kvw": items[:1]})
    assert cells(found) == {
        ("forget", "face", "probability"): ("image", pytest.approx(0.3), 2),
        ("forget", "face", "truth_ratio"): ("image", 0.5, 2),
        ("retain", "face", "probability"): ("image", pytest.approx(0.3), 2),
        ("retain", "face", "truth_ratio"): ("image", 0.5, 2),
    }
    assert found[0].cells["kvw"].items == 1
    assert "kvw" not in found[2].cells


def test_a_failed_item_has_no_truth_ratio_and_counts_as_0_in_either_direction():
    tasks = [part("retain/face", "rouge_l_recall", ["truth_ratio"])]
    items = [score("retain/face", "a", truth_ratio=0.25), score("retain/face", "c")]
    assert cells(further_rows(manifest("CLEAR", tasks), {"vanilla": items})) == {
        ("retain", "face", "truth_ratio"): ("image", 0.375, 2)
    }


def test_pairs_of_one_question_in_both_modalities():
    named = {"cloze": ["substring", "acc_f", "acc_r"], "generation": ["rouge_l_f", "rlf", "rlr"]}
    metric = {"cloze": "normalised_substring", "generation": "rouge_l_f"}
    places = [
        f"{split}/{task}_{modality}"
        for split in ("forget", "retain")
        for task in named
        for modality in ("image", "text")
    ]
    tasks = [
        part(place, metric[place.split("/")[1].split("_")[0]], named[place.split("/")[1].split("_")[0]])
        for place in places
    ]
    values = {"image": (1, 0, 0), "text": (1, 1, 0)}
    items = [
        score(place, subject, f"{subject} q", correct=value, rouge_l_f=value)
        for place in places
        for subject, value in zip("abc", values[place.rpartition("_")[2]], strict=True)
    ]
    # The order within a task says nothing: pairs are found by name.
    items.reverse()
    found = further_rows(manifest("UMU-Bench", tasks), {"vanilla": items})
    assert cells(found) == {
        ("forget", "cloze", "acc_f"): ("both", pytest.approx(1 / 3), 3),
        ("forget", "generation", "rlf"): ("both", pytest.approx(2 / 3), 3),
        ("retain", "cloze", "acc_r"): ("both", pytest.approx(1 / 3), 3),
        ("retain", "generation", "rlr"): ("both", pytest.approx(1 / 3), 3),
    }


def test_choices_by_the_closest_option_are_compared_by_it_in_both_modalities_too():
    named = ["closest_option", "acc_f", "acc_r"]
    places = [f"{split}/classification_{form}" for split in ("forget", "retain") for form in ("image", "text")]
    tasks = [part(place, "closest_option", named) for place in places]
    values = {"image": (1, 0, 0, 0), "text": (1, 1, 0, 0)}
    items = [
        score(place, subject, f"{subject} q", correct=0, closest_option=value)
        for place in places
        for subject, value in zip("abcd", values[place.rpartition("_")[2]], strict=True)
    ]
    assert cells(further_rows(manifest("UMU-Bench", tasks), {"vanilla": items})) == {
        ("forget", "classification", "acc_f"): ("both", 0.5, 4),
        ("retain", "classification", "acc_r"): ("both", 0.25, 4),
    }


def test_model_utility_is_tofus_harmonic_mean_of_nine_means():
    kept = {"probability": 0.9, "normalised_probability": 0.1, "rouge_l_recall": 0.8, "truth_ratio": 0.3}
    known = {"probability": 0.2, "normalised_probability": 0.5, "rouge_l_recall": 0.6, "truth_ratio": 0.4}
    places = ("retain/question", "real_authors/question", "world_facts/question")
    items = [score(place, "a", **(known if number else kept)) for number, place in enumerate(places)]
    about = manifest("TOFU", [])
    expected = harmonic_mean([0.9, 0.8, 0.7, *(0.5, 0.6, 0.6) * 2])
    assert utilities(about, {"vanilla": items}) == {"vanilla": pytest.approx(expected)}
    assert utilities(about, {"vanilla": items[:2]}) == {}
    assert utilities(manifest("MLLMU-Bench", []), {"vanilla": items}) == {}


def test_the_table_says_all_of_it():
    places = ("forget/name", "retain/caption", "real_faces/face", "real_world/question")
    named = ["probability", "truth_ratio"]
    folds = {subject: number % 2 for number, subject in enumerate("abcd")}
    tasks = [part(place, "rouge_l_recall", named) for place in places]
    about = manifest("CLEAR", tasks).model_copy(update={"folds": folds, "requests": ["vanilla"]})
    values = {"probability": 0.5, "normalised_probability": 0.5, "rouge_l_recall": 0.5, "truth_ratio": 0.5}
    items = [score(place, subject, **values) for place in places for subject in "abcd"]
    planting = PlantingPart(
        base="toy:vanilla",
        base_fingerprint="",
        settings={"lora": {"rank": 4}, "parts": ["language"], "epochs": 2, "batch_size": 8, "learning_rate": 1e-3},
        examples=12,
        examples_digest="",
        losses=[2.0, 0.25],
        stopped="",
        seconds=1.0,
        versions={},
    )
    planted = record("vanilla").model_copy(update={"planting": planting})
    table = bench_table(alone(summarise(about, [planted], {"vanilla": items}))).text("markdown")
    assert "| retain | caption | truth ratio | 0.500 [0.500, 0.500] |" in table
    assert "on retain/caption, real_faces/face, real_world/question): vanilla 0.500." in table
    assert (
        "vanilla: toy:vanilla trained on 12 examples, LoRA of rank 4, 2 epochs of batches of 8, learning rate 0.001; "
        "loss per answer token from 2.000 to 0.250." in table
    )
