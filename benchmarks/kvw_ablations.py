"""What each part of KVW is worth: the retain contrast, answer tokens alone, and steps in place of one shot.

One request of planted people. Each variant is solved once with the retain file; its strength is then the highest at
which what must stay keeps a share of its probability, so that all variants cost others the same. What must stay are the
answers about people that no variant has seen. Shown is what is left of the forget answers, asked as they were and in a
held-out way.

usage: python benchmarks/kvw_ablations.py --out DIR [--on people] [--only 0] [--keep 0.9]
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from kvw.console import ConsoleReporter
from kvw.data.shared import RetainSet
from kvw.edits.edit import Edit
from kvw.evaluation.loaded import Loaded
from kvw.files import write_text
from kvw.methods.registry import PUBLISHED, get_method
from kvw.progress import unheard
from kvw.proving.requests import Request
from kvw.quiet import quiet_libraries
from kvw.report.sheets import markdown_table
from kvw.runs.costs import Stopwatch
from kvw.runs.unlearning import unlearn
from kvw.selection.paths import StrengthPath
from kvw.selection.scoring import Score, Scorer, share_of_answers
from planted import GROUNDS, kept, options

STRENGTHS = tuple(2 ** (step / 4) for step in range(-32, 33))
"""1/256 to 256 times the edit that was found."""
VARIANTS = tuple(product((True, False), ("answer", "all"), ("one-shot", "progressive")))
SPLITS = {"forget": "forget", "held-out forget": "held_out", "others": "unused"}
HEADER = ["retain contrast", "tokens", "schedule", "keep", "strength", "others", "forget", "held out", "answered"]


def solved(loaded: Loaded, request: Request, variant: tuple[bool, str, str]) -> Edit:
    """The edit of one variant, over all layers, with the method's own gamma."""
    contrast, positions, schedule = variant
    method = get_method(PUBLISHED)
    values = {"retain_contrast": contrast, "positions": positions, "schedule": schedule}
    settings = method.read({**values, "layers": "{}:{}".format(*loaded.all_layers)})
    retain = RetainSet(request.splits["retain"], [])
    return unlearn(method, loaded, request.splits["forget"], retain, settings, unheard).edit


class Variant:
    """One variant, scored on demand."""

    def __init__(self, scorer: Scorer, edit: Edit) -> None:
        self.scorer, self.path = scorer, StrengthPath(edit)
        self.others = cache(self._others)

    def scores(self, strength: float, *names: str) -> dict[str, Score]:
        """By split, with the edit at a strength."""
        return self.scorer.scores(self.path.edit(strength), names)

    def _others(self, strength: float) -> float:
        after = self.scores(strength, "others")["others"]
        return share_of_answers(self.scorer.original["others"], after).value

    def strongest(self, keep: float) -> float:
        """The highest of the strengths at which the others keep this share; the lowest of all if none does."""
        place = bisect_left(STRENGTHS, True, key=lambda strength: self.others(strength) < keep)
        return STRENGTHS[max(0, place - 1)]

    def row(self, keep: float) -> dict[str, Any]:
        """What is left at that strength."""
        strength, original = self.strongest(keep), self.scorer.original
        after = self.scores(strength, "forget", "held-out forget")
        left = {name: score.probability / original[name].probability for name, score in after.items()}
        answered = sum(sum(score.answered) for score in after.values())
        return {"keep": keep, "strength": strength, "others": self.others(strength), **left, "answered": answered}


def rows(loaded: Loaded, request: Request, scorer: Scorer, place: Path, keeps: list[float]) -> list[list[str]]:
    """The table of one request."""
    found = []
    for variant in VARIANTS:
        contrast, positions, schedule = variant

        def made(variant: tuple[bool, str, str] = variant) -> list[dict[str, Any]]:
            one = Variant(scorer, solved(loaded, request, variant))
            return [one.row(keep) for keep in keeps]

        name = f"{'contrast' if contrast else 'none'}-{positions}-{schedule}-{'-'.join(map(str, keeps))}"
        for row in kept(place / f"{name}.json", made):
            numbers = [f"{row[column]:.3f}" for column in ("others", "forget", "held-out forget")]
            texts = ["on" if contrast else "off", positions, schedule]
            found.append([*texts, f"{row['keep']:g}", f"{row['strength']:.3g}", *numbers, str(row["answered"])])
    return found


def main() -> None:
    """Solve, score and print."""
    parser = options(__doc__)
    parser.add_argument("--keep", type=float, nargs="+", default=[0.9], help="what the others keep")
    arguments = parser.parse_args()
    quiet_libraries()
    ground = GROUNDS[arguments.on]
    watch, loaded = Stopwatch(ConsoleReporter()), ground.load()
    for number in arguments.only:
        request = ground.made(number, arguments.out)
        with watch.stage(f"request {request.name}"):
            asked = ground.asked(request)
            splits = {name: loaded.prepare(asked[split]) for name, split in SPLITS.items()}
            pool = loaded.prepare(request.splits["retain"])
            scorer = Scorer(loaded.model, loaded.processor, splits, pool)
            table = rows(loaded, request, scorer, arguments.out / request.name, arguments.keep)
        text = markdown_table(HEADER, table, 3) + "\n"
        write_text(arguments.out / request.name / "table.md", text)
        questions = sum(len(splits[name]) for name in ("forget", "held-out forget"))
        print(f"{', '.join(request.subjects)}; answered: of {questions}\n\n{text}")


if __name__ == "__main__":
    main()
