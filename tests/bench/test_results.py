"""Settings are chosen on one half and reported on the other; tables come from records."""

from __future__ import annotations

import csv
import html
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.records import MANIFEST, item, items_of, record
from tests.program import run

import kvw
from kvw.bench.reach import hypervolume, reach
from kvw.bench.record import RunFiles, TaskPart
from kvw.bench.results import read_results, summarise
from kvw.bench.together import alone
from kvw.report.bench_tables import bench_report, bench_table


def results(per_model, manifest=MANIFEST):
    records = [record(name) for name in per_model]
    return summarise(manifest, records, {name: items_of(values) for name, values in per_model.items()})


VANILLA = {("forget", 0): 1, ("forget", 1): 1, ("retain", 0): 1, ("retain", 1): 1}


def test_what_is_reported_took_no_part_in_the_choice():
    """Weak is best by half 0 and strong by half 1; each is reported on the half that did not choose it."""
    found = results(
        {
            "vanilla": VANILLA,
            "kvw-weak": {("forget", 0): 0.2, ("forget", 1): 0.9, ("retain", 0): 1, ("retain", 1): 1},
            "kvw-strong": {("forget", 0): 0.5, ("forget", 1): 0.1, ("retain", 0): 1, ("retain", 1): 1},
        }
    )
    assert [(choice.chosen_on, choice.settings["variant"]) for choice in found.choices] == [(0, "weak"), (1, "strong")]
    (forget,) = [row for row in found.rows if row.split == "forget"]
    assert forget.cells["kvw"].mean == pytest.approx((0.9 + 0.5) / 2)
    assert forget.cells["kvw"].items == 4
    assert found.relative_forgetting["kvw"] == pytest.approx(0.3)


def test_settings_that_keep_too_little_are_not_chosen():
    found = results(
        {
            "vanilla": VANILLA,
            "kvw-weak": {("forget", 0): 0.8, ("forget", 1): 0.8, ("retain", 0): 0.95, ("retain", 1): 0.95},
            "kvw-strong": {("forget", 0): 0, ("forget", 1): 0, ("retain", 0): 0.5, ("retain", 1): 0.5},
        }
    )
    assert {choice.settings["variant"] for choice in found.choices} == {"weak"}
    assert all(choice.kept_enough for choice in found.choices)
    assert found.choices[0].kept == pytest.approx(0.95)


def test_if_none_keeps_enough_the_one_that_keeps_most_is_chosen_and_it_is_said():
    found = results(
        {
            "vanilla": VANILLA,
            "kvw-weak": {("forget", 0): 0.1, ("forget", 1): 0.1, ("retain", 0): 0.3, ("retain", 1): 0.3},
            "kvw-strong": {("forget", 0): 0.9, ("forget", 1): 0.9, ("retain", 0): 0.5, ("retain", 1): 0.5},
        }
    )
    assert {choice.settings["variant"] for choice in found.choices} == {"strong"}
    assert not any(choice.kept_enough for choice in found.choices)
    assert "none of 2 kept 0.9" in bench_table(alone(found)).text("markdown")


def test_one_direction_reports_one_half():
    recipe = {**MANIFEST.recipe, "choice": {**MANIFEST.recipe["choice"], "folds": "first"}}
    manifest = MANIFEST.model_copy(update={"recipe": recipe})
    values = {("forget", 0): 0.2, ("forget", 1): 0.6, ("retain", 0): 1, ("retain", 1): 1}
    found = results({"vanilla": VANILLA, "kvw-weak": values}, manifest)
    (forget,) = [row for row in found.rows if row.split == "forget"]
    assert (forget.cells["kvw"].mean, forget.cells["kvw"].items) == (pytest.approx(0.6), 2)


def test_vanilla_and_gold_are_reported_on_the_same_people_as_the_methods():
    """A method that changes nothing has forgotten nothing, however unlike the halves are."""
    recipe = {**MANIFEST.recipe, "choice": {**MANIFEST.recipe["choice"], "folds": "first"}}
    manifest = MANIFEST.model_copy(update={"recipe": recipe})
    unlike = {("forget", 0): 0.9, ("forget", 1): 0.5, ("retain", 0): 1, ("retain", 1): 1}
    found = results({"vanilla": unlike, "kvw-weak": unlike, "gold": unlike}, manifest)
    assert found.relative_forgetting["kvw"] == 0
    assert found.distance_to_gold == {"vanilla": 0, "kvw": 0}
    assert found.forget_quality["kvw"] == pytest.approx(1)


def test_distance_to_gold_and_forget_quality():
    gold = {("forget", 0): 0.1, ("forget", 1): 0.1, ("retain", 0): 1, ("retain", 1): 1}
    found = results({"vanilla": VANILLA, "kvw-weak": gold, "gold": gold})
    assert found.distance_to_gold == {"vanilla": pytest.approx(0.9), "kvw": pytest.approx(0)}
    assert found.forget_quality["kvw"] == pytest.approx(1)
    assert found.forget_quality["vanilla"] < 1
    assert list(found.rows[0].cells) == ["vanilla", "kvw", "gold"]


def test_failed_items_count_as_wrong():
    broken = [item("forget", subject, None) for subject in "ab"]
    records = [record("vanilla"), record("kvw-weak")]
    rest = [score for score in items_of(VANILLA) if score.subject not in "ab"]
    found = summarise(MANIFEST, records, {"vanilla": items_of(VANILLA), "kvw-weak": [*broken, *rest]})
    assert found.outcomes["kvw"]["failed"] == 2
    (forget,) = [row for row in found.rows if row.split == "forget"]
    assert forget.cells["kvw"].mean == pytest.approx(0.5)


def test_every_form_of_the_table_has_the_same_numbers():
    gold = {("forget", 0): 0.25, ("forget", 1): 0.25, ("retain", 0): 1, ("retain", 1): 1}
    found = results({"vanilla": VANILLA, "kvw-weak": gold, "gold": gold})
    lines = list(csv.DictReader(io.StringIO(bench_table(alone(found)).text("csv"))))
    assert {(line["split"], line["model"]): float(line["mean"]) for line in lines}[("forget", "gold")] == 0.25
    assert "| forget | seen | exact match | 1.000" in bench_table(alone(found)).text("markdown")
    latex = bench_table(alone(found)).text("latex")
    assert "vanilla & 1.000 {" in latex
    assert latex.count("\\\\") == 2 + len(found.rows[0].cells)


def test_the_page_of_a_run_says_what_was_taken_away_and_is_made_again(tmp_path, capsys):
    weak = {("forget", 0): 0.2, ("forget", 1): 0.2, ("retain", 0): 1, ("retain", 1): 1}
    found = results({"vanilla": VANILLA, "kvw-weak": weak})
    page = bench_report(alone(found))
    assert "Taken away of what the original scores on what is to be forgotten: kvw 80%." in page
    assert all(text in page for text in bench_table(alone(found)).plain[""][0])
    assert all(note in html.unescape(page) for note in bench_table(alone(found)).notes)
    none = dict.fromkeys(VANILLA, 0)
    assert "What was forgotten is not known" in bench_report(alone(results({"vanilla": none, "kvw-weak": none})))
    files = RunFiles(tmp_path)
    files.write_manifest(MANIFEST)
    for name, values in {"vanilla": VANILLA, "kvw-weak": weak}.items():
        files.write_record(name, record(name))
        files.write_items(name, items_of(values))
    assert run("report", tmp_path) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == page


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    with pytest.raises(kvw.UserError, match="no benchmark run"):
        read_results(tmp_path)
    files = RunFiles(tmp_path)
    files.write_manifest(MANIFEST)
    files.write_record("vanilla", record("vanilla"))
    files.write_items("vanilla", items_of(VANILLA))
    files.write_items("kvw-weak", items_of(VANILLA))
    with pytest.raises(kvw.UserError, match="not finished") as caught:
        read_results(tmp_path)
    assert caught.value.found == "1 of 2 models asked"
    files.write_record("kvw-weak", record("kvw-weak").model_copy(update={"only_screened": True}))
    with pytest.raises(kvw.UserError, match="not finished") as caught:
        read_results(tmp_path)
    assert caught.value.found == "1 of 1 chosen models not asked everything yet"
    files.write_record("kvw-weak", record("kvw-weak"))
    assert {choice.identifier for choice in read_results(tmp_path).choices} == {"kvw-weak"}
    (tmp_path / "manifest.json").write_text('{"title": 3}')
    with pytest.raises(kvw.UserError, match="this version's"):
        read_results(tmp_path)


def test_the_hypervolume_is_the_area_below_the_front():
    """Two settings on the front, one behind it; the area of a union of rectangles, by hand."""
    found = results(
        {
            "vanilla": VANILLA,
            "kvw-weak": {("forget", 0): 0.5, ("forget", 1): 0.7, ("retain", 0): 1, ("retain", 1): 0.8},
            "kvw-strong": {("forget", 0): 0.1, ("forget", 1): 0.3, ("retain", 0): 0.5, ("retain", 1): 0.5},
            "kvw-behind": {("forget", 0): 0.9, ("forget", 1): 0.9, ("retain", 0): 0.4, ("retain", 1): 0.4},
        }
    )
    assert found.hypervolume == {"kvw": pytest.approx(0.4 * 0.9 + 0.4 * 0.5)}
    assert "Hypervolume of all settings (forgotten x kept; 1: everything forgotten at no cost): kvw 0.560." in (
        bench_table(alone(found)).text("markdown")
    )


def test_one_setting_has_no_hypervolume():
    values = {("forget", 0): 0.5, ("forget", 1): 0.5, ("retain", 0): 1, ("retain", 1): 1}
    assert results({"vanilla": VANILLA, "kvw-weak": values}).hypervolume == {}


@pytest.mark.thorough
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=8), st.randoms())
def test_hypervolumes_are_those_of_a_grid(points, random):
    """The union of the rectangles, cell by cell between all their edges; the order of the points does not matter."""
    xs, ys = (sorted({0.0, *(point[axis] for point in points)}) for axis in (0, 1))
    area = sum(
        (right - left) * (upper - lower)
        for left, right in pairwise(xs)
        for lower, upper in pairwise(ys)
        if any(right <= x and upper <= y for x, y in points)
    )
    assert hypervolume(points) == pytest.approx(area, abs=1e-12)
    shuffled = random.sample(points, len(points))
    assert hypervolume(shuffled) == hypervolume(points)


def test_the_reach_counts_the_tasks_of_the_choice_alone_and_never_more_than_vanilla():
    tasks = [*MANIFEST.tasks, TaskPart(split="forget", task="other", modality="image", metric="exact_match", items=1)]
    choice = {**MANIFEST.recipe["choice"], "tasks": ["seen"]}
    manifest = MANIFEST.model_copy(update={"tasks": tasks, "recipe": {"choice": choice}})
    before, after = (item("forget", "a", value).model_copy(update={"task": "other"}) for value in (1.0, 0.0))
    better = {("forget", 0): 0.25, ("forget", 1): 0.75, ("retain", 0): 1, ("retain", 1): 1}
    vanilla = {**VANILLA, ("retain", 0): 0.5}
    items = {"vanilla": [*items_of(vanilla), before], "kvw-weak": [*items_of(better), after]}
    found = reach(manifest, [record("vanilla"), record("kvw-weak")], items)
    assert found == {"kvw": {"kvw-weak": (0.5, 1.0)}}
    nothing = {name: [one for one in scores if one.split == "retain"] for name, scores in items.items()}
    assert reach(manifest, [record("vanilla"), record("kvw-weak")], nothing) == {}
