"""Pictures of benchmark runs: what is in them, and their forms."""

from __future__ import annotations

import pytest
from PIL import Image
from tests.bench.records_on_disk import GOLD, VANILLA, finished, values
from tests.program import assert_refused, run

from kvw.bench.points import read_panels
from kvw.bench.together import read_comparisons
from kvw.report.bench_plots import COLOURS, bar_figure, colours, curve_figure, tradeoff_figure

MODELS = {
    "vanilla": VANILLA,
    **{f"kvw-{gamma}": values(*scores) for gamma, scores in enumerate([(0.9, 1), (0.5, 0.9), (0.6, 0.8), (0.1, 0.3)])},
    "npo-1": values(0.2, 0.2),
    "gold": GOLD,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("run"), MODELS)


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("count", [1, 10, 11, 45])
def test_no_colour_comes_twice(count):
    chosen = colours([f"method {number}" for number in range(count)])
    assert len(set(chosen.values())) == len(chosen) == count + 2


def test_every_setting_is_a_point_and_the_front_is_a_line(folder):
    (axes,) = tradeoff_figure(read_panels([folder])).axes
    assert legend(axes) == ["kvw", "npo", "original", "gold (never knew it)"]
    assert sorted(len(points.get_offsets()) for points in axes.collections) == [1, 4]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["kvw"].get_xdata()) == [0.1, 0.5, 0.9], "0.6, 0.8 is beaten"
    assert lines["original"].get_color() == COLOURS["vanilla"]
    assert (*lines["gold (never knew it)"].get_xdata(), *lines["gold (never knew it)"].get_ydata()) == (0, 1)
    assert len({line.get_color() for line in axes.lines}) == 4
    assert ("forget" in axes.get_xlabel(), "retain" in axes.get_ylabel()) == (True, True)


def test_panels_stand_beside_each_other(folder, tmp_path):
    other = finished(tmp_path, MODELS, setting="forget05")
    assert [axes.get_title() for axes in tradeoff_figure(read_panels([folder, other])).axes] == [
        "toy, forget10",
        "toy, forget05",
    ]


def test_a_setting_is_a_curve_of_what_is_forgotten_and_one_of_what_is_kept(folder):
    (axes,) = curve_figure(read_panels([folder]), "gamma").axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["kvw, forget"].get_ydata()) == [0.9, 0.5, 0.6, 0.1]
    assert list(lines["kvw, retain"].get_ydata()) == [1, 0.9, 0.8, 0.3]
    assert list(lines["kvw, retain"].get_xdata()) == [0, 1, 2, 3]
    assert axes.get_xlabel() == "gamma"


def test_bars_have_the_intervals_of_the_table(folder):
    found = read_comparisons([folder])
    (axes,) = bar_figure(found).axes
    assert len(axes.patches) == len(found[0].rows) * len(found[0].models)
    heights = sorted(round(patch.get_height(), 6) for patch in axes.patches)
    assert heights == sorted(round(cell.mean, 6) for row in found[0].rows for cell in row.cells.values())
    drawn = {tuple(line.get_ydata()) for line in axes.lines}
    assert drawn == {(cell.low, cell.high) for row in found[0].rows for cell in row.cells.values()}
    assert "over subjects" in axes.get_title()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["forget\nseen", "retain\nseen"]


@pytest.mark.thorough
@pytest.mark.parametrize(("suffix", "begin"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_the_suffix_is_the_form_and_equal_runs_give_equal_bytes(folder, tmp_path, capsys, suffix, begin):
    one, two = tmp_path / f"new/one{suffix}", tmp_path / f"two{suffix}"
    for path in (one, two):
        assert run("bench", "plot", folder, "--out", path) == 0
        assert capsys.readouterr().out.strip() == str(path)
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes().startswith(begin)
    if suffix == ".svg":
        assert b">gold (never knew it)</text>" in one.read_bytes()
    if suffix == ".png":
        assert Image.open(one).size[0] > 500


@pytest.mark.thorough
def test_only_what_was_drawn_here_is_replaced(folder, tmp_path, capsys):
    out = tmp_path / "a.svg"
    assert run("bench", "plot", folder, "--out", out) == 0
    before = out.read_bytes()
    assert_refused(capsys, run("bench", "plot", folder, "--kind", "bars", "--out", out), "exists", "--force")
    assert run("bench", "plot", folder, "--kind", "bars", "--out", out, "--force") == 0
    assert out.read_bytes() != before
    capsys.readouterr()
    out.write_text("<svg/>")
    assert_refused(capsys, run("bench", "plot", folder, "--out", out, "--force"), "was not drawn by this command")
    assert out.read_text() == "<svg/>"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.gif"], "The suffix of --out"),
        (["--out", "a.png", "--kind", "curves"], "without --setting"),
        (["--out", "a.png", "--setting", "gamma"], "--kind tradeoff --setting gamma"),
        (["--out", "a.png", "--kind", "curves", "--setting", "gama"], "settings with several values: gamma"),
    ],
)
def test_mistakes_are_told(folder, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, run("bench", "plot", folder, *words), message)
    assert not list(tmp_path.iterdir())
