"""CLEAR: the 200 authors of TOFU with portraits and captions, real faces, and questions about the real world."""

from __future__ import annotations

from dataclasses import replace

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.choices import order_key, shuffled
from kvw.data.benchmarks.items import BenchmarkData, Item, Modality, Task
from kvw.data.benchmarks.prompts import BARE, Prompt, lettered
from kvw.data.benchmarks.rows import Ledger, Rejected, Row, not_forgotten
from kvw.data.benchmarks.store import Columns, Store

EVERYTHING = (
    "image",
    "caption",
    "name",
    "question",
    "answer",
    "paraphrased_caption",
    "perturbed_captions",
    "perturbed_names",
    "options",
)
MIXED = Columns(("image", "caption", "name", "question", "answer"), EVERYTHING)
PERTURBED = Columns(
    ("image", "caption", "name", "paraphrased_caption", "perturbed_captions", "perturbed_names"), EVERYTHING
)
REAL = Columns(("image", "answer", "options"), EVERYTHING)
WORLD_COLUMNS = Columns(("image", "question", "answer", "options"), EVERYTHING)

CAPTION_QUESTIONS = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)
"""The nine prompts of CLEAR's training and evaluation scripts; they draw one at random; here a digest decides."""
FACE_QUESTION = "The name of the person on the image is"
"""CLEAR's own prompt for names."""
NAME_QUESTION = "What is the name of the person in the image?"
"""The prompt for names of the later scripts (MMUnlearner, KVW)."""
OPTIONS = Prompt(
    "clear options",
    "{question}\n{options}\n",
    "evaluation scripts of MMUnlearner and KVW",
    show_options=lettered(". "),
    reply="letter",
)


def _open(modality: Modality, *scores: str, tokens: int = 300) -> Task:
    return Task("generation", modality, BARE, scores, tokens)


CHOICE = Task("choice", "image", OPTIONS, ("choice_accuracy",), 50)
TRUTH = ("probability", "rouge_l_recall", "truth_ratio")
PEOPLE: dict[str, Task] = {
    "caption": _open("image", *TRUTH),
    "face": _open("image", *TRUTH),
    "name": _open("image", "normalised_substring", tokens=50),
    "name_choice": CHOICE,
    "tofu": _open("text", "rouge_l_recall", "probability"),
}
"""The tasks of forget and retain set: captions and faces as in CLEAR, names as in the later scripts, TOFU's text."""
FACES: dict[str, Task] = {"face": _open("image", *TRUTH), "name_choice": CHOICE}
WORLD: dict[str, Task] = {"question": _open("image", *TRUTH), "question_choice": CHOICE}


def read(request: Request) -> BenchmarkData:
    """Read one forget ratio."""
    percent = int(request.setting.removeprefix("forget"))
    ledger = Ledger()
    forget_table, retain_table = f"{request.setting}+tofu", f"retain{100 - percent}+tofu"
    _read_mixed(ledger, request, forget_table, "forget", frozenset())
    forgotten = frozenset(item.subject for item in ledger.items("training", "forget") if item.images)
    _read_mixed(ledger, request, retain_table, "retain", forgotten)
    for table, split in ((f"{request.setting}_perturbed", "forget"), ("retain_perturbed", "retain")):
        taken = forgotten if split == "retain" else frozenset[str]()
        for row in ledger.rows(table, request.data.table(table, PERTURBED)):
            _ask_about_person(ledger, row, split, taken, request.seed)
    for row in ledger.rows("real_faces", request.data.table("real_faces", REAL)):
        _ask_about_face(ledger, row, request.seed)
    for row in ledger.rows("real_world", request.data.table("real_world", WORLD_COLUMNS)):
        _ask_about_world(ledger, row, request.seed)
    folds = _read_folds(ledger, request)
    forms = {"forget": PEOPLE, "retain": PEOPLE, "real_faces": FACES, "real_world": WORLD}
    forms |= {f"forget_fold_{number}": PEOPLE for number in (1, 2) if folds}
    return BenchmarkData(
        benchmark="CLEAR",
        setting=request.setting,
        splits={split: ledger.split(split, tasks) for split, tasks in forms.items()},
        training={part: ledger.items("training", part) for part in ("forget", "retain")},
        accounts=ledger.accounts(),
        published_folds=folds,
    )


def _read_mixed(ledger: Ledger, request: Request, table: str, part: str, forgotten: frozenset[str]) -> None:
    """Read a table that mixes captioned portraits with questions of TOFU, whose image is null."""
    rows = list(request.data.table(table, MIXED))
    names = sorted({str(row["name"]).strip() for row in rows if row["name"]}, key=lambda name: (-len(name), name))
    for row in ledger.rows(table, rows):
        if row.values["image"] is None:
            subject = _named_in(row, names)
            for split, task in (("training", part), (part, "tofu")):
                with ledger.entry(row, split, task) as add:
                    not_forgotten(subject, forgotten)
                    add(Item(row.text("question"), row.text("answer"), subject, row.name, metadata=row.metadata()))
        else:
            with ledger.entry(row, "training", part) as add:
                not_forgotten(row.text("name"), forgotten)
                add(_caption(row, request.seed))


def _named_in(row: Row, names: list[str]) -> str:
    """Whom a question of TOFU is about; its rows carry no name."""
    text = f"{row.optional_text('question')} {row.optional_text('answer')}"
    return row.optional_text("name") or next((name for name in names if name in text), row.name)


def _caption(row: Row, seed: int) -> Item:
    caption = row.text("caption")
    # By the caption and not by the row, so that a row of a published fold is asked as in the whole table.
    question = min(CAPTION_QUESTIONS, key=lambda one: order_key(seed, caption, one))
    return Item(question, caption, row.text("name"), row.name, (row.image("image"),), metadata=row.metadata())


def _ask_about_person(ledger: Ledger, row: Row, split: str, forgotten: frozenset[str], seed: int) -> None:
    with ledger.entry(row, split, "caption") as add:
        not_forgotten(row.text("name"), forgotten)
        paraphrases, wrong = row.texts("paraphrased_caption"), _some(row, "perturbed_captions")
        add(replace(_caption(row, seed), paraphrases=paraphrases, perturbed=wrong))
    for task, question in (("face", FACE_QUESTION), ("name", NAME_QUESTION), ("name_choice", NAME_QUESTION)):
        with ledger.entry(row, split, task) as add:
            not_forgotten(row.text("name"), forgotten)
            wrong = _some(row, "perturbed_names")
            add(_with_options(row, question, "name", wrong, seed, row.text("name"), choice=task == "name_choice"))


def _ask_about_face(ledger: Ledger, row: Row, seed: int) -> None:
    for task in ("face", "name_choice"):
        with ledger.entry(row, "real_faces", task) as add:
            choice = task == "name_choice"
            question = (row.optional_text("question") or NAME_QUESTION) if choice else FACE_QUESTION
            wrong = _some(row, "options")
            add(_with_options(row, question, "answer", wrong, seed, row.text("answer"), choice=choice))


def _ask_about_world(ledger: Ledger, row: Row, seed: int) -> None:
    for task in ("question", "question_choice"):
        with ledger.entry(row, "real_world", task) as add:
            wrong = _some(row, "options")
            choice = task == "question_choice"
            add(_with_options(row, row.text("question"), "answer", wrong, seed, row.name, choice=choice))


def _some(row: Row, column: str) -> tuple[str, ...]:
    texts = row.texts(column)
    if not texts:
        raise Rejected(f"{column} is empty")
    return texts


def _with_options(
    row: Row, question: str, column: str, wrong: tuple[str, ...], seed: int, subject: str, *, choice: bool
) -> Item:
    """An item whose wrong answers are options, or are kept for the truth ratio.

    The data list wrong answers only; where the right one is among them nevertheless it is not wrong.
    """
    answer = row.text(column)
    images = (row.image("image"),)
    item = Item(question, answer, subject, row.name, images, metadata=row.metadata())
    wrong = tuple(one for one in wrong if one != answer)
    if not choice:
        return replace(item, perturbed=wrong)
    if not wrong:
        raise Rejected("no option is wrong")
    choices, correct = shuffled(answer, wrong, seed, row.optional_text("caption") or row.name)
    return replace(item, choices=choices, correct=correct)


def _read_folds(ledger: Ledger, request: Request) -> dict[str, frozenset[int]]:
    """Read the published halves of the forget set, where there are any; nobody is asked about twice in ``forget``.

    Returns:
        The halves (0, 1) in which each person is.
    """
    tables = [f"{request.setting}_perturbed_{number}" for number in (1, 2)]
    store = request.others.get("folds")
    # Its tables were written by save_to_disk, which only a folder can be read back from.
    store = request.data if store is None else Store(store.folder(*(f"{table}/*" for table in tables)))
    if store.local is None or not all(store.has(table) for table in tables):
        return {}
    halves: dict[str, frozenset[int]] = {}
    for half, table in enumerate(tables):
        split = f"forget_fold_{half + 1}"
        for row in ledger.rows(table, store.table(table, PERTURBED)):
            _ask_about_person(ledger, row, split, frozenset(), request.seed)
        for task in PEOPLE:
            for item in ledger.items(split, task):
                halves[item.subject] = halves.get(item.subject, frozenset()) | {half}
    return halves


BENCHMARK = Benchmark(
    name="clear",
    title="CLEAR",
    hub_id="therem/CLEAR",
    licence="not stated; the text of TOFU is MIT",
    paper="Dontsov et al., CLEAR: Character Unlearning in Textual and Visual Modalities, Findings of ACL 2025",
    settings=("forget01", "forget05", "forget10"),
    read=read,
    others={"folds": "yejinkim/clear-two-fold-val"},
)
