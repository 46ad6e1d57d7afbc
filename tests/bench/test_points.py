"""Points of plots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bench.records_on_disk import GOLD, VANILLA, finished, values

import kvw
from kvw.bench.points import Point, curves, front, read_panels

SHARES = st.integers(0, 4).map(lambda number: number / 4)
POINTS = st.lists(st.builds(Point, st.just("kvw"), st.just({}), SHARES, SHARES), max_size=8)


def models(*pairs):
    return (
        {"vanilla": VANILLA} | {f"kvw-{gamma}": values(*scores) for gamma, scores in enumerate(pairs)} | {"gold": GOLD}
    )


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    best = front(points)
    for point in points:
        beaten = any(
            other.forget <= point.forget
            and other.retain >= point.retain
            and (other.forget, other.retain) != (point.forget, point.retain)
            for other in points
        )
        assert beaten == ((point.forget, point.retain) not in {(one.forget, one.retain) for one in best})
    assert [one.forget for one in best] == sorted({one.forget for one in best})


def test_seeds_of_one_setting_are_one_point(tmp_path):
    for seed, scores in enumerate([[(0.2, 1), (0.1, 0.5)], [(0.4, 1), (0.3, 0.7)]]):
        finished(tmp_path / f"seed-{seed}", models(*scores), seed=seed)
    (panel,) = read_panels([tmp_path])
    found = {(point.label, point.settings.get("gamma")): point for point in panel.points}
    assert list(found) == [("vanilla", None), ("kvw", 0.0), ("kvw", 1.0), ("gold", None)]
    assert (found["kvw", 1.0].forget, found["kvw", 1.0].retain) == pytest.approx((0.2, 0.6))
    assert found["kvw", 1.0].runs == 2
    assert panel.methods == ["kvw"]


def test_recipes_about_the_same_models_share_a_panel_and_others_do_not(tmp_path):
    one = finished(tmp_path / "one", models((0.2, 1)))
    two = finished(tmp_path / "two", models((0.2, 1)), title="other methods")
    three = finished(tmp_path / "three", models((0.2, 1)), setting="forget05")
    assert len(read_panels([one, two])) == 1
    assert [panel.title for panel in read_panels([one, three])] == ["toy, forget10", "toy, forget05"]


def test_a_curve_goes_over_the_values_of_a_setting(tmp_path):
    (panel,) = read_panels([finished(tmp_path, models((0.9, 1), (0.5, 0.9), (0.1, 0.3)))])
    (line,) = curves(panel, "gamma").values()
    assert [(value, point.forget) for value, point in line] == [(0, 0.9), (1, 0.5), (2, 0.1)]
    with pytest.raises(kvw.UserError, match="two values of 'rank'") as caught:
        curves(panel, "rank")
    assert caught.value.found == "settings with several values: gamma"
    points = [Point("kvw", {"gamma": gamma, "rank": rank}, 0, 0) for gamma in (10, 9) for rank in (1, 2)]
    named = curves(type(panel)("", "", "", points), "gamma")
    assert list(named) == ["kvw rank=1", "kvw rank=2"]
    assert [value for value, _ in named["kvw rank=1"]] == [9, 10]
