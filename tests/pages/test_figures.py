"""Charts as data: where points and bars lie."""

from __future__ import annotations

from kvw.pages.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, BarChart, LineChart, Series


def test_points_of_a_line_lie_inside_the_axes() -> None:
    chart = LineChart("t", ["1", "2"], [], "dose", lowest=0.5, highest=1.0)
    assert [chart.x(0), chart.x(1)] == [LEFT + (WIDTH - LEFT - RIGHT) / 4, LEFT + (WIDTH - LEFT - RIGHT) * 3 / 4]
    assert (chart.y(0.5), chart.y(1.0)) == (HEIGHT - BOTTOM, TOP)
    assert (chart.y(0.0), chart.y(2.0)) == (HEIGHT - BOTTOM, TOP)
    assert (
        chart.points(Series("kept", "keep", [(0, 1.0), (1, 0.5)]))
        == f"{chart.x(0)},{TOP}.0 {chart.x(1)},{HEIGHT - BOTTOM}.0"
    )
    assert list(chart.ticks) == [0.5, 0.625, 0.75, 0.875, 1.0]


def test_of_many_places_some_are_named_and_the_marked_one_always() -> None:
    places = [str(number) for number in range(25)]
    chart = LineChart("t", places, [], "dose", picked=7)
    assert 7 in chart.named
    assert len(chart.named) <= 13
    assert LineChart("t", places[:12], [], "dose").named == list(range(12))


def test_the_highest_bar_reaches_the_top_and_the_limit_fits() -> None:
    bars = BarChart("t", [0, 1], [1.0, 4.0], [1.0, 1.0], "directions")
    assert (bars.highest, bars.y(4.0), bars.y(0.0)) == (4.0, TOP, HEIGHT - BOTTOM)
    assert BarChart("t", [0], [1.0], [1.0], "directions", limit=8.0).highest == 8.0
    assert BarChart("t", [], [], [], "directions").highest == 1.0
    assert bars.x(1) - bars.x(0) == bars.step
