"""Forgetting against keeping over the strength gamma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvw.evaluation.evaluation import evaluate
from kvw.measuring.examples import Measured
from kvw.progress import Progress, unheard
from kvw.runs.erase import Job
from kvw.runs.solving import make_edit
from kvw.strict import Strict


class SweepPoint(Strict):
    """Exact match by split at one strength; gamma 0 is the original model."""

    gamma: float
    exact: dict[str, float]


def sweep(job: Job, retain: Measured | None, gammas: Sequence[float], progress: Progress) -> list[SweepPoint]:
    """Run the method at each strength from the original model and score all splits.

    Args:
        job: A checked request; its own gamma is not used.
        retain: Statistics of the retain set, shared by all strengths.
        gammas: Strengths, all above 0.
        progress: Called after each strength.
    """
    points = [SweepPoint(gamma=0, exact=_exact(job))]
    for done, gamma in enumerate(gammas, 1):
        request = replace(job.request, settings=replace(job.request.settings, gamma=gamma))
        edit = make_edit(replace(job, request=request), retain, unheard).edit
        with edit.attach(job.loaded.model):
            points.append(SweepPoint(gamma=gamma, exact=_exact(job)))
        progress(done, len(gammas))
    return points


def _exact(job: Job) -> dict[str, float]:
    loaded = job.loaded
    evaluation = evaluate(loaded.model, loaded.processor, job.data.scored, max_new_tokens=job.request.max_new_tokens)
    return {name: summary.exact for name, summary in evaluation.summaries.items()}
