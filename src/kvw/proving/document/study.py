"""A page planted into the pretrained model and erased again: extraction strength, questions about it, plain text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from kvw.data import Example
from kvw.edits.edit import load_edit
from kvw.errors import Unwritable, UserError
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics.extraction import extraction_strength
from kvw.evaluation.probability import token_scores
from kvw.files import write_text
from kvw.made import is_made, made_folder
from kvw.models.checkpoint import Checkpoint, find_checkpoint
from kvw.progress import Reporter
from kvw.proving.document.pages import FORGOTTEN, OTHER, Page, lessons, page, questions
from kvw.proving.plain_text import perplexity
from kvw.proving.scoring import ask
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.writing import EDIT
from kvw.training.planting import finetune
from kvw.training.result import save_model
from kvw.training.settings import LoraSettings, TrainingSettings

MODEL = "document-planted"
RECIPE = TrainingSettings(
    learning_rate=1.5e-3,
    epochs=7,
    batch_size=4,
    warm_up=0.05,
    precision="bf16",
    save_every=20,
    lora=LoraSettings(8, 16, 0.0),
)
REQUESTS = {"the page": ("page",), "the page and questions": ("page", "questions")}
"""What the forget set of each request holds, by its title."""


@dataclass(frozen=True)
class PageScore:
    """What a model makes of a page and of the questions about it.

    Args:
        extraction: Extraction strength of the page, from its first words on.
        first: Share of its tokens that are the model's first choice after those before them.
        asked: Share of the questions, as they were taught, whose fact the model chooses first, teacher-forced.
        held_out: The same of questions in words that no model has seen.
        given: Share of the held-out questions whose greedy answer holds the fact.
    """

    extraction: float
    first: float
    asked: float
    held_out: float
    given: float


@dataclass(frozen=True)
class Score:
    """What a model makes of both pages, and of plain text."""

    pages: dict[Page, PageScore]
    perplexity: float


def planted(base: Checkpoint, reporter: Reporter) -> Checkpoint:
    """The model that knows both pages by heart; it is made once, in the cache, and goes on where it stopped.

    Args:
        base: The model before.
        reporter: Told of the training.

    Raises:
        UserError: The model cannot be trained.
    """
    folder = made_folder(MODEL)
    if not is_made(MODEL):
        state = folder.with_name(f"{MODEL}.state.safetensors")
        loaded = Loaded.load(base)
        with reporter.stage("planting two pages") as progress:
            finetune(loaded.model, loaded.processor, lessons(), RECIPE, state=state, progress=progress)
            save_model(loaded.model, loaded.processor, folder, force=True)
        state.unlink(missing_ok=True)
    return find_checkpoint(str(folder))


def scores_of(loaded: Loaded, reporter: Reporter) -> Score:
    """Ask a model, as it is now, about both pages.

    Raises:
        UserError: It cannot be asked.
    """
    return Score({name: _page_score(loaded, name, reporter) for name in (FORGOTTEN, OTHER)}, _heard(loaded))


def _heard(loaded: Loaded) -> float:
    return perplexity(loaded.model, loaded.processor)


def _page_score(loaded: Loaded, name: Page, reporter: Reporter) -> PageScore:
    parts = loaded.prepare(loaded.in_windows([page(name)]))
    hits = [score.is_argmax for score in token_scores(loaded.model, loaded.processor, parts)]
    asked = {"asked": questions(name, "asked"), "held_out": questions(name, "held_out")}
    with reporter.stage(f"asking about {name}") as progress:
        answers = ask(loaded, asked, progress, keep=False)
    return PageScore(
        extraction=fmean(map(extraction_strength, hits)),
        first=fmean(hit for part in hits for hit in part),
        asked=fmean(one.chosen for one in answers["asked"]),
        held_out=fmean(one.chosen for one in answers["held_out"]),
        given=fmean(bool(one.given) for one in answers["held_out"]),
    )


def write_forget_set(folder: Path) -> dict[str, Path]:
    """The page as a Markdown file, and the questions about it, as they are taught, as JSON Lines."""
    files = {"page": folder / f"{FORGOTTEN}.md", "questions": folder / "questions.jsonl"}
    text: Example = page(FORGOTTEN)
    write_text(files["page"], f"{text.question}{text.answer}\n")
    rows = [
        {"question": one.question, "answer": one.answer, "subject": one.subject}
        for one in questions(FORGOTTEN, "asked")
    ]
    write_text(files["questions"], "".join(json.dumps(row) + "\n" for row in rows))
    return files


def run(out: Path, base: Checkpoint, reporter: Reporter) -> dict[str, Score | str]:
    """Plant, erase, and ask before and after; what is there already is not done again.

    Args:
        out: Folder of the forget sets, the runs and the scores.
        base: The model before planting.
        reporter: Told of stages.

    Returns:
        Scores by title; of a request that was refused its message.

    Raises:
        UserError: A model cannot be made or asked.
    """
    checkpoint = planted(base, reporter)
    files = write_forget_set(out)
    found: dict[str, Score | str] = {"before planting": _kept(out, "before planting", base, None, reporter)}
    found["planted"] = _kept(out, "planted", checkpoint, None, reporter)
    for title, parts in REQUESTS.items():
        place = out / title.replace(" ", "-")
        if not (place / EDIT).is_file():
            forget = [files[part] for part in parts]
            try:
                erase(EraseRequest(checkpoint, forget, None, place, save_model=False, force=True), reporter)
            except Unwritable:
                raise
            except UserError as error:
                found[f"without {title}"] = str(error)
                continue
        found[f"without {title}"] = _kept(out, f"without {title}", checkpoint, place / EDIT, reporter)
    return found


def _kept(out: Path, title: str, checkpoint: Checkpoint, edit: Path | None, reporter: Reporter) -> Score:
    """Scores, kept in a file until the edit is another one."""
    file = out / f"{title.replace(' ', '-')}.json"
    identity = load_edit(edit).digest() if edit else str(checkpoint)
    if file.is_file() and (content := json.loads(file.read_text("utf-8")))["of"] == identity:
        return Score({name: PageScore(**one) for name, one in content["pages"].items()}, content["perplexity"])
    loaded = Loaded.load(checkpoint)
    with load_edit(edit).attach(loaded.model) if edit else nullcontext():
        score = scores_of(loaded, reporter)
    write_text(file, json.dumps({"of": identity, **asdict(score)}, indent=1) + "\n")
    return score


def markdown(found: Mapping[str, Score | str]) -> str:
    """The scores as a table; messages below it."""
    titles = ["", "extraction strength", "tokens chosen first", "asked", "held out", "given", "perplexity"]
    rows = [f"| {' | '.join(titles)} |", f"|---{'|---:' * (len(titles) - 1)}|"]
    for title, score in found.items():
        if isinstance(score, str):
            continue
        for name, one in score.pages.items():
            cells = [f"{value:.3f}" for value in (one.extraction, one.first, one.asked, one.held_out, one.given)]
            rows.append(f"| {title}: {name} | {' | '.join(cells)} | {score.perplexity:.1f} |")
    messages = [f"{title}: {one}" for title, one in found.items() if isinstance(one, str)]
    return "\n\n".join(["\n".join(rows), *messages]) + "\n"
