"""``kvw data build``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.options import LOAD_DEFAULTS, LoadOptions, ServedName, find_model
from kvw.errors import UserError
from kvw.plural import counted, some
from kvw.quiet import quiet_libraries

if TYPE_CHECKING:
    from kvw.building.asking import Wanted
    from kvw.building.from_model import Known
    from kvw.building.phrasings import Phrasings


def build(
    table: Annotated[
        Path | None, Parameter(help="Who or what, with facts: one a row, a column for the name and one for each fact.")
    ] = None,
    *,
    out: Annotated[Path | None, Parameter(help="Folder to write. Required where nobody can be asked.")] = None,
    photos: Annotated[Path | None, Parameter(help="Folder of photos that are called by the names.")] = None,
    forget: Annotated[
        list[str] | None,
        Parameter(negative="", help="Whom to forget; the others of the table stay. Repeatable. Default: all."),
    ] = None,
    name: Annotated[str | None, Parameter(help="The column of the table that names them. Default: name.")] = None,
    language: Annotated[str | None, Parameter(help="Of the questions: en, de, fr, es or zh. Default: en.")] = None,
    phrasings: Annotated[Path | None, Parameter(help="JSON file of phrasings of your own.")] = None,
    paraphrases: Annotated[
        str | None,
        Parameter(
            help="Let a model behind this server, which speaks OpenAI's protocol, write further phrasings; it is told "
            "no name and no answer: http://HOST:PORT/v1. A key is taken from OPENAI_API_KEY."
        ),
    ] = None,
    served_model: ServedName = None,
    from_model: Annotated[str | None, Parameter(help="Ask this model what it knows, in place of a table.")] = None,
    about: Annotated[
        list[str] | None, Parameter(negative="", help="Whom or what to ask --from-model about. Repeatable.")
    ] = None,
    confirm: Annotated[
        bool, Parameter(negative="", help="Decide on each answer of --from-model; else those that recur are taken.")
    ] = False,
    load: LoadOptions = LOAD_DEFAULTS,
) -> None:
    """Make the files of a request: questions by name and by photo, in several phrasings, some of them held out.

    OUT gets forget.jsonl and held_out.jsonl, and retain.jsonl and neighbours.txt if some of the table stay.
    In a terminal it asks for what is missing, as soon as TABLE (or --from-model) or --out is not given.
    """
    from kvw.building.asking import LANGUAGE, Wanted
    from kvw.building.phrasings import phrasings as read

    names, asked = tuple(forget or ()) or None, tuple(about or ()) or None
    wanted = Wanted(table, from_model, out, photos, names, name, language, phrasings, asked, confirm or None)
    if not wanted.whole and in_terminal() and not (table and (from_model or about)):
        wanted = _asked(wanted, {"--paraphrases": paraphrases, "--served-model": served_model})
    out = _checked(wanted, paraphrases, served_model)
    words = read(wanted.language or LANGUAGE, wanted.phrasings)
    if wanted.table is not None:
        counts = _from_table(wanted.table, out, wanted, words, (paraphrases, served_model) if paraphrases else None)
    else:
        counts = _from_model(str(wanted.from_model), out, wanted, words, load)
    for file, count in counts.items():
        print(f"{out / file}: {counted(count, 'name' if file.endswith('.txt') else 'question')}")
    print(_next(out, counts, wanted.from_model))


def _checked(wanted: Wanted, paraphrases: str | None, served_model: str | None) -> Path:
    """The folder to write, if what was given goes together.

    Raises:
        UserError: It does not.
    """
    from kvw.building.files import check_place

    if (wanted.table is None) == (wanted.from_model is None):
        raise UserError("Give either a table or a model to ask.", do="name a TABLE, or --from-model MODEL --about NAME")
    if wanted.from_model is None:
        given: dict[str, object] = {"about": wanted.about, "confirm": wanted.confirm}
    else:
        given = {"photos": wanted.photos, "forget": wanted.forget, "paraphrases": paraphrases, "name": wanted.name}
    if wrong := [option for option, value in given.items() if value]:
        other = "--from-model" if wanted.from_model is None else "a table"
        raise UserError(f"--{wrong[0]} goes with {other}.", do=f"leave it out, or give {other}")
    if served_model is not None and paraphrases is None:
        raise UserError("--served-model is for a model behind a server.", do="add --paraphrases URL, or leave it out")
    if wanted.out is None:
        raise UserError("There is no folder to write to.", found="no --out", do="add --out DIR")
    if wanted.confirm and not in_terminal():
        raise UserError(
            "--confirm asks you about each answer, and there is no terminal to ask in.",
            do="leave it out: answers that recur are taken",
        )
    check_place(wanted.out)
    return wanted.out


def in_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked(wanted: Wanted, more: Mapping[str, str | None]) -> Wanted:
    """What is wanted, with what was typed; the same command by options is printed."""
    from kvw.building.asking import Questions, complete

    wanted = complete(wanted, Questions(input, print), find_model)
    others = [word for option, value in more.items() if value is not None for word in (option, value)]
    print(f"The same without questions: {shlex.join([*wanted.words, *others])}\n")
    return wanted


def _from_table(
    table: Path, out: Path, wanted: Wanted, words: Phrasings, server: tuple[str, str | None] | None
) -> dict[str, int]:
    from kvw.building.asking import NAME
    from kvw.building.files import chosen, write_request
    from kvw.building.phrasings import check_facts
    from kvw.building.table import facts_of, read_table, with_photos
    from kvw.console import ConsoleReporter

    subjects, others = read_table(table, wanted.name or NAME), list[str]()
    check_facts(words, facts_of(subjects))
    if wanted.photos is not None:
        subjects, others = with_photos(subjects, wanted.photos)
    gone, kept = chosen(subjects, wanted.forget or ())
    reporter = ConsoleReporter()
    if server is not None:
        words = _with_paraphrases(words, facts_of(subjects), *server)
    written = write_request(out, gone, kept, words, others)
    if written.without_photos:
        reporter.warn(f"There is no photo of {some(written.without_photos)}: the questions about them show no photo.")
    if written.others:
        reporter.warn(f"Photos of nobody in the table are left out: {some(written.others)}.")
    return written.counts


def _with_paraphrases(words: Phrasings, facts: list[str], url: str, model: str | None) -> Phrasings:
    from kvw.building.paraphrases import TOKENS_EACH, WANTED, paraphrased
    from kvw.console import ConsoleReporter
    from kvw.data import Example
    from kvw.evaluation.endpoint import EndpointModel

    reporter, server = ConsoleReporter(), EndpointModel(url, model)
    server.check()
    failed = list[str]()

    def ask(prompts: Sequence[str]) -> list[str]:
        asked = [Example(prompt, "-", identifier=f"fact {number}") for number, prompt in enumerate(prompts, start=1)]
        replies = server.answers(asked, max_new_tokens=WANTED * TOKENS_EACH)
        failed.extend(reply.error for reply in replies if reply.error)
        if len(failed) == len(prompts):
            raise UserError(f"The server at {url} has written no paraphrases.", found=failed[0], do="try again")
        return [reply.text for reply in replies]

    words, counts = paraphrased(words, facts, ask)
    for fact, count in counts.items():
        reporter.note(f"{fact}: {counted(count, 'paraphrase')}.")
    if failed:
        reporter.warn(f"The server gave no answer to {len(failed)} of {counted(len(facts), 'request')}: {failed[0]}")
    return words


def _from_model(model: str, out: Path, wanted: Wanted, words: Phrasings, load: LoadOptions) -> dict[str, int]:
    if not wanted.about:
        raise UserError("There is nobody to ask about.", do="add --about NAME")
    checkpoint = find_model(model, template_options=load.template_option)
    quiet_libraries()

    from kvw.building.files import write_rows
    from kvw.building.from_model import ask_about, taken
    from kvw.console import ConsoleReporter
    from kvw.evaluation.loaded import Loaded

    reporter = ConsoleReporter()
    with reporter.stage("loading the model"):
        loaded = Loaded.load(checkpoint, load.device, quantise=load.quantise)
    with reporter.stage("asking the model") as progress:
        known = ask_about(loaded, list(wanted.about), words, progress)
    for one in known:
        if not wanted.confirm:
            print(f"{'taken' if one.recurs else 'not taken'} {_shown(one)}")
    rows = taken(known, _confirmed if wanted.confirm else None)
    if not rows.used:
        raise UserError(
            f"The model gives no answer about {some(wanted.about)} that it repeats.",
            found=counted(len(known), "answer"),
            do="give a table with the facts, or decide on each answer with --confirm",
        )
    return write_rows(out, rows)


def _confirmed(one: Known) -> bool:
    return input(f"{_shown(one)}\nTake it? [{'Y/n' if one.recurs else 'y/N'}] ").strip().lower()[:1] in (
        ("y", "") if one.recurs else ("y",)
    )


def _shown(one: Known) -> str:
    return f"({one.again} of {one.samples} times) {one.questions[0]} {' '.join(one.answer.split())}"


def _next(out: Path, counts: dict[str, int], model: str | None) -> str:
    """The command that comes next."""
    parts = ["kvw", "erase", model or "MODEL", "--forget", str(out / "forget.jsonl")]
    if "retain.jsonl" in counts:
        parts += ["--retain", str(out / "retain.jsonl")]
    if "neighbours.txt" in counts:
        parts += ["--neighbours", str(out / "neighbours.txt")]
    if "held_out.jsonl" in counts:
        parts += ["--eval", f"held_out={out / 'held_out.jsonl'}"]
    return f"Next: {shlex.join([*parts, '--out', 'run'])}"
