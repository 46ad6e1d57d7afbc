"""Several finished runs as one."""

from __future__ import annotations

import csv
import io
import json
from statistics import fmean, stdev

import pytest
from scipy.stats import t
from tests.bench.records_on_disk import GOLD, VANILLA, finished, values

import kvw
from kvw.bench.together import read_comparisons
from kvw.report.bench_tables import best_methods, csv_text, html_page, json_text, latex_table, print_tables, rule


def seeds(folder, forgets=(0.2, 0.5, 0.4), **more):
    return [
        finished(
            folder / f"seed-{seed}", {"vanilla": VANILLA, "kvw-1": values(forget, 0.9), "gold": GOLD}, seed=seed, **more
        )
        for seed, forget in enumerate(forgets)
    ]


def test_runs_that_differ_in_the_seed_alone_have_an_interval_over_seeds(tmp_path):
    seeds(tmp_path)
    (found,) = read_comparisons([tmp_path])
    assert found.seeds == (0, 1, 2)
    (forget,) = [row for row in found.rows if row.split == "forget"]
    cell, means = forget.cells["kvw"], [0.2, 0.5, 0.4]
    half = t.ppf(0.975, 2) * stdev(means) / 3**0.5
    assert (cell.mean, cell.low, cell.high) == pytest.approx((fmean(means), fmean(means) - half, fmean(means) + half))
    assert cell.items == 3 * found.runs[0].rows[0].cells["kvw"].items
    assert found.figures["relative_forgetting"]["kvw"].mean == pytest.approx(1 - fmean(means))
    assert found.forgotten == ["forget"]


def test_a_model_that_one_seed_lacks_has_no_say(tmp_path):
    first, second, _ = seeds(tmp_path)
    finished(second, {"vanilla": VANILLA, "kvw-1": values(0.5, 0.9)}, seed=1)
    (found,) = read_comparisons([first, second])
    assert list(found.rows[0].cells) == ["vanilla", "kvw"]


@pytest.mark.parametrize("more", [{"title": "other"}, {"setting": "forget05"}])
def test_other_recipes_are_tables_of_their_own(tmp_path, more):
    places = [*seeds(tmp_path / "one", (0.1, 0.2)), *seeds(tmp_path / "two", (0.3,), **more)]
    assert [one.seeds for one in read_comparisons(places)] == [(0, 1), (0,)]


def test_a_run_counts_once(tmp_path):
    places = seeds(tmp_path / "one", (0.1, 0.2))
    (found,) = read_comparisons([*places, places[0], tmp_path / "one"])
    assert found.seeds == (0, 1)
    seeds(tmp_path / "two", (0.1,))
    with pytest.raises(kvw.UserError, match="the same seed") as caught:
        read_comparisons([tmp_path / "one", tmp_path / "two"])
    assert caught.value.found.startswith("seed 0, ")


def two_methods(tmp_path):
    models = {"vanilla": VANILLA, "kvw-1": values(0.2, 0.9), "a_b%-1": values(0.4, 0.9004), "gold": GOLD}
    return read_comparisons([finished(tmp_path / "run", models)])


def test_the_best_method_of_each_column_is_bold_in_latex(tmp_path):
    (found,) = two_methods(tmp_path)
    text = latex_table(found)
    lines = {line.split(" & ")[0]: line for line in text.splitlines() if line.endswith(r"\\")}
    assert lines["kvw"].count(r"\textbf{0.200") == 1
    assert r"\textbf{0.900" in lines["kvw"]
    assert r"\textbf{0.900" in lines[r"a\_b\%"], "equal in the digits that are shown"
    assert r"\textbf{0.400" not in text
    assert not any(r"\textbf" in lines[name] for name in ("vanilla", "gold"))
    assert f"% {rule(found)}" in text.splitlines()
    assert "the lowest where the split is about what is to be forgotten (forget)" in rule(found)
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in text
    for command in (r"\toprule", r"\bottomrule", r"\end{tabular}"):
        assert text.count(command) == 1
    widths = {line.count("&") for line in text.splitlines() if line.endswith(r"\\")}
    assert widths == {2}


def test_one_method_is_not_the_best(tmp_path):
    (found,) = read_comparisons([finished(tmp_path / "run", {"vanilla": VANILLA, "kvw-1": GOLD})])
    assert best_methods(found.rows[0], lowest=True) == set()


def test_csv_and_json_have_every_digit(tmp_path):
    third = 1 / 3
    place = finished(tmp_path / "run", {"vanilla": VANILLA, "kvw-1": values(third, 0.9)})
    found = read_comparisons([place])
    lines = list(csv.DictReader(io.StringIO(csv_text(found))))
    assert float(next(line for line in lines if line["model"] == "kvw")["mean"]) == third
    (told,) = json.loads(json_text(found))
    assert told["rows"][0]["cells"]["kvw"]["mean"] == third
    assert [row["lowest_is_best"] for row in told["rows"]] == [True, False]
    assert told["interval"] == "95 % bootstrap over subjects"
    assert [run["seed"] for run in told["runs"]] == told["seeds"] == [0]
    assert told["runs"][0]["choices"][0]["settings"] == {"gamma": 1.0, "seed": 0}
    several = read_comparisons([place, *seeds(tmp_path / "more", title="other")])
    lines = list(csv.DictReader(io.StringIO(csv_text(several))))
    assert {(line["title"], line["seeds"]) for line in lines} == {("small", "0"), ("other", "0 1 2")}
    assert json.loads(json_text(several))[1]["interval"] == "95 % Student over seeds"


def test_pages_and_terminals_show_the_best_in_bold(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = two_methods(tmp_path)
    page = html_page(found)
    assert "<strong>0.200 [0.200, 0.200]</strong>" in page
    assert "<strong>0.400" not in page
    assert not any(word in page for word in ("src=", "href=")), "it refers to nothing outside of it"
    assert rule(found[0]) in page
    several = html_page([*found, *read_comparisons(seeds(tmp_path / "seeds", title="<other>"))])
    assert "&lt;other&gt; (forget10, seeds 0, 1, 2)" in several
    assert "<other>" not in several
    print_tables(found)
    assert "0.200 [0.200, 0.200]" in capsys.readouterr().out
