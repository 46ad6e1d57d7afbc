"""The page of ``kvw inspect activations``."""

from __future__ import annotations

from kvw.pages.figures import BarChart
from kvw.pages.frame import Verdict, page
from kvw.pages.heat_map import heat_map
from kvw.records.activations import Activations


def activations_page(found: Activations) -> str:
    """One HTML file, see :func:`kvw.pages.frame.page`."""
    return page(
        "activations.html",
        title=f"Activations: {found.model}",
        verdict=Verdict("unknown", "Looked at, not judged", _sentences(found)),
        confidential="It shows questions and answers of the data, token by token.",
        found=found,
        ratios=[
            chart
            for chart in (
                _ratios("Coefficients: answer to other", found, "mean"),
                _ratios("Weighted by the accessor: answer to other", found, "weighted"),
            )
            if chart.layers
        ],
        maps=[
            (heat_map("Coefficients", one, one.mean), heat_map("Weighted by the accessor", one, one.weighted))
            for one in found.examples
        ],
    )


def _sentences(found: Activations) -> list[str]:
    known = [one for one in found.ratios if one.weighted is not None]
    read = f"Read {len(found.examples)} of {found.questions} questions token by token."
    if not known:
        return [read]
    most = max(known, key=lambda one: one.weighted or 0.0)
    return [
        f"Answers stand out most in layer {most.layer}.",
        "The coefficients of the vectors that the accessor picks are there "
        f"{most.weighted:.3g} times as large where an answer token is predicted as elsewhere.",
        read,
    ]


def _ratios(title: str, found: Activations, name: str) -> BarChart:
    known = [(one.layer, getattr(one, name)) for one in found.ratios if getattr(one, name) is not None]
    return BarChart(
        title, [layer for layer, _ in known], [value for _, value in known], [1.0] * len(known), "times", limit=1.0
    )
