"""Options that several verbs share, and how their values are read; imports nothing heavy."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kvw.errors import UserError
from kvw.methods.settings import KvwSettings

if TYPE_CHECKING:
    from kvw.models.loading import Checkpoint

TOY_PREFIX = "toy:"

Model = Annotated[str, Parameter(help="Local folder, hub id (owner/name or owner/name@revision), or toy:vanilla.")]
ValueMatrices = Annotated[
    str,
    Parameter(help="Confirm where a model of an unknown family has its value matrices, as kvw inspect suggests."),
]
Data = Annotated[
    Path,
    Parameter(help="JSONL, CSV or Parquet file, or an image folder with metadata.{jsonl,csv,parquet}."),
]
Force = Annotated[bool, Parameter(negative="", help="Replace what the output holds.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON on stdout.")]


@Parameter(name="*")
@dataclass(frozen=True)
class MethodOptions:
    """Settings of the method."""

    method: Literal["kvw"] = "kvw"
    """Unlearning method."""
    gamma: float = 0.02
    """Strength: each step multiplies a knowledge vector by exp(-gamma A)."""
    layers: str | None = None
    """First and last decoder layer, 0-based, both included, as in 1:25. Default: 1 to L-3 of L layers."""
    update_every: int = 1
    """Forget examples per step."""
    epochs: int = 1
    """Times the forget set is gone through."""
    seed: int = 0
    """Shuffles the forget set."""
    positions: Literal["answer", "all"] = "answer"
    """Measure where an answer token is predicted, or (ablation) everywhere."""
    schedule: Literal["progressive", "one-shot"] = "progressive"
    """Measure the forget set on the model as weakened so far, or once on the original model."""
    retain_contrast: bool = True
    """Off (ablation): do without the retain set."""
    min_tokens: int = 16
    """Leave experts of a mixture alone that saw fewer answer tokens than this."""
    parity: Annotated[bool, Parameter(negative="")] = False
    """Reproduce the in-place low-precision rounding of the paper authors' code."""

    def settings(self) -> KvwSettings:
        """The checked settings.

        Raises:
            UserError: A value makes no sense.
        """
        return KvwSettings(
            gamma=self.gamma,
            layers=parse_layers(self.layers),
            update_every=self.update_every,
            epochs=self.epochs,
            seed=self.seed,
            retain_contrast=self.retain_contrast,
            positions=self.positions,
            schedule=self.schedule,
            min_tokens=self.min_tokens,
            parity=self.parity,
        )


@Parameter(name="*")
@dataclass(frozen=True)
class LoadOptions:
    """How the model is loaded."""

    device: str | None = None
    """Where the model runs: cpu, an accelerator such as cuda:0, or auto to use all there are and offload what does not
    fit to memory and disk. Default: the accelerator if there is one."""
    quantise: Literal["8bit", "4bit"] | None = None
    """Quantise the model while it is loaded (bitsandbytes), to save memory. Written models keep full precision."""


def parse_layers(text: str | None) -> tuple[int, int] | None:
    """Read ``1:25``.

    Raises:
        UserError: It does not have that form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text)
    if found is None:
        raise UserError(
            "--layers needs the first and the last layer.", found=text, do="write it as FIRST:LAST, for example 1:25"
        )
    return int(found[1]), int(found[2])


def parse_splits(entries: list[str]) -> dict[str, Path]:
    """Read the ``NAME=FILE`` entries of ``--eval``.

    Raises:
        UserError: See :func:`parse_named_files`.
    """
    return parse_named_files(entries, "--eval", "splits")


def parse_named_files(entries: list[str], option: str, things: str) -> dict[str, Path]:
    """Read ``NAME=FILE`` entries.

    Args:
        entries: What the user typed.
        option: After which option.
        things: What the option names, in the plural.

    Raises:
        UserError: An entry has another form, or a name comes twice.
    """
    files: dict[str, Path] = {}
    for entry in entries:
        name, equals, file = entry.partition("=")
        if not (equals and name and file):
            raise UserError(f"{option} needs a name and a file.", found=entry, do="write it as NAME=FILE")
        if name in files:
            raise UserError(f"There are two {things} named '{name}'.", do=f"give each {option} its own name")
        files[name] = Path(file)
    return files


def find_model(model: str, value_matrices: str = "") -> Checkpoint:
    """Find a checkpoint; ``toy:vanilla`` and ``toy:gold`` are the shipped ones.

    Args:
        model: What the user typed.
        value_matrices: What the user confirmed about a model of an unknown family; empty if nothing.

    Raises:
        UserError: There is no such checkpoint.
    """
    quiet_libraries()
    from kvw.models.loading import Checkpoint, find_checkpoint

    if model.startswith(TOY_PREFIX):
        from kvw.toy import checkpoint

        name = model.removeprefix(TOY_PREFIX)
        if name not in ("vanilla", "gold"):
            raise UserError("There are two toy checkpoints.", found=model, do="toy:vanilla or toy:gold")
        return Checkpoint(checkpoint("gold" if name == "gold" else "vanilla"), model)
    return replace(find_checkpoint(model), value_matrices=value_matrices)


def quiet_libraries() -> None:
    """Keep the libraries' own bars and advice out of the terminal of the command line program."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # torchao, which transformers imports where it is installed, makes torch advise its developers.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def print_json(text: str) -> None:
    """Print a result for machines."""
    sys.stdout.write(text.rstrip("\n") + "\n")
