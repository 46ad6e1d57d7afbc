"""What a run is asked to do, and the data it is given; importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from kvw.data import Example, read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.data.rendering import check_examples
from kvw.errors import UserError
from kvw.folding import collapsed
from kvw.measuring.fingerprint import examples_digest, source_digest
from kvw.methods.method import Method
from kvw.models.checkpoint import Checkpoint
from kvw.models.headers import read_header
from kvw.plural import agreed, counted
from kvw.progress import Reporter
from kvw.retain.neighbours import read_names
from kvw.runs.counts import Count, tell_windows
from kvw.runs.data_checks import data_findings
from kvw.runs.earlier import WhoAsked, who_asked
from kvw.runs.findings import Finding
from kvw.runs.first_checks import STATISTICS_SUFFIX, is_file
from kvw.runs.left_out import LeftOut, without_forgotten
from kvw.runs.overlap import Overlap, overlap
from kvw.runs.terms import Sets, Terms
from kvw.runs.union import ForgetFile, joined, read_forget_files
from kvw.settings import check_at_least

if TYPE_CHECKING:
    import torch

    from kvw.evaluation.loaded import Loaded
    from kvw.measuring.statistics import Statistics
    from kvw.models.quantised import Quantise


AT_MOST = 200
"""Examples of each split that are scored, unless told otherwise."""


@dataclass(frozen=True)
class EraseRequest(Terms):
    """What to erase from which model: what :func:`kvw.erase` takes, in the form in which a run reads it.

    Args:
        model: The checkpoint to edit.
        forget: File or folder of the forget set, or several whose union it is; their order makes no difference.
        retain: File or folder of the retain set, or a statistics file (``.safetensors``) measured on it; None leaves
            it to the sources. Examples about subjects of the forget set, and those that the forget set holds too, are
            left out; a statistics file cannot be cleaned like that.
        earlier: What ``kvw data keep`` has kept of earlier requests whose data are gone, to be forgotten with this one.
        earlier_key: A file with the key of those of them that are encrypted.
        splits: Further files to score before and after, by name.
        evaluate_at_most: Score at most this many examples of each split, drawn with seed 0; 0 scores all.
        save_model: Off: write the edit and the records only, as is always done for methods without weights to write.
        quantise: Quantise the model while it is loaded; what is written is the checkpoint in its own precision.
        reading: What the columns of all files are called, and which answers of conversations count.
        command: The command line, for the record.

    Raises:
        UserError: Something does not go together, or a number makes no sense.
    """

    model: Checkpoint
    forget: Path | Sequence[Path]
    retain: Path | None
    out: Path
    neighbours: Path | None = None
    splits: Mapping[str, Path] = field(default_factory=dict)
    evaluate_at_most: int = AT_MOST
    save_model: bool = True
    force: bool = False
    show_examples: bool = False
    device: torch.device | str | None = None
    quantise: Quantise | None = None
    reading: Reading = AS_IT_IS
    earlier: Sequence[Path] = ()
    earlier_key: Path | None = None
    sign_key: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.earlier and not self.made_by.takes_earlier:
            raise UserError(
                f"Method {self.method} needs the data of earlier requests.",
                found="--earlier",
                do="give the files of all requests with --forget, or leave --method out",
            )
        if self.neighbours is not None and "neighbours" not in self.sources:
            raise UserError(
                "The file of neighbours would not be read.",
                found=f"sources {', '.join(self.sources) or 'none'}",
                do="add neighbours to --retain-sources, or leave --neighbours out",
            )
        check_at_least("--eval-limit", self.evaluate_at_most, 0, do="0 scores all examples")

    @property
    def writes_model(self) -> bool:
        """Whether a checkpoint is written: it is asked for, and the method changes weights."""
        return self.save_model and self.made_by.acts_by == "weights"

    @property
    def forget_paths(self) -> list[Path]:
        """The files of the forget set."""
        return [Path(self.forget)] if isinstance(self.forget, (str, Path)) else [Path(path) for path in self.forget]

    def inputs(self) -> list[Path]:
        """Everything that the run reads."""
        optional = [path for path in (self.retain, self.neighbours, self.earlier_key, self.sign_key) if path]
        return [self.model.folder, *self.forget_paths, *self.earlier, *optional, *self.splits.values()]


def choice(method: Method[Any], strength: object, given: Iterable[str]) -> bool | None:
    """Whether the strength is to be chosen; None leaves it to the settings.

    Args:
        method: The method.
        strength: What was given for it; ``auto`` asks for a choice.
        given: The names of the settings that were given. If one of them fixes the strength, none is chosen.
    """
    if strength == "auto":
        return True
    return False if set(given) & set(method.dose) else None


@dataclass(frozen=True, kw_only=True)
class DataSets(Sets):
    """The examples of a run, with all that is known of the files they come from.

    Args:
        forget_files: The files whose union the forget set is.
        repeated: How many examples of these files are not in the union again.
        left_out: What was left out of the retain set.
        scored: The examples to ask before and after, by split.
        files: The name of the file of each split.
        counts: How many examples, pictures and subjects each split has.
        overlap: What the retain set still says about the forget set.
        read: All examples of each split, asked or not.
        pictures: All picture files that the data files name, of whatever example.
        sources: SHA-256 over the bytes of each file and of its pictures, by the option that named it.
    """

    forget_files: list[ForgetFile]
    repeated: int
    left_out: LeftOut
    scored: dict[str, list[Example]]
    files: dict[str, str]
    counts: dict[str, Count]
    overlap: Overlap
    pictures: frozenset[Path]
    read: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    sources: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """How many examples each split has."""
        return {name: count.examples for name, count in self.counts.items()}

    @property
    def all_scored(self) -> list[Example]:
        """The examples of all splits."""
        return [example for examples in self.scored.values() for example in examples]

    def notes(self) -> list[str]:
        """What the user should know of how the files were taken."""
        notes = [f"{name}: {count}." for name, count in self.counts.items()]
        if self.repeated:
            are, count = agreed(self.repeated, "is", "are"), agreed(self.repeated, "counts", "count")
            notes.append(f"{counted(self.repeated, 'example')} {are} in several forget files and {count} once.")
        return notes

    def findings(self) -> list[Finding]:
        """What is likely to go wrong with these data."""
        return data_findings(self.forget, self.retain, self.left_out, self.overlap)


def read_data(request: EraseRequest) -> DataSets:
    """Read all files that a request names, join those of the forget set, and take it out of the retain set.

    Every text to forget or to keep is looked at, and every picture opened once.

    Raises:
        UserError: A file, a text or a picture cannot be used, the retain set is missing or nothing of it is left, or
            two splits have one name.
    """
    forget_files = read_forget_files(request.forget_paths, request.reading)
    forget, repeated = joined(forget_files)
    examples, files = {"forget": forget}, {"forget": " + ".join(file.name for file in forget_files)}
    left_out, kept, measured, neighbours = LeftOut(), list[Example](), None, None
    pictures = _pictures(example for file in forget_files for example in file.examples)
    sources = {"--forget": sorted(file.source for file in forget_files)}
    earlier = who_asked(request.earlier, request.earlier_key)
    _check_in_force(request, earlier)
    if request.earlier:
        sources["--earlier"] = sorted(map(source_digest, request.earlier))
    path = Path(request.retain) if request.retain is not None else None
    if path is None:
        _check_without_retain(request)
    elif request.needs_retain and path.suffix == STATISTICS_SUFFIX:
        _check_statistics_file(request, path)
        measured, sources["--retain"] = path, [source_digest(path)]
    elif request.needs_retain:
        read = read_examples(path, request.reading)
        pictures |= _pictures(read)
        sources["--retain"] = [source_digest(path, read)]
        kept, left_out = without_forgotten(read, forget, earlier)
        examples["retain"], files["retain"] = kept, path.name
    for name, path in request.splits.items():
        if name in files:
            raise UserError(f"There are two splits named '{name}'.", do="give the --eval split another name")
        examples[name], files[name] = read_examples(path, request.reading), path.name
        pictures |= _pictures(examples[name])
        sources[f"--eval {name}"] = [source_digest(path, examples[name])]
    if request.neighbours:
        neighbours = read_names(request.neighbours)
        refuse_forgotten(neighbours, forget)
        sources["--neighbours"] = [source_digest(request.neighbours)]
    check_examples([*forget, *kept])
    return DataSets(
        forget=forget,
        retain=kept,
        retain_statistics=_retain_statistics(measured, forget) if measured else None,  # last: it imports torch
        forget_files=forget_files,
        repeated=repeated,
        left_out=left_out,
        scored={name: drawn(read, request.evaluate_at_most) for name, read in examples.items()},
        files=files,
        counts={name: Count.of(read) for name, read in examples.items()},
        overlap=overlap(kept, forget),
        pictures=pictures,
        neighbours=neighbours,
        read=examples,
        sources=sources,
        earlier=earlier,
    )


def in_windows(data: DataSets, loaded: Loaded, request: EraseRequest, reporter: Reporter) -> DataSets:
    """The data with documents in parts that the model can read.

    Of each split at most ``evaluate_at_most`` parts are scored.
    """
    forget, retain = loaded.in_windows(data.forget), loaded.in_windows(data.retain)
    for name, found in (("forget", forget), ("retain", retain)):
        if name in data.counts:
            tell_windows(name, data.counts[name], found, reporter)
    scored = {name: drawn(loaded.in_windows(read), request.evaluate_at_most) for name, read in data.scored.items()}
    return replace(data, forget=forget, retain=retain, scored=scored)


def _check_in_force(request: EraseRequest, earlier: WhoAsked) -> None:
    if request.chooses and earlier.without_edit:
        raise UserError(
            "The strength cannot be chosen beside an earlier request whose edit was not kept: its questions are gone, "
            "and nobody can ask whether they are forgotten.",
            found=str(earlier.without_edit[0]),
            do="keep it again with kvw data keep --edit, if there are data; or fix the strength by settings of the "
            "method, such as --set mu=0.5 or --set gate=hard",
        )


def refuse_forgotten(neighbours: Sequence[str], forget: Sequence[Example]) -> None:
    """Refuse neighbours who are to be forgotten.

    Raises:
        UserError: One is.
    """
    forgotten = {example.subject_key for example in forget}
    if both := [name for name in neighbours if collapsed(name) in forgotten]:
        raise UserError(
            "A neighbour is among those to be forgotten.", found=both[0], do="take the name out of one of the two"
        )


def _pictures(examples: Iterable[Example]) -> frozenset[Path]:
    return frozenset(image for example in examples for image in example.images if isinstance(image, Path))


def _check_without_retain(request: EraseRequest) -> None:
    if request.needs_retain and not request.sources:
        other = f", or {request.made_by.instead_of_retain}" if request.made_by.instead_of_retain else ""
        raise UserError(
            "Nothing says what must stay.", found="no --retain and no sources", do=f"add --retain FILE{other}"
        )


def _check_statistics_file(request: EraseRequest, path: Path) -> None:
    if request.made_by.statistics_positions(request.settings) is None:
        raise UserError(
            f"Method {request.made_by.name} reads the retain examples themselves.",
            found=path.name,
            do="give --retain the file of the examples, or choose a method that takes statistics (kvw methods)",
        )
    if not is_file(path):
        raise UserError(
            f"There is no statistics file {path}.", do="make one with: kvw measure MODEL --data FILE --out FILE"
        )
    read_header(path)


def _retain_statistics(path: Path, forget: Sequence[Example]) -> Statistics:
    from kvw.measuring.statistics import Statistics

    statistics = Statistics.load(path)
    if statistics.fingerprint.get("data") == examples_digest(forget):
        raise UserError(
            "The retain statistics were measured on the forget set.",
            found=path.name,
            do="give --retain what must stay, or statistics of it",
        )
    return statistics


def drawn(examples: list[Example], limit: int = AT_MOST) -> list[Example]:
    """Up to so many examples, drawn with seed 0; 0 takes all."""
    return Random(0).sample(examples, limit) if 0 < limit < len(examples) else examples
