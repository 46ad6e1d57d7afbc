"""Options that several verbs share, and how their values are read; imports nothing heavy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kvw.cli.launch import launched_rank
from kvw.errors import UserError
from kvw.exit_codes import ExitCode
from kvw.methods.registry import DEFAULT

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kvw.data.reading import Reading
    from kvw.models.checkpoint import Checkpoint

SHARED = ("strength", "layers", "schedule", "min_tokens")
"""Options that are short for the setting of that name of any method. The others are for the methods that state them:
settings of these names mean something else in others."""

Model = Annotated[
    str,
    Parameter(help="Local folder, hub id (owner/name or owner/name@revision), toy:vanilla, or smollm2:135m."),
]
ModelOrGguf = Annotated[
    str,
    Parameter(
        help="Local folder, hub id (owner/name or owner/name@revision), toy:vanilla, smollm2:135m, or FILE.gguf."
    ),
]
ValueMatrices = Annotated[
    str,
    Parameter(help="Confirm where a model of an unknown family has its value matrices, as kvw inspect suggests."),
]
KINDS_OF_DATA = "JSONL, JSON, CSV, TSV, XLSX, Parquet, Arrow, TXT or MD file, or a folder of pictures"
Data = Annotated[Path, Parameter(help=f"{KINDS_OF_DATA}.")]
Endpoint = Annotated[
    str | None,
    Parameter(
        help="Ask a model behind a server that speaks OpenAI's protocol (vLLM, SGLang, transformers serve) instead "
        "of loading one: http://HOST:PORT/v1. A key is taken from OPENAI_API_KEY."
    ),
]
ServedName = Annotated[
    str | None, Parameter(help="What the server calls the model. Default: the only one that it lists.")
]
ThoughtTokens = Annotated[
    int, Parameter(help="Tokens that a served model may use to think, beside those of its answer.")
]
OtherWeights = Annotated[
    bool,
    Parameter(
        negative="", help="Use an edit on weights other than those it was made on, or on weights that have it already."
    ),
]
Force = Annotated[bool, Parameter(negative="", help="Replace what the output holds.")]
ShowExamples = Annotated[
    bool, Parameter(negative="", help="Show questions, answers and photos on the page; it is confidential then.")
]
Strict = Annotated[
    bool, Parameter(negative="", help="End with exit code 4 if there was a warning; all results are written.")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON on stdout.")]


@Parameter(name="*")
@dataclass(frozen=True)
class MethodOptions:
    """Settings of the method."""

    strength: float | Literal["auto"] | None = None
    """Fixes the strength by hand, 1 being the edit as found. auto chooses it within --keep, which is the default unless
    settings of the method say how strong the edit is to be."""
    method: str = DEFAULT
    """Unlearning method. `kvw methods` lists them, `kvw methods NAME` lists the settings of one with its defaults.
    Name a method of your own by its place, as in file.py:METHOD."""
    set_: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None
    """NAME=VALUE: any setting of the method. Repeatable. The options from --layers to --parity are short for
    settings of these names. A method that does not take one says which method does."""
    layers: str | None = None
    """First and last decoder layer, 0-based, both included, as in 1:25. Default: all, or as the method says."""
    gamma: float | None = None
    """Strength of gates: a step multiplies a knowledge vector by exp(-gamma A)."""
    update_every: int | None = None
    """Forget examples per step."""
    epochs: int | None = None
    """Times the forget set is gone through."""
    seed: int | None = None
    """Shuffles the forget set."""
    positions: Literal["answer", "all"] | None = None
    """Measure where an answer token is predicted, or (ablation) everywhere."""
    schedule: str | None = None
    """Which model is measured. one-shot and joint measure the original once; progressive and sequential measure
    the model as weakened so far."""
    retain_contrast: bool | None = None
    """Off (ablation): make the edit without the retain set."""
    min_tokens: int | None = None
    """Do not change experts of a mixture that saw fewer answer tokens than this."""
    instead: Literal["nothing", "refusal"] | None = None
    """What the model is to say in place of what it forgets: a refusal, rather than somebody else's name."""
    parity: Annotated[bool | None, Parameter(negative="")] = None
    """Reproduce the in-place low-precision rounding of the paper authors' code."""

    def settings(self) -> Any:
        """The checked settings of the method.

        Raises:
            UserError: There is no such method or setting, one comes twice, or a value makes no sense.
        """
        from kvw.methods.registry import METHODS, get_method

        method, values = get_method(self.method), self._short()
        if others := [name for name in values if name not in (*SHARED, *method.options)]:
            owners = [name for name in METHODS if others[0] in get_method(name).options]
            raise UserError(
                f"--{others[0].replace('_', '-')} is an option of method {' and '.join(owners)}.",
                found=f"method {self.method}",
                do=f"add --method {owners[0]}, or see: kvw methods {self.method}",
            )
        for entry in self.set_ or []:
            name, equals, value = entry.partition("=")
            if not (name and equals):
                raise UserError("--set needs a setting and a value.", found=entry, do="write it as NAME=VALUE")
            if name in values:
                raise UserError(f"Setting '{name}' is given twice.", do="give it once, by --set or by its own option")
            values[name] = value
        return method.read(values)

    @property
    def choose(self) -> bool | None:
        """Whether the strength is to be chosen; None leaves it to the settings."""
        from kvw.methods.registry import get_method
        from kvw.runs.request import choice

        given = [*self._short(), *(entry.partition("=")[0].partition(".")[0] for entry in self.set_ or [])]
        return choice(get_method(self.method), self.strength, given)

    def _short(self) -> dict[str, Any]:
        """The settings that were given by an option of their own."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("method", "set_") and getattr(self, field.name) not in (None, "auto")
        }


@Parameter(name="*")
@dataclass(frozen=True)
class LoadOptions:
    """How the model is loaded."""

    device: str | None = None
    """Where the model runs: cpu, an accelerator such as cuda:0, or auto to use all there are and offload what does not
    fit to memory and disk. Default: the accelerator if there is one."""
    quantise: Literal["8bit", "4bit"] | None = None
    """Quantise the model while it is loaded (bitsandbytes), to save memory. Written models keep full precision."""
    template_option: Annotated[list[str] | None, Parameter(negative="")] = None
    """NAME=VALUE: a variable of the model's chat template, as in enable_thinking=false. What is no JSON is text.
    Repeatable."""


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How the data files are read."""

    columns: str = ""
    """What the files call the columns that are read, as in image=photo,question=q,answer=a."""
    answers: Literal["last", "all"] = "last"
    """Which answers of a conversation are examples: the last one, or every answer of the assistant."""

    def reading(self) -> Reading:
        """The checked form of it.

        Raises:
            UserError: An entry has another form, or names a column that is not read.
        """
        from kvw.data.reading import Reading

        columns: dict[str, str] = {}
        for entry in filter(None, map(str.strip, self.columns.split(","))):
            name, equals, theirs = (part.strip() for part in entry.partition("="))
            if not (equals and name and theirs):
                raise UserError(
                    "--columns needs names of columns.", found=entry, do="write it as image=img,question=q,answer=a"
                )
            if name in columns:
                raise UserError(f"--columns names '{name}' twice.", do="name one column for it")
            columns[name] = theirs
        return Reading(columns, self.answers)


METHOD_DEFAULTS, LOAD_DEFAULTS, DATA_DEFAULTS = MethodOptions(), LoadOptions(), DataOptions()


def parse_sources(text: str) -> tuple[str, ...]:
    """Read the names of ``--retain-sources``; ``none`` names none."""
    return () if text == "none" else tuple(name.strip() for name in text.split(",") if name.strip())


def refuse_beside_endpoint(**given: Any) -> None:
    """Refuse what has no meaning for a model that the server has loaded.

    Args:
        given: Options by name, those that were left out empty.

    Raises:
        UserError: One of them was given.
    """
    advice = {
        "model": "leave MODEL out; if the server has several models, name one with --served-model",
        "edit": "serve it with kvw serve, or write it into a checkpoint with kvw apply and serve that",
    }
    for name, value in given.items():
        if value:
            shown = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
            raise UserError(
                f"{shown} cannot be combined with --endpoint: the server has the model.",
                found=", ".join(value) if isinstance(value, list) else str(value),
                do=advice.get(name, f"leave {shown} out, and start the server with what it stands for"),
            )


def parse_splits(entries: list[str]) -> dict[str, Path]:
    """Read the ``NAME=FILE`` entries of ``--eval``, and the names of what ships with kvw (``general``).

    Raises:
        UserError: See :func:`parse_named_files`.
    """
    from kvw.data.general import GENERAL  # loads what reads pictures, and help is told without

    named = [f"{one}={GENERAL[one]}" if one in GENERAL else one for one in entries]
    return parse_named_files(named, "--eval", "splits", f", or one of: {', '.join(GENERAL)}")


def parse_named_files(entries: list[str], option: str, things: str, instead: str = "") -> dict[str, Path]:
    """Read ``NAME=FILE`` entries.

    Args:
        entries: What the user typed.
        option: After which option.
        things: What the option names, in the plural.
        instead: What else can be written, for the message.

    Raises:
        UserError: An entry has another form, or a name comes twice.
    """
    files: dict[str, Path] = {}
    for entry in entries:
        name, equals, file = entry.partition("=")
        if not (equals and name and file):
            raise UserError(f"{option} needs a name and a file.", found=entry, do=f"write it as NAME=FILE{instead}")
        if name in files:
            raise UserError(f"There are two {things} named '{name}'.", do=f"give each {option} its own name")
        files[name] = Path(file)
    return files


def parse_template_options(entries: Sequence[str]) -> tuple[tuple[str, Any], ...]:
    """Read the ``NAME=VALUE`` entries of ``--template-option``.

    Raises:
        UserError: An entry has another form, a name comes twice, or a value is written as Python writes it or is no
            finite number.
    """
    options: dict[str, Any] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not (equals and name):
            raise UserError("--template-option needs a name and a value.", found=entry, do="write it as NAME=VALUE")
        if name in options:
            raise UserError(f"Template option '{name}' is given twice.", do="give it once")
        try:
            options[name] = json.loads(text)
            json.dumps(options[name], allow_nan=False)
        except json.JSONDecodeError as error:
            if text in ("True", "False", "None"):
                meant = {"True": "true", "False": "false", "None": "null"}[text]
                raise UserError(f"'{text}' is no JSON.", found=entry, do=f"write {name}={meant}") from error
            options[name] = text
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"Template option '{name}' has a value that cannot be used.",
                found=str(error),
                do=f"write it as JSON, as in {name}=false",
            ) from error
    return tuple(options.items())


def find_model(
    model: str, value_matrices: str = "", template_options: Sequence[str] | None = None, *, weights: bool = True
) -> Checkpoint:
    """Find a checkpoint, see :func:`kvw.models.checkpoint.find_checkpoint`.

    Args:
        model: What the user typed.
        value_matrices: What the user confirmed about a model of an unknown family; empty if nothing.
        template_options: Variables of the chat template, as typed.
        weights: Whether its weights will be read.

    Raises:
        UserError: There is no such checkpoint, its configuration is no JSON object, its weights are not there, or an
            option of the template makes no sense.
    """
    options = parse_template_options(template_options or ())
    from kvw.models.checkpoint import find_checkpoint
    from kvw.models.json_file import read_object
    from kvw.models.weight_files import find_weights

    checkpoint = find_checkpoint(model)
    read_object(checkpoint.folder / "config.json")
    if weights:
        find_weights(checkpoint.folder)
    return replace(checkpoint, value_matrices=value_matrices, template_options=options)


def is_gguf(model: str) -> bool:
    """Whether a user means a file for llama.cpp and not a checkpoint."""
    return model.endswith(".gguf")


def check_output(out: Path, *, force: bool, keep: Iterable[Path]) -> None:
    """Find out whether an output folder can be written, before the run does so again.

    Args:
        out: The folder.
        force: Whether what it holds may be replaced.
        keep: What the command reads.

    Raises:
        UserError: See :func:`kvw.output.check_output_directory`.
    """
    from kvw.output import check_output_directory

    if launched_rank() is None:  # of several processes one looks for all of them, once they have found each other
        check_output_directory(out, force=force, keep=keep)


def end_strictly(strict: bool, warnings: Sequence[str]) -> None:
    """Exit with code 4 if the user wants that of warnings and there are any; to be called when all is written."""
    if strict and warnings:
        sys.exit(ExitCode.WARNED)


def print_json(text: str) -> None:
    """Print a result for machines."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def print_result(result: BaseModel, show: Callable[..., None], *rest: Any, json: bool) -> None:
    """Print a result for machines, or as a table.

    Args:
        result: What was found.
        show: Prints the table; it takes the result and ``rest``.
        json: Whether the result is for machines.
    """
    print_json(result.model_dump_json(indent=2)) if json else show(result, *rest)
