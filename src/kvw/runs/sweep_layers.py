"""``kvw sweep layers``: what each range of layers of one solve forgets, and at what price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kvw.claim import new_directory
from kvw.edits.edit import Edit
from kvw.edits.parts import within_layers
from kvw.errors import UserError
from kvw.files import write_text
from kvw.progress import Progress, Reporter, unheard
from kvw.records.layer_sweep import LayerCurve, LayerPoint, LayerSweep
from kvw.runs.choosing import paths_of
from kvw.runs.costs import Stopwatch
from kvw.runs.erase import Job, check
from kvw.runs.language import heard
from kvw.runs.material import Material
from kvw.runs.own_words import scorer_for
from kvw.runs.request import DataSets, EraseRequest
from kvw.runs.solving import for_the_solve, gathered, make_edit, measure_retain
from kvw.selection.candidate import Candidate
from kvw.selection.scoring import Scorer
from kvw.selection.search import Search
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING, TEXT
from kvw.selection.windows import Layers, windows

KIND = "layer sweep"
RECORD, PICTURE = "sweep.json", "sweep.png"
POINTS = 8
WRECK = 0.5
"""Share of what must stay. Below it stronger edits of the same window are not tried."""


def sweep_layers(
    request: EraseRequest,
    asked: Sequence[str | Layers],
    reporter: Reporter,
    *,
    draw: Callable[[LayerSweep, Path], None],
    points: int = POINTS,
    data: DataSets | None = None,
) -> LayerSweep:
    """Solve once, cut the edit to ranges of layers, and score each at several strengths, teacher-forced.

    Edits are judged as ``kvw erase`` judges them: on held-out views of the forget set, on what is held out of what must
    stay, and on plain text. ``out`` receives ``sweep.json`` and ``sweep.png``.

    Args:
        request: What is forgotten, with which method; its ``out`` is the folder.
        asked: The ranges, see :func:`kvw.selection.windows.parse_windows`.
        reporter: Told of stages and notes.
        draw: Draws the record into a picture.
        points: The most strengths of each range.
        data: The data of the request, if they have been read already.

    Raises:
        UserError: As for ``kvw erase``; the method's edits have no layers to choose from; or there is nothing to judge
            them by.
    """
    watch = Stopwatch(reporter)
    with new_directory(request.out, KIND, force=request.force) as folder:
        job = check(request, watch, reporter, data)
        material = gathered(job, heard(job.loaded, watch, reporter, "original"), watch, reporter)
        _refuse_unjudged(material)
        solving = for_the_solve(job, material)
        retain = measure_retain(solving, watch, reporter)
        with watch.stage("weakening") as progress:
            found = make_edit(solving, retain, progress).edit
        layers = sorted({key.layer for key in found.widths})
        chosen = windows(asked, layers) if layers else []
        cut = [(one, within_layers(found, range(one[0], one[1] + 1))) for one in chosen]
        with watch.stage("scoring the original model"):
            scorer = scorer_for(job.loaded, material, [], unheard)  # it scores the edits later, in another stage
        with watch.stage(f"scoring {len(cut)} ranges of layers") as progress:
            record = _swept(job, material, scorer, cut, points, progress)
        write_text(folder / RECORD, record.model_dump_json(indent=2) + "\n")
        draw(record, folder / PICTURE)
    return record


def _swept(
    job: Job,
    material: Material,
    scorer: Scorer,
    cut: Sequence[tuple[Layers, Edit]],
    points: int,
    progress: Progress,
) -> LayerSweep:
    request = job.request
    search = Search(scorer, material.must_stay, request.keep)
    before = Candidate(None, None, None, search.original)
    curves, unit = [], ""
    for done, ((first, last), edit) in enumerate(cut, 1):
        path = paths_of(request, edit)[-1]
        unit, found = path.unit, []
        for dose in _spread(path.doses, points):
            found.append(_point(search.judge(path.edit(dose)), dose, before))
            if found[-1].least_kept < WRECK:
                break
        curves.append(LayerCurve(first=first, last=last, points=found))
        progress(done, len(cut))
    return LayerSweep(
        model=str(request.model),
        method=request.made_by.name,
        settings=cut[0][1].metadata.settings,
        unit=unit,
        keep=request.keep,
        questions=sum(len(score.answered) for name, score in search.original.items() if name in FORGETTING),
        answered=before.answered(),
        must_stay={name: len(material.judged[name]) for name in material.must_stay},
        curves=curves,
    )


def _point(candidate: Candidate, dose: float, before: Candidate) -> LayerPoint:
    return LayerPoint(
        dose=dose,
        answered=candidate.answered(),
        left=candidate.left() / before.left(),
        kept={name: share.value for name, share in candidate.kept.items() if name in (TEXT, ALL_HELD_OUT)},
    )


def _spread(doses: Sequence[float], most: int) -> list[float]:
    """Up to so many doses from all over the path, the first and the last among them."""
    if len(doses) <= most:
        return list(doses)
    return [doses[place * (len(doses) - 1) // (most - 1)] for place in range(most)]


def _refuse_unjudged(material: Material) -> None:
    """Stop if nothing says what an edit costs.

    Raises:
        UserError: There is nothing that must stay.
    """
    if not material.must_stay:
        raise UserError(
            "There is nothing to judge an edit by: no held-out questions and no plain text.",
            do="add --retain FILE, or name more --retain-sources",
        )
