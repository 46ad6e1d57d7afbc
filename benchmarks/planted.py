"""What the checks around KVW share: a request to forget planted people, edits for it, and what a model makes of it.

The requests are those of the choosing half of people:planted; what must stay is their retain file, and nothing beside.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.cli.options import find_model
from kvw.data import Example
from kvw.edits.edit import Edit, load_edit
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import extraction_strength
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.files import write_text
from kvw.progress import Reporter
from kvw.proving.planted import people_requests
from kvw.proving.requests import Half, Request
from kvw.runs.erase import erase
from kvw.runs.material import spread
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT

MODEL = "people:planted"
HALF: Half = "choosing"
SPLITS = ("forget", "held_out", "retain", "unused")
MOST_ASKED = 16
"""Questions of each split that are asked, so that a check takes minutes."""


def request_of(number: int) -> Request:
    """The request of this number."""
    return next(one for one in people_requests(HALF) if one.number == number)


def asked_of(request: Request) -> dict[str, list[Example]]:
    """What a model is asked, by split: up to :data:`MOST_ASKED` of each, from all over it."""
    return {name: spread(request.splits[name], MOST_ASKED) for name in SPLITS}


def edit_of(
    request: Request, out: Path, method: str, values: Mapping[str, Any], reporter: Reporter, **more: Any
) -> Edit:
    """What kvw erase makes of a request, from its retain file alone; found again in ``out``."""
    place = out / f"edit-{request.name}-{method}"
    if not (place / EDIT).is_file():
        files = request.write(out / "data" / request.name)
        wanted = EraseRequest(
            model=find_model(MODEL),
            forget=files["forget"],
            retain=files["retain"],
            out=place,
            method=method,
            settings=values,
            sources=(),
            evaluate_at_most=8,
            max_new_tokens=16,
            save_model=False,
            write_damaged=True,
            **more,
        )
        erase(wanted, reporter)
    return load_edit(place / EDIT)


def scores(loaded: Loaded, splits: Mapping[str, Sequence[Example]]) -> dict[str, list[TokenScores]]:
    """The reference answers, teacher-forced, by split: by the model as it is now."""
    found = token_scores(
        loaded.model, loaded.processor, loaded.prepare([one for asked in splits.values() for one in asked])
    )
    of_split = {}
    for name, asked in splits.items():
        of_split[name], found = found[: len(asked)], found[len(asked) :]
    return of_split


def strength(found: Sequence[TokenScores]) -> float:
    """Extraction strength, mean over the questions."""
    return fmean(extraction_strength(one.is_argmax) for one in found)


def probability(found: Sequence[TokenScores]) -> float:
    """Geometric mean of the probabilities of an answer's tokens, mean over the questions."""
    return fmean(math.exp(-one.loss) for one in found)


def log_probabilities(found: Sequence[TokenScores]) -> list[float]:
    """Of each whole answer, nats."""
    return [math.fsum(one.log_probabilities) for one in found]


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """A result as JSON: read if it is there, else made and written."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(make(), indent=1) + "\n")
    return json.loads(file.read_text("utf-8"))
