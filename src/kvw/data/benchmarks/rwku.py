"""RWKU: what models know of 200 famous people, text only; nothing is planted."""

from __future__ import annotations

from collections.abc import Collection

from kvw.data.benchmarks.benchmark import Benchmark, Request
from kvw.data.benchmarks.items import BenchmarkData, Item, Task
from kvw.data.benchmarks.numbered import FOUR_OPTIONS, NUMBERED, numbered_choice
from kvw.data.benchmarks.prompts import Prompt
from kvw.data.benchmarks.rows import Ledger, Row
from kvw.data.benchmarks.store import Columns
from kvw.errors import UserError

TARGETS = Columns(("target",), ("intro",))
PROBES = Columns(("query", "answer", "subject"), ("level", "type", "neighbor"))
TABLES = {
    "forget_level1": ("forget", "cloze"),
    "forget_level2": ("forget", "question"),
    "forget_level3": ("forget", "adversarial"),
    "neighbor_level1": ("retain", "cloze"),
    "neighbor_level2": ("retain", "question"),
}
"""Split and task of each table of probes."""
GIVEN = "question"
"""The task whose questions a method gets, too: the benchmark names the targets and brings no corpus of answers."""

SOURCE = "evaluation script of RWKU, without the beginning of the reply that it writes itself"
BLANK = Prompt("rwku blank", "Please complete the blank in the following question.\nQuestion: {question}", SOURCE)
BRIEF = Prompt("rwku brief", "Please briefly answer the following question.\nQuestion: {question}", SOURCE)
WITH_EXEMPLARS = Prompt("rwku brief, exemplars", "Please briefly answer the following question.\n{question}", SOURCE)
IN_CONTEXT = "incontext learning"
"""The type of the adversarial probes that bring exemplars of their own; they are a task by themselves."""
NEW_TOKENS = 30
FORMS = {
    "cloze": Task("cloze", "text", BLANK, ("rouge_l_recall",), NEW_TOKENS),
    "question": Task("generation", "text", BRIEF, ("rouge_l_recall",), NEW_TOKENS),
    "adversarial": Task("generation", "text", BRIEF, ("rouge_l_recall",), NEW_TOKENS),
    "in_context": Task("generation", "text", WITH_EXEMPLARS, ("rouge_l_recall",), NEW_TOKENS),
}
UTILITY = {"general": Task("choice", "text", FOUR_OPTIONS, ("choice_accuracy",), NEW_TOKENS)}


def read(request: Request) -> BenchmarkData:
    """Read the first targets of the list, as many as the setting says.

    Neighbours of a target are what must stay. Of their questions every second one is given to the method
    (``training["retain"]``), and the others are asked; of a target's questions all are given, so that the tasks of
    other forms say what is left beside them.
    """
    ledger = Ledger()
    targets = _targets(request)
    for table, (split, task) in TABLES.items():
        given = 0
        for row in ledger.rows(table, request.data.table(table, PROBES)):
            subject = row.optional_text("subject")
            if subject not in targets:
                if subject is not None:  # without one it is reported
                    ledger.outside(row)
                continue
            given += 1
            to_method = task == GIVEN and (split == "forget" or given % 2 == 1)
            if to_method:
                with ledger.entry(row, "training", split) as add:
                    add(_item(row, split))
            if split == "forget" or not to_method:
                form = "in_context" if row.optional_text("type") == IN_CONTEXT else task
                with ledger.entry(row, split, form) as add:
                    add(_item(row, split))
    if request.data.has("utility_general"):
        for row in ledger.rows("utility_general", request.data.table("utility_general", NUMBERED)):
            with ledger.entry(row, "utility", "general") as add:
                add(numbered_choice(row, row.name))
    splits = {split: ledger.split(split, FORMS) for split in ("forget", "retain")}
    splits["utility"] = ledger.split("utility", UTILITY)
    return BenchmarkData(
        benchmark="RWKU",
        setting=request.setting,
        splits={name: tasks for name, tasks in splits.items() if tasks},
        training={part: ledger.items("training", part) for part in ("forget", "retain")},
        accounts=ledger.accounts(),
    )


def _targets(request: Request) -> Collection[str]:
    """The names of those to be forgotten."""
    wanted = int(request.setting.removeprefix("first"))
    found = [str(row["target"] or "").strip() for row in request.data.table("forget_target", TARGETS)]
    names = list(dict.fromkeys(filter(None, found)))
    if len(names) < wanted:
        raise UserError(
            f"The setting {request.setting} needs {wanted} targets.",
            found=f"{len(names)} in forget_target",
            do="use the whole data set, or a smaller setting",
        )
    return frozenset(names[:wanted])


def _item(row: Row, split: str) -> Item:
    target = row.text("subject")
    # Who is asked about in the tables of neighbours is not always told: then those of one target count as one.
    subject = target if split == "forget" else row.optional_text("neighbor") or f"neighbours of {target}"
    more = {name: value for name in ("level", "type") if (value := row.optional_key(name)) is not None}
    return Item(row.text("query"), row.text("answer"), subject, row.name, metadata=row.metadata(**more))


BENCHMARK = Benchmark(
    name="rwku",
    title="RWKU",
    hub_id="jinzhuoran/RWKU",
    licence="CC BY 4.0; real people",
    paper="Jin et al., RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models, NeurIPS 2024",
    settings=("first10", "first20", "first50"),
    read=read,
)
