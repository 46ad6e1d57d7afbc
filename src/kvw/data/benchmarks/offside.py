"""OFFSIDE: rumours about football players, told beside what is true of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.prompts import BARE, Prompt
from kvw.data.benchmarks.rows import Ledger, Rejected, Row
from kvw.data.benchmarks.store import Columns, image_file

TALK = Columns(("messages",), ("images",))
CHOICES = Columns(("Question", "Options", "Correct_Answer"), ("images", "image"))
PLACEHOLDER = "<image>"
"""Where a chat template would put the image; the data has it once or several times in a question."""
IMAGES_PER_PLAYER = 5
REMAINDERS = {"forget": (4,), "retain": (1, 2, 3), "test": (1, 2, 3), "relearn": (0,)}
"""Which images belong to which set: their numbers modulo 5."""
UNKNOWN = "unknown player"
"""The subject of questions in words that name none of the players; they count as one."""
NAMED = re.compile(r"(?:[Tt]he player(?: in the image)?|[Tt]he player's name|[Tt]his|[Hh]e) is (\w.*?)\.?$")
WHO = re.compile(r"\b(who|name|identi\w+)\b", re.IGNORECASE)

SOURCE = "evaluation script of OFFSIDE"
CHOICE = Prompt(
    "offside letter",
    "{question}\n\nPlease look at this image and answer the question by selecting the correct option from the choices "
    "below.\n\nPlease respond with only the letter of the correct answer (e.g., 'The answer is A' or just 'A').\n\n"
    "Options:\n{options}\n\n",
    SOURCE,
    reply="letter",
)
SCORES = ("rouge_1_f", "rouge_2_f", "rouge_l_f", "bleu")
FORMS = {
    "generation_image": Task("generation", "image", BARE, SCORES, 32),
    "generation_text": Task("generation", "text", BARE, SCORES, 32),
    "classification_image": Task("choice", "image", CHOICE, ("choice_accuracy",), 32),
}


def read(request: Request) -> BenchmarkData:
    """Read one of the settings.

    complete: all questions about the rumour images are to be forgotten. selective: only the private ones.
    unimodal: all of them, but the method is given only those in words (``training["forget"]``; the others are in
    ``training["forget_unseen"]``). The true facts that correct the rumours are the split ``relearn``.
    """
    folder = request.data.folder("*")
    images = request.others["images"].folder("*") if "images" in request.others else folder
    ledger = Ledger()
    talks = {split: _file(folder, split, request.setting) for split in REMAINDERS}
    records = {split: request.data.records(name, TALK) for split, name in talks.items()}
    names = _names(record for each in records.values() for record in each)
    for split, name in talks.items():
        for row in ledger.rows(name, records[split]):
            _ask(ledger, row, split, _Setting(request.setting, images, names))
        name = f"classification_{split}_set.json"
        if (folder / name).is_file():
            for row in ledger.rows(name, request.data.records(name, CHOICES)):
                with ledger.entry(row, split, "classification_image") as add:
                    add(_choice(row, split, images))
    training = {part: ledger.items("training", part) for part in ("forget", "forget_unseen", "retain")}
    return BenchmarkData(
        benchmark="OFFSIDE",
        setting=request.setting,
        splits={split: ledger.split(split, FORMS) for split in REMAINDERS},
        training={part: items for part, items in training.items() if items or part != "forget_unseen"},
        accounts=ledger.accounts(),
    )


@dataclass(frozen=True)
class _Setting:
    """What reading a row needs besides the row.

    Args:
        name: The setting.
        images: Where the images are.
        players: The subject of each player's name.
    """

    name: str
    images: Path
    players: Mapping[str, str]


def _file(folder: Path, split: str, setting: str) -> str:
    """The file of a split; the test set and, in some copies, the retain set have no part of their own."""
    part = f"{split}_set_part.json"
    wanted = setting == "selective" and (split == "forget" or (folder / part).is_file())
    return part if wanted else f"{split}_set.json"


def _ask(ledger: Ledger, row: Row, split: str, setting: _Setting) -> None:
    path = _image_path(row, "images")
    modality = "text" if path is None else "image"
    targets = [(split, f"generation_{modality}")]
    if split == "forget":
        unseen = setting.name == "unimodal" and modality == "image"
        targets.append(("training", "forget_unseen" if unseen else "forget"))
    elif split == "retain":
        targets.append(("training", "retain"))
    turns = ledger.parts(row, "messages")
    for target, task in targets:
        with ledger.entry(row, target, task) as add:
            question, answer = _said(turns)
            if path is None:
                subject = next((each for name, each in setting.players.items() if _mentions(question, name)), UNKNOWN)
                add(Item(question, answer, subject, row.name, metadata=row.metadata()))
                continue
            image = _picture(setting.images, path)
            add(Item(question, answer, _player(path, split), row.name, (image,), metadata=row.metadata()))


def _choice(row: Row, split: str, images: Path) -> Item:
    path = _image_path(row, "images") or _image_path(row, "image")
    if path is None:
        raise Rejected("it names no image")
    given = row.inside("Options", row.nested("Options"))
    letters = sorted(one for one in given.values if given.optional_text(one) is not None)
    options = tuple(given.text(one) for one in letters)
    correct = row.text("Correct_Answer").upper()[0]
    if correct not in letters:
        raise Rejected(f"the right answer {correct!r} is none of the options {', '.join(letters)}")
    position = letters.index(correct)
    return Item(
        _without_placeholders(row.text("Question")),
        options[position],
        _player(path, split),
        row.name,
        (_picture(images, path),),
        options,
        position,
        metadata=row.metadata(),
    )


def _said(turns: Sequence[Row]) -> tuple[str, str]:
    """The question and the answer of a conversation of one turn."""
    roles = [turn.text("role") for turn in turns]
    if roles != ["user", "assistant"]:
        raise Rejected(f"the conversation is not one question and one answer but {', '.join(roles) or 'nothing'}")
    question = _without_placeholders(turns[0].text("content"))
    if not question:
        raise Rejected("the question is empty")
    return question, turns[1].text("content")


def _without_placeholders(text: str) -> str:
    words = " ".join(text.replace(PLACEHOLDER, " ").split())
    return re.sub(r" +([.?!,])", r"\1", words).rstrip(": ")


def _image_path(row: Row, column: str) -> str | None:
    """The path of the image, given alone or in a list."""
    return next(iter(row.texts(column)), None)


def _player(path: str, split: str) -> str:
    """Whom an image shows: five images in a row are of one player; checks that it belongs to the split."""
    digits = re.search(r"\d+", Path(path).stem)
    if digits is None:
        raise Rejected(f"the name of the image {path} has no number")
    number = int(digits[0])
    if number % IMAGES_PER_PLAYER not in REMAINDERS[split]:
        raise Rejected(f"the image {path} does not belong to the {split} set")
    return f"player {(number - 1) // IMAGES_PER_PLAYER:03d}"


def _picture(images: Path, path: str) -> Path:
    file = image_file(images, path, Path(path).name)
    if file is None:
        raise Rejected(f"the image {path} is not there")
    return file


def _names(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The players' names, longest first, from what is answered when it is asked who is shown in an image."""
    names = {}
    for record in records:
        path, turns = record.get("images"), record.get("messages")
        path = path[0] if isinstance(path, list) and path else path
        if not isinstance(path, str) or not isinstance(turns, list) or len(turns) != 2:
            continue
        number = re.search(r"\d+", Path(path).stem)
        question, answer = (str(turn.get("content")) if isinstance(turn, Mapping) else "" for turn in turns)
        name = NAMED.search(answer.strip())
        if number is not None and name is not None and WHO.search(question):
            names[name[1]] = f"player {(int(number[0]) - 1) // IMAGES_PER_PLAYER:03d}"
    return {name: names[name] for name in sorted(names, key=lambda name: (-len(name), name))}


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None


BENCHMARK = Benchmark(
    name="offside",
    title="OFFSIDE",
    hub_id="zh1218001/OFFSIDE",
    licence="Apache-2.0 (repository); pictures of and rumours about real players",
    paper="OFFSIDE: Benchmarking Unlearning Misinformation in Multimodal Large Language Models, 2025",
    settings=("complete", "selective", "unimodal"),
    read=read,
    others={"images": ""},
)
