"""TOFU: questions about 200 fictitious authors, text only; also the text half of CLEAR."""

from __future__ import annotations

from dataclasses import replace

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.prompts import BARE
from kvw.data.benchmarks.rows import Ledger, Rejected, Row
from kvw.data.benchmarks.store import Columns
from kvw.errors import UserError

AUTHORS = 200
QUESTIONS = 20
"""How many questions there are about each author, one after the other."""
PLAIN = Columns(("question", "answer"))
PERTURBED = Columns(("question", "answer", "perturbed_answer"), ("paraphrased_answer", "paraphrased_question"))
FACTS = {"real_authors": "real_authors_perturbed", "world_facts": "world_facts_perturbed"}


def form() -> Task:
    """The one task: the bare question, scored as in the TOFU paper."""
    scores = ("probability", "rouge_l_recall", "truth_ratio")
    return Task("generation", "text", BARE, scores, max_new_tokens=200)


def read(request: Request) -> BenchmarkData:
    """Read one forget ratio."""
    percent = int(request.setting.removeprefix("forget"))
    kept = f"retain{100 - percent}"
    starts = {"forget": AUTHORS - AUTHORS * percent // 100, "retain": 0}
    tables = [
        (request.setting, PLAIN, "training", "forget", starts["forget"]),
        (kept, PLAIN, "training", "retain", 0),
        (f"{request.setting}_perturbed", PERTURBED, "forget", "question", starts["forget"]),
        ("retain_perturbed", PERTURBED, "retain", "question", 0),
    ]
    ledger = Ledger()
    for table, columns, split, task, first in tables:
        rows = list(request.data.table(table, columns))
        _check_groups(table, len(rows))
        forgotten = {item.question for item in ledger.items("training", "forget")} if "retain" in table else set()
        for row in ledger.rows(table, rows):
            with ledger.entry(row, split, task) as add:
                if row.text("question") in forgotten:
                    raise Rejected("the question is also in the forget set")
                add(_item(row, f"author {first + (row.number - 1) // QUESTIONS:03d}", plain=columns is PLAIN))
    for split, table in FACTS.items():
        for row in ledger.rows(table, request.data.table(table, PERTURBED)):
            with ledger.entry(row, split, "question") as add:
                add(_item(row, row.name))
    return BenchmarkData(
        benchmark="TOFU",
        setting=request.setting,
        splits={split: ledger.split(split, {"question": form()}) for split in ("forget", "retain", *FACTS)},
        training={part: ledger.items("training", part) for part in starts},
        accounts=ledger.accounts(),
    )


def _item(row: Row, subject: str, *, plain: bool = False) -> Item:
    item = Item(row.text("question"), row.text("answer"), subject, row.name, metadata=row.metadata())
    if plain:
        return item
    wrong = row.texts("perturbed_answer")
    if not wrong:
        raise Rejected("perturbed_answer is empty")
    return replace(
        item,
        paraphrases=row.texts("paraphrased_answer"),
        perturbed=wrong,
        question_paraphrases=row.texts("paraphrased_question"),
    )


def _check_groups(table: str, rows: int) -> None:
    """Authors are not named in the data; only their position tells them apart."""
    if rows % QUESTIONS:
        raise UserError(
            f"The rows of {table} do not come in groups of {QUESTIONS}, one group for each author.",
            found=f"{rows} rows",
            do="use the whole table: authors are told apart by their position",
        )


BENCHMARK = Benchmark(
    name="tofu",
    title="TOFU",
    hub_id="locuslab/TOFU",
    licence="MIT",
    paper="Maini et al., TOFU: A Task of Fictitious Unlearning for LLMs, COLM 2024",
    settings=("forget01", "forget05", "forget10"),
    read=read,
)
