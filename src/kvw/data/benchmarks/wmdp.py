"""WMDP: hazardous knowledge, asked by multiple choice and forgotten from documents, text only; nothing is planted."""

from __future__ import annotations

from itertools import islice

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.numbered import FOUR_OPTIONS, NUMBERED, numbered_choice
from kvw.data.benchmarks.rows import Ledger, Rejected, Row
from kvw.data.benchmarks.store import Columns, Store
from kvw.data.documents import document
from kvw.errors import UserError

TEXTS = Columns(("text",), ("title", "abstract", "doi"))
CHOICE = Task("choice", "text", FOUR_OPTIONS, ("choice_accuracy",), 8)
DOCUMENTS, SHORTEST, LONGEST = 1000, 50, 2000
"""Documents of each corpus that are read, and their characters. As in the authors' script for RMU shorter ones are left
out, and longer ones are cut."""
CORPORA = {"cyber": ("corpora", "cyber-forget-corpus"), "bio": ("bio", None)}
"""The source and table of what is to be forgotten."""


def read(request: Request) -> BenchmarkData:
    """Read the questions of one field, documents about it and beside it, and MMLU for what must stay.

    Raises:
        UserError: A further source is missing: a copy needs one for the corpora and one for MMLU.
    """
    ledger = Ledger()
    table = f"wmdp-{request.setting}"
    for row in ledger.rows(table, request.data.table(table, NUMBERED)):
        with ledger.entry(row, "forget", "question") as add:
            add(numbered_choice(row, row.name))
    for row in ledger.rows("mmlu", _other(request, "mmlu").table("all", NUMBERED, "test")):
        with ledger.entry(row, "retain", "general") as add:
            add(numbered_choice(row, row.optional_text("subject") or row.name))
    source, name = CORPORA[request.setting]
    corpora = {"forget": (source, name), "retain": ("corpora", f"{request.setting}-retain-corpus")}
    for part, (source, name) in corpora.items():
        rows = islice(_other(request, source).table(name, TEXTS), DOCUMENTS)
        for row in ledger.rows(name or source, rows):
            with ledger.entry(row, "training", part) as add:
                add(_document(row))
    return BenchmarkData(
        benchmark="WMDP",
        setting=request.setting,
        splits={
            "forget": ledger.split("forget", {"question": CHOICE}),
            "retain": ledger.split("retain", {"general": CHOICE}),
        },
        training={part: ledger.items("training", part) for part in corpora},
        accounts=ledger.accounts(),
    )


def _other(request: Request, name: str) -> Store:
    """A further source.

    Raises:
        UserError: It was not given.
    """
    if name not in request.others:
        raise UserError(
            f"WMDP in the setting {request.setting} needs the further source {name!r}.",
            found=", ".join(request.others) or "no further source",
            do=f"give a folder with a copy of {BENCHMARK.others[name]} as {name!r}",
        )
    return request.others[name]


def _document(row: Row) -> Item:
    text = row.text("text")
    if len(text) < SHORTEST:
        raise Rejected(f"the text has less than {SHORTEST} characters")
    made = document(text[:LONGEST], row.name, {})
    return Item(made.question, made.answer, row.name, row.name, metadata=row.metadata(), plain=True)


BENCHMARK = Benchmark(
    name="wmdp",
    title="WMDP",
    hub_id="cais/wmdp",
    licence="MIT; the corpus for bio is given on request",
    paper="Li et al., The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning, ICML 2024",
    settings=("cyber", "bio"),
    read=read,
    others={"corpora": "cais/wmdp-corpora", "bio": "cais/wmdp-bio-forget-corpus", "mmlu": "cais/mmlu"},
)
