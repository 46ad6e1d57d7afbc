"""``kvw verify``: whether a model, an edit, a run and data are those that evidence speaks of, and who says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, computed_field

from kvw.data.readers import read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.errors import UserError
from kvw.evidence.differences import differences
from kvw.evidence.envelope import Altered, Envelope, read_envelope
from kvw.evidence.keys import PublicKey
from kvw.evidence.statement import EDIT, MODEL, NOT_STATED, RECORD, SAMPLES, Statement, read_statement
from kvw.files import file_digest
from kvw.folders import folder_digests
from kvw.measuring.fingerprint import combined_digest, source_digest
from kvw.measuring.salt import salted, secret_name
from kvw.measuring.source_state import checkpoint_digests
from kvw.models.checkpoint import Checkpoint
from kvw.models.weight_files import weight_files
from kvw.printable import printable
from kvw.progress import Reporter
from kvw.strict import Strict

State = Literal["holds", "fails", "not checked"]


class Check(Strict):
    """One thing that was looked at, or not."""

    what: str
    state: State
    text: Annotated[str, AfterValidator(printable)]
    """What was found, in words."""


class Verification(Strict):
    """All that was looked at."""

    checks: list[Check]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool:
        """Whether the signature holds, and everything else that was looked at."""
        return self.checks[0].state == "holds" and all(check.state != "fails" for check in self.checks)


@dataclass(frozen=True)
class VerifyRequest:
    """What to hold against evidence.

    Args:
        evidence: The file.
        key: Whose signature is wanted; None if nobody's.
        model: A model that the run wrote, or one made with the edit.
        edit: An edit file.
        original: The model that was edited.
        run: The folder of the run; its edit and its model are taken where no others are named.
        data: Data files of the run.
        reading: How they were read, which says where their pictures are.
    """

    evidence: Path
    key: PublicKey | None = None
    model: Checkpoint | None = None
    edit: Path | None = None
    original: Checkpoint | None = None
    run: Path | None = None
    data: Sequence[Path] = ()
    reading: Reading = AS_IT_IS

    @property
    def edit_file(self) -> Path | None:
        """The edit to look at."""
        return self.edit or (self.run / EDIT if self.run else None)

    @property
    def model_folder(self) -> Path | None:
        """The model to look at."""
        if self.model is None and self.run is not None and (self.run / MODEL).is_dir():
            return self.run / MODEL
        return self.model.folder if self.model else None


def verify(request: VerifyRequest, reporter: Reporter) -> Verification:
    """Hold models, edits, runs and data against evidence; nothing is written, and no model is loaded.

    Raises:
        UserError: There is no such file of evidence.
    """
    try:
        envelope = read_envelope(request.evidence)
        statement = read_statement(envelope.payload)
    except Altered as error:
        return Verification(checks=[Check(what="signature", state="fails", text=str(error).replace("\n", "; "))])
    signature = _signature(envelope, statement, request.key)
    if signature.state == "fails":  # then nothing of the statement is to be believed
        return Verification(checks=[signature])
    checks = [signature, _run(request, statement), _edit(request, statement), _original(request, statement)]
    with reporter.stage("reading the model"):
        checks.append(_model(request, statement))
    with reporter.stage("working the model out again"):
        checks.append(_recomputed(request, statement, checks))
    return Verification(checks=[*checks, *_data(request, statement)])


def _signature(envelope: Envelope, statement: Statement, key: PublicKey | None) -> Check:
    said = (
        f"{statement.predicate.method} on {statement.predicate.original.name}, {statement.predicate.finished[:19]} UTC"
    )
    if key is None:
        unsigned = "Nobody has signed it" if envelope.signed is None else "No public key was named"
        text = f"{unsigned}, so anybody may have written this evidence ({said})."
        return Check(what="signature", state="not checked", text=text)
    if refuted := envelope.refuted(key):
        return Check(what="signature", state="fails", text=f"{refuted[0].upper()}{refuted[1:]}.")
    return Check(what="signature", state="holds", text=f"Key {key.name[:16]} has signed this statement ({said}).")


def _looked_at(what: str, good: str, look: Callable[[], list[str]]) -> Check:
    """A check that holds if nothing is found to be wrong."""
    try:
        wrong = look()
    except (UserError, OSError) as error:
        wrong = [str(error).replace("\n", "; ")]
    if not wrong:
        return Check(what=what, state="holds", text=good)
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return Check(what=what, state="fails", text=f"Not what the evidence speaks of: {', '.join(wrong[:5])}{more}.")


def _left(what: str, text: str) -> Check:
    return Check(what=what, state="not checked", text=text)


def _run(request: VerifyRequest, statement: Statement) -> Check:
    run = request.run
    if run is None:
        return _left("run", "No folder of the run was named (--run): its record and its samples were not looked at.")
    known = statement.predicate.data.secret == secret_name()

    def look() -> list[str]:
        found = folder_digests(run, without=[MODEL.rstrip("/"), *NOT_STATED])
        samples = found.pop(SAMPLES, "")
        expected = {name: one for name, one in statement.digests.items() if not name.startswith(MODEL)}
        wrong = differences(expected, found)
        if not samples:
            wrong.append(f"{SAMPLES} is missing")
        elif known and salted(samples) != statement.predicate.data.samples:
            wrong.append(f"{SAMPLES} is another")
        if bool(statement.model) != (run / MODEL).is_dir():
            wrong.append(f"{MODEL} is missing" if statement.model else f"{MODEL} is not part of it")
        return wrong

    without = "" if known else f" {SAMPLES} can be checked only on the machine of the run."
    return _looked_at("run", f"{RECORD}, {EDIT} and {SAMPLES} are those of the run.{without}", look)


def _edit(request: VerifyRequest, statement: Statement) -> Check:
    path = request.edit_file
    if path is None:
        return _left("edit", "No edit was named (--edit).")

    def look() -> list[str]:
        return [] if file_digest(path) == statement.digests.get(EDIT) else [f"{path.name} is another"]

    return _looked_at("edit", f"{path.name} is the edit of the run, byte for byte.", look)


def _original(request: VerifyRequest, statement: Statement) -> Check:
    if request.original is None:
        return _left("original", "The model that was edited was not named (--original).")
    folder, stated = request.original.folder, statement.predicate.original

    def look() -> list[str]:
        weights = {path.name: file_digest(path) for path in weight_files(folder)}
        wrong = differences(stated.files, checkpoint_digests(folder, weights))
        return wrong or ([] if combined_digest(weights) == stated.weights else ["the weights are others"])

    return _looked_at("original", f"These are the files of {stated.name} that were edited, byte for byte.", look)


def _model(request: VerifyRequest, statement: Statement) -> Check:
    folder = request.model_folder
    if folder is None:
        return _left("model", "No model was named (--model).")
    if not statement.model:
        return _left("model", "The run wrote no model, so the evidence has no digests of one.")
    good = f"All {len(statement.model)} files are those that the run wrote, byte for byte, and there are no others."
    return _looked_at("model", good, lambda: differences(statement.model, folder_digests(folder)))


def _recomputed(request: VerifyRequest, statement: Statement, before: Sequence[Check]) -> Check:
    """Whether the edit on the original gives the model."""
    what, folder, edit_file, original = "edit on original", request.model_folder, request.edit_file, request.original
    if folder is None or edit_file is None or original is None:
        missing = {"--model": folder, "--edit": edit_file, "--original": original}
        named = ", ".join(name for name, given in missing.items() if given is None)
        text = f"Whether the edit on the original gives the model was not worked out: that takes {named}, too."
        if folder is not None and not statement.model:
            return Check(what=what, state="fails", text=f"{text} Nothing else is known of this model.")
        return _left(what, text)
    if any(check.state == "fails" for check in before):
        return _left(what, "Not worked out, because they are not the files that the evidence speaks of.")
    return _worked_out(what, folder, edit_file, original, digests=bool(statement.model))


def _worked_out(what: str, folder: Path, edit_file: Path, original: Checkpoint, *, digests: bool) -> Check:
    from kvw.edits import load_edit
    from kvw.evidence.recomputing import CARD, recompute

    said: list[str] = []

    def look() -> list[str]:
        found = recompute(load_edit(edit_file), original, folder)
        if found.rounded and digests:
            said.append(f"{len(found.rounded)} of {found.matrices} matrices are equal up to rounding, all else")
            return found.wrong
        said.append("all")
        unexplained = [
            f"{name} is not equal to the bit, which rounding on another machine may explain" for name in found.rounded
        ]
        return found.wrong + unexplained

    check = _looked_at(what, "", look)
    if check.state == "fails":
        return check
    text = f"The edit on the original gives this model: {said[0]} to the bit ({CARD} is not worked out)."
    return Check(what=what, state="holds", text=text)


def _data(request: VerifyRequest, statement: Statement) -> list[Check]:
    """Each data file that was named, and whether all were."""
    stated = statement.predicate.data
    if not request.data:
        return [_left("data", "No data file of the run was named (--data).")]
    if stated.secret != secret_name():
        text = "Digests of data are keyed with a secret of the machine of the run, which this machine does not have."
        return [Check(what="data", state="fails", text=text)]
    checks, seen = [], set()
    for path in request.data:
        digest = salted(_source(path, request.reading))
        roles = [name for name, digests in stated.files.items() if digest in digests]
        seen.update(roles)
        if roles:
            text = f"{path.name} and its pictures are what the run read as {', '.join(roles)}, byte for byte."
        else:
            text = (
                f"{path.name} is none of the files that the run read, or it, its pictures or their names were changed."
            )
        checks.append(Check(what="data", state="holds" if roles else "fails", text=text))
    if left := sorted(stated.files.keys() - seen):
        checks.append(_left("data", f"The run read files as {', '.join(left)}, too, and they were not named."))
    return checks


def _source(path: Path, reading: Reading) -> str:
    """What :func:`kvw.measuring.fingerprint.source_digest` gives; of a file that holds no examples, over its bytes."""
    try:
        examples = read_examples(path, reading)
    except UserError:
        examples = []
    return source_digest(path, examples)
