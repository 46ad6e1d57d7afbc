"""What the checks around KVW share: a request to forget planted people, edits for it, and what a model makes of it.

On people:planted the requests are those of the choosing half; on toy:vanilla each forgets one of its four people. What
must stay is the retain file of the request, and nothing beside.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from kvw.cli.options import find_model
from kvw.data import Example, read_examples
from kvw.edits.edit import Edit, load_edit
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import extraction_strength
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.files import write_text
from kvw.methods.registry import PUBLISHED
from kvw.progress import Reporter
from kvw.proving.planted import PLANTED, people_requests
from kvw.proving.requests import Half, Request
from kvw.retain import KEEP
from kvw.runs.erase import erase
from kvw.runs.material import spread
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT
from kvw.toy import World, write_world

HALF: Half = "choosing"
SPLITS = ("forget", "held_out", "retain", "unused")
RETAINED = 60
"""Questions of the toy's retain file."""


def _of_people(number: int, out: Path) -> Request:
    return next(one for one in people_requests(HALF) if one.number == number)


def _of_the_toy(number: int, out: Path) -> Request:
    folder = out / "world"
    files = (
        write_world(World(), folder) if not folder.is_dir() else {file.stem: file for file in folder.glob("*.jsonl")}
    )
    read = {name: [_with_fact(one) for one in read_examples(files[name])] for name in TOY_FILES}
    subject = sorted({str(one.subject) for one in read["forget"]})[number]

    def about(*names: str) -> list[Example]:
        return [one for name in names for one in read[name] if one.subject == subject]

    splits = {"forget": about("forget"), "held_out": about("forget_new_photos", "forget_new_phrasings")}
    return Request(HALF, number, (subject,), {**splits, "retain": read["retain"][:RETAINED], "unused": read["unused"]})


def _with_fact(example: Example) -> Example:
    return replace(example, metadata={**example.metadata, "fact": str(example.metadata["attribute"])})


TOY_FILES = ("forget", "forget_new_photos", "forget_new_phrasings", "retain", "unused")


@dataclass(frozen=True)
class Ground:
    """A model that was taught people, and requests to forget some.

    Args:
        model: The model.
        gold: One that has never seen whom the requests forget.
        layers: All of its layers, as settings have them.
        most: Questions of each split that are asked, so that a check takes minutes.
        made: Makes the request of a number, with a folder for its files.
    """

    model: str
    gold: str
    layers: str
    most: int
    made: Callable[[int, Path], Request]

    def load(self, *, gold: bool = False) -> Loaded:
        """The model, or the one that has never seen them."""
        return Loaded.load(find_model(self.gold if gold else self.model))

    def asked(self, request: Request) -> dict[str, list[Example]]:
        """What a model is asked, by split: up to :attr:`most` of each, from all over it."""
        return {name: spread(request.splits[name], self.most) for name in SPLITS}


GROUNDS = {
    "people": Ground("people:planted", PLANTED.gold[HALF], "0:29", 16, _of_people),
    "toy": Ground("toy:vanilla", "toy:gold", "0:5", 40, _of_the_toy),
}


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that every check has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder that grows; the same call goes on")
    parser.add_argument("--on", choices=GROUNDS, default="people", help="people:planted, or toy:vanilla in less time")
    parser.add_argument("--only", type=int, nargs="+", default=[0], help="the requests of these numbers")
    return parser


def edit_of(ground: Ground, request: Request, out: Path, method: str, reporter: Reporter) -> Edit:
    """What kvw erase makes of a request, from its retain file alone; found again in ``out``.

    KVW forgets a person only at a price, so it may lose more: it works in one shot, on all layers.
    """
    place = out / f"edit-{request.name}-{method}"
    published = method == PUBLISHED
    if not (place / EDIT).is_file():
        files = request.write(out / "data" / request.name)
        wanted = EraseRequest(
            model=find_model(ground.model),
            forget=files["forget"],
            retain=files["retain"],
            out=place,
            method=method,
            settings={"schedule": "one-shot", "layers": ground.layers} if published else {},
            keep=0.3 if published else KEEP,
            sources=(),
            evaluate_at_most=8,
            max_new_tokens=16,
            save_model=False,
            write_damaged=True,
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
