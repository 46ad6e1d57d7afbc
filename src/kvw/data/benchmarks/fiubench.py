"""FIUBench: 400 synthetic faces, each with 20 questions about a fictitious private life."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.prompts import BARE
from kvw.data.benchmarks.rows import Ledger, Rejected, Row
from kvw.data.benchmarks.store import Columns, Store, image_file
from kvw.data.example import ImageSource
from kvw.errors import UserError

PERSON = Columns(("unique_id", "image_path", "qa_list"), ("name", "gender", "caption", "raw_data"))
PEOPLE = 400
"""How many of the rows the published scripts use; more have been seen in the file."""
DIGITS = 8
"""The length of an identifier; programs that take it for a number lose its zeros."""
ARCHIVE = "SFHQ.zip"
"""The images as the hub has them."""

FORMS = {
    "question": Task("generation", "image", BARE, ("rouge_l_recall", "probability", "truth_ratio", "keywords"), 50),
    "rephrased": Task("generation", "image", BARE, ("keywords",), 50),
}


class _Images:
    """The portraits, in a folder or in the archive of the hub; each is read once, however often it is asked about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, ImageSource] = {}

    def find(self, path: str) -> ImageSource:
        """The image of a row, whose path is relative to where its authors ran their scripts."""
        if path not in self._found:
            self._found[path] = self._look_for(path)
        return self._found[path]

    def _look_for(self, path: str) -> ImageSource:
        name = Path(path).name
        file = image_file(self._folder, path, path.removeprefix("./dataset/"), f"SFHQ/{name}", name)
        if file is not None:
            return file
        if (self._folder / ARCHIVE).is_file():
            with ZipFile(self._folder / ARCHIVE) as archive:
                member = next((one for one in archive.namelist() if Path(one).name == name), None)
                if member is not None:
                    return archive.read(member)
        raise Rejected(f"the image {name} is not there")


def read(request: Request) -> BenchmarkData:
    """Read one forget list.

    The three forget lists are disjoint, not nested, and nobody of any of them is retained: in the setting forget5
    the people of forget1 and forget10 are planted, but neither forgotten nor retained (``training["other"]``).
    """
    lists = _lists(request.data)
    forgotten = lists[request.setting]
    everyone_forgotten = {one for name, members in lists.items() if name.startswith("forget") for one in members}
    asked_retain = lists.get(request.setting.replace("forget", "retain")) or lists.get("retain15")
    folder = request.others["images"].folder() if "images" in request.others else request.data.folder(ARCHIVE)
    images = _Images(folder)
    ledger = Ledger()
    for row in ledger.rows("full.json", request.data.records("full.json", PERSON)):
        identifier = row.key("unique_id", width=DIGITS) if row.optional_key("unique_id") is not None else ""
        if row.number > PEOPLE:
            ledger.outside(row)
            continue
        part = "forget" if identifier in forgotten else "other" if identifier in everyone_forgotten else "retain"
        asked = part != "other" and (part == "forget" or asked_retain is None or identifier in asked_retain)
        for question in ledger.parts(row, "qa_list"):
            _read_question(ledger, row, question, images, part, asked=asked)
    return BenchmarkData(
        benchmark="FIUBench",
        setting=request.setting,
        splits={split: ledger.split(split, FORMS) for split in ("forget", "retain")},
        training={part: ledger.items("training", part) for part in ("forget", "retain", "other")},
        accounts=ledger.accounts(),
        refusals=_refusals(request.data),
    )


def _read_question(ledger: Ledger, row: Row, question: Row, images: _Images, part: str, *, asked: bool) -> None:
    with ledger.entry(question, "training", part) as add:
        add(_item(row, question, images, question.text("question")))
    if not asked:
        return
    with ledger.entry(question, part, "question") as add:
        add(_item(row, question, images, question.text("question")))
    for paraphrase in question.texts("paraphrased_question"):
        with ledger.entry(question, part, "rephrased") as add:
            add(_item(row, question, images, paraphrase))


def _item(row: Row, part: Row, images: _Images, question: str) -> Item:
    # Texts stay as they are. The published scripts call capitalize(), which lower-cases every name.
    return Item(
        question,
        part.text("answer"),
        # Not the name: three names are shared by two people each.
        row.key("unique_id", width=DIGITS),
        part.name,
        (images.find(row.text("image_path")),),
        paraphrases=part.texts("paraphrased_answer"),
        perturbed=part.texts("perturbed_answer"),
        question_paraphrases=part.texts("paraphrased_question"),
        metadata=part.metadata(keywords=part.texts("keywords"), name=row.optional_text("name")),
    )


def _lists(store: Store) -> Mapping[str, frozenset[str]]:
    lists = store.json("split.json")
    settings = BENCHMARK.settings
    if not isinstance(lists, dict) or any(name not in lists for name in settings):
        raise UserError(
            "split.json does not hold the lists of people to forget.",
            found=", ".join(lists) if isinstance(lists, dict) else type(lists).__name__,
            do=f"it must have {', '.join(settings)}; download it again",
        )
    return {name: frozenset(str(one).zfill(DIGITS) for one in members) for name, members in lists.items()}


def _refusals(store: Store) -> tuple[str, ...]:
    pools = store.json("prompt.json")
    return tuple(one.strip() for one in pools.get("idk", ())) if isinstance(pools, dict) else ()


BENCHMARK = Benchmark(
    name="fiubench",
    title="FIUBench",
    hub_id="gray311/FIUBench",
    licence="Apache-2.0",
    paper="Ma et al., Benchmarking Vision Language Model Unlearning via Fictitious Facial Identity Dataset, ICLR 2025",
    settings=("forget1", "forget5", "forget10"),
    read=read,
    others={"images": ""},
)
