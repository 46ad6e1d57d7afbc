"""``kvw secrets``: stores of what must not be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import LOAD_DEFAULTS, Json, LoadOptions, find_model, print_result
from kvw.quiet import quiet_libraries
from kvw.serving.secrets import Mode

if TYPE_CHECKING:
    from kvw.runs.secrets import SecretsCheck, SecretsReport


def build(
    store: Annotated[Path, Parameter(help="File to write.")],
    *,
    forget: Annotated[Path, Parameter(help="What must not be asked: questions, their subjects and pictures.")],
    retain: Annotated[Path, Parameter(help="What must be answered; the floors are calibrated on it.")],
    model: Annotated[
        str | None, Parameter(help="Model whose vision tower reads pictures. Default: pictures are left out.")
    ] = None,
    false_fires: Annotated[float, Parameter(help="Share of --retain that may be caught by mistake.")] = 0.01,
    mode: Annotated[
        Mode,
        Parameter(help="What becomes of a question that is caught: a clause before it, or an answer in its place."),
    ] = "instruct",
    load: LoadOptions = LOAD_DEFAULTS,
    json: Json = False,
) -> None:
    """Make a store for kvw serve --secrets: hashes of words and features of pictures, and no answers."""
    from kvw.data.readers import read_examples
    from kvw.errors import UserError

    if not 0 <= false_fires < 1:
        raise UserError("--false-fires must be a share from 0 to below 1.", found=str(false_fires), do="try 0.01")
    forgotten, kept = read_examples(forget), read_examples(retain)
    checkpoint = None if model is None else find_model(model, "", load.template_option)
    read, fingerprint = None, ""
    if checkpoint is not None:
        quiet_libraries()
        from kvw.evaluation.loaded import Loaded
        from kvw.evaluation.tower import tower_features

        loaded = Loaded.load(checkpoint, load.device, quantise=load.quantise)
        read, fingerprint = tower_features(loaded.model, loaded.processor), loaded.fingerprint
    from kvw.console import console_reporter
    from kvw.runs.secrets import build_store
    from kvw.serving.secrets import write_store

    made, report = build_store(forgotten, kept, rate=false_fires, mode=mode, read=read, model=fingerprint)
    write_store(made, store)
    reporter = console_reporter()
    for warning in report.warnings:
        reporter.warn(warning)
    print_result(report, _show, json=json)


def check(
    store: Annotated[Path, Parameter(help="Store to ask.")],
    *files: Annotated[Path, Parameter(help="Questions: of the forget set, or of what must be answered.")],
    model: Annotated[
        str | None, Parameter(help="Model that reads pictures. Default: only texts are looked at.")
    ] = None,
    load: LoadOptions = LOAD_DEFAULTS,
    json: Json = False,
) -> None:
    """Say how many questions of files a store catches, before it stands in front of a model."""
    from kvw.data.readers import read_examples
    from kvw.errors import UserError
    from kvw.serving.secrets import Guard, read_store

    if not files:
        raise UserError("Nothing to check.", found="a store and no questions", do="name files of questions behind it")
    read = read_store(store)
    asked = {str(file): read_examples(file) for file in files}
    guard = Guard(read)
    if model is not None:
        checkpoint = find_model(model, "", load.template_option)
        quiet_libraries()
        from kvw.evaluation.loaded import Loaded
        from kvw.runs.secrets import guard_of

        guard = guard_of(read, Loaded.load(checkpoint, load.device, quantise=load.quantise))
    from kvw.runs.secrets import check_store

    print_result(check_store(guard, asked), _show_caught, json=json)


def _show_caught(report: SecretsCheck) -> None:
    for one in report.files:
        print(f"{one.file}: {one.caught} of {one.questions} caught ({one.caught / one.questions:.0%})")


def _show(report: SecretsReport) -> None:
    for name, fired in (("questions", report.text), ("pictures", report.pictures)):
        if fired is not None:
            print(f"{name}: {fired.entries} entries, floor {fired.floor:.3f}")
            print(f"  caught of the forget set, by what the rest of it says: {fired.forget:.0%}")
            print(f"  caught of the retain set, by the other half of it: {fired.caught} of {fired.asked}", end=" ")
            print(f"(up to {fired.at_most:.1%} of others like them)")
            for what, share in fired.shipped.items():
                print(f"  caught of {what}: {share:.0%}")
            print(f"  told apart (AUC): {fired.told_apart:.2f}")
    if report.not_by_text:
        print(f"{report.not_by_text} forget questions have no word of their own: only their pictures can be caught.")


secrets = App(name="secrets", help="Make stores of what must not be asked, for kvw serve --secrets.")
secrets.command(run_by_the_first(build))
secrets.command(run_by_the_first(check))
