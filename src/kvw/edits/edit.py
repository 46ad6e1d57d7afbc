"""What every edit is, and its file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, ValidationError
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.stored import content_digest, packed, unpacked, unreadable
from kvw.edits.summary import LayerSummary
from kvw.errors import UserError
from kvw.files import write_bytes
from kvw.models.layer_inputs import decoder_layers
from kvw.models.value_matrix import MatrixKey
from kvw.printable import printable
from kvw.strict import Strict

ENTRIES_AT_A_TIME = 2**20
"""Entries of a weight that are held in float32 at a time while an edit is folded into it."""
PACKAGES = ("kvw", "torch", "torchvision", "transformers", "tokenizers", "pillow", "accelerate")


_version = cache(version)
"""Looking a version up reads files, and every edit asks."""


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: _version(name) for name in PACKAGES}


Name = Annotated[str, AfterValidator(printable)]
"""Ends up on terminals and in model cards, and comes from files that others have made."""


class EditMetadata(Strict):
    """Where an edit comes from; everything needed to repeat it, nothing of the data itself."""

    method: Name = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    base_model: Name = ""
    """Hub id and revision, or the name of the local folder."""
    model_fingerprint: Name = ""
    """SHA-256 over the base model's weight files."""
    model_type: Name = ""
    value_matrices: Name = ""
    """Where they are in a model of an unknown family, as confirmed by the user."""
    forget_digest: Name = ""
    """Over the forget examples, in any order; salted, so that nobody can guess them (``kvw.measuring.salt``)."""
    retain_digest: Name = ""
    forget_count: int = 0
    retain_count: int = 0
    left_alone: tuple[Name, ...] = ()
    """Experts within the layer range that saw too few tokens to be weakened."""
    versions: dict[Name, Name] = Field(default_factory=package_versions)
    amplifies: bool = False
    """Gates above 1 or a negative strength are meant: an inverse, or an imported adapter. Without it they are taken for
    damage."""
    parents: tuple[EditMetadata, ...] = ()
    """The edits that this one was made of, in the order in which they act."""

    @property
    def undoes(self) -> bool:
        """Whether an inverse is among what the edit was made of."""
        return self.method == "invert" or any(parent.undoes for parent in self.parents)

    @property
    def joins(self) -> bool:
        """Whether several edits are in it."""
        return len(self.parents) > 1 or any(parent.joins for parent in self.parents)

    def holds(self, other: EditMetadata) -> bool:
        """Whether the edit was made of another one, directly or not."""
        return any(parent == other or parent.holds(other) for parent in self.parents)


def signed(strength: float, metadata: EditMetadata) -> EditMetadata:
    """The metadata of an edit of this strength: marked as one that amplifies if it is negative."""
    return metadata.model_copy(update={"amplifies": strength < 0})


def check_sign(strength: float, metadata: EditMetadata) -> None:
    """Take a negative strength for damage unless the edit is marked.

    Raises:
        ValueError: It is negative and not marked.
    """
    if strength < 0 and not metadata.amplifies:
        raise ValueError(f"the strength is {strength:g}, and the edit is not marked as one that amplifies")


class Attachment(ABC):
    """An edit that acts on a model; undone by :meth:`detach` or at the end of a ``with`` block."""

    @abstractmethod
    def detach(self) -> None:
        """Take the edit off again; the model is bit for bit what it was. Harmless when called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


class Edit(ABC):
    """A change of a model, mostly of its value matrices, that can be attached, folded in, saved and loaded."""

    kind: ClassVar[str]
    acts: ClassVar[str] = "The edit acts"
    """What it does, as the beginning of a sentence; for edits that act only by hooks."""
    reads_states: ClassVar[bool] = False
    """Whether it depends on hidden states, so that it means nothing on other weights than those it was made on."""
    kinds: ClassVar[dict[str, type[Edit]]] = {}

    def __init__(self, metadata: EditMetadata | None = None) -> None:
        self.metadata = metadata or EditMetadata()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "kind" in vars(cls):
            Edit.kinds[cls.kind] = cls

    @property
    def widths(self) -> Mapping[MatrixKey, int]:
        """The value matrices of which vectors or directions are scaled, and how many knowledge vectors each has."""
        return {}

    @abstractmethod
    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that this edit is not for.

        Raises:
            UserError: It lacks something that the edit acts on, or that has another width.
        """

    @abstractmethod
    def attach(self, model: PreTrainedModel) -> Attachment:
        """Apply the edit to a live model without changing its weights for good."""

    def fold(self, model: PreTrainedModel) -> None:
        """Write the edit into the weights of a live model, once, from the values they have now.

        Raises:
            UserError: The edit acts only by hooks; it is of another model; or its weights cannot take it. No weight
                was changed.
        """
        raise self.no_weights()

    @property
    @abstractmethod
    def does_nothing(self) -> bool:
        """Whether a model with it is the model without it, whatever the model."""

    @abstractmethod
    def describe(self) -> list[LayerSummary]:
        """How much the edit weakens, layer by layer."""

    def log_factors(self) -> Mapping[MatrixKey, Tensor]:
        """The logarithm of the factor on each knowledge vector: (width,), float32, for every value matrix.

        Raises:
            UserError: Edits of this kind do more than scale knowledge vectors.
        """
        raise self._refusal("compared vector by vector", "compare what the models say with: kvw evaluate --edit")

    @classmethod
    def joined(cls, edits: Sequence[Self], metadata: EditMetadata) -> Edit:
        """One edit that does what several of this kind do one after the other, see :func:`kvw.edits.compose`.

        Raises:
            UserError: Edits of this kind cannot be joined.
        """
        raise cls._refusal("composed", "attach or apply them one after the other")

    def scaled(self, strength: float, metadata: EditMetadata | None = None) -> Edit:
        """This edit at a part of its strength, see :func:`kvw.edits.scale`.

        Args:
            strength: 0 leaves the model as it is, 1 is the edit itself.
            metadata: Of the result; this edit's if None.

        Raises:
            UserError: Edits of this kind cannot be scaled.
        """
        raise self._refusal("scaled", "make it again at another strength")

    def mixed(self, share: float, metadata: EditMetadata | None = None) -> Edit:
        """This edit's weights mixed with the original ones, see :func:`kvw.edits.mix`.

        Args:
            share: 0 is the original model, 1 the edit itself.
            metadata: Of the result; this edit's if None.

        Raises:
            UserError: Edits of this kind cannot be mixed.
        """
        raise self._refusal("mixed with the original", "make it again at another strength")

    def inverted(self, metadata: EditMetadata | None = None) -> Edit:
        """What undoes this edit, see :func:`kvw.edits.invert`.

        Args:
            metadata: Of the result; this edit's if None.

        Raises:
            UserError: Edits of this kind, or these numbers, cannot be inverted.
        """
        raise self._refusal("inverted", "detach the edit, or go back to the original checkpoint")

    @classmethod
    def _refusal(cls, what: str, do: str) -> UserError:
        return UserError(f"Edits of kind '{cls.kind}' cannot be {what}.", do=do)

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What the file holds."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], metadata: EditMetadata) -> Edit:
        """Build the edit from what its file holds.

        Raises:
            ValueError: A tensor is missing or unknown, or has another dtype, shape or range of values than it must.
        """

    def digest(self) -> str:
        """SHA-256 over the kind and the numbers; where the edit comes from does not count."""
        return content_digest(self.kind, self.tensors())

    def save(self, path: Path | str) -> None:
        """Write a safetensors file; the same edit gives the same bytes.

        Raises:
            UserError: The edit does nothing, or holds numbers that no file of its kind may hold; or the place cannot be
                written. An older file there is untouched.
        """
        refuse_nothing(self)
        write_edit(self, Path(path))

    def no_weights(self) -> UserError:
        """The error where weights are asked of an edit that acts only by hooks."""
        return UserError(
            f"{self.acts} while the model runs: there are no weights that it could be folded into.",
            do="attach it (edit.attach(model), kvw evaluate --edit, kvw chat --edit), or use another --method",
        )

    def check_layers(self, model: PreTrainedModel, widths: Mapping[int, int]) -> None:
        """Refuse a model that lacks a layer, or has states of another width; ``widths`` are by 0-based layer.

        Raises:
            UserError: It is so.
        """
        count, hidden = len(decoder_layers(model)), int(model.config.get_text_config().hidden_size)
        wrong = [
            f"layer.{number}: {width} in the edit, {hidden if number < count else 'missing'} in the model"
            for number, width in widths.items()
            if number >= count or width != hidden
        ]
        if wrong:
            raise self.misfit(model, wrong)

    def misfit(self, model: PreTrainedModel, wrong: Sequence[str]) -> UserError:
        """The error for a model that the edit is not for; ``wrong`` lists what differs."""
        return UserError(
            f"The edit does not fit this {type(model).__name__}.",
            found="; ".join(wrong[:3]) + ("; ..." if len(wrong) > 3 else ""),
            do=f"use it with its base model{_named(self.metadata.base_model)}",
        )


def load_edit(path: Path | str) -> Edit:
    """Read an edit file.

    Raises:
        UserError: There is no such file; it is no edit of a format and kind that this version reads; a byte or a part
            of it is lost; its numbers make no sense; or it does nothing.
    """
    edit = read_edit(Path(path))
    refuse_nothing(edit, str(path))
    return edit


def refuse_nothing(edit: Edit, name: str = "") -> None:
    """Refuse an edit with which every model stays as it is.

    Args:
        edit: Any edit.
        name: Name of the file, for the message.

    Raises:
        UserError: It does nothing.
    """
    if edit.does_nothing:
        raise UserError(
            f"The edit{f' in {name}' if name else ''} does nothing: a model with it is the model without it.",
            found=f"kind '{edit.kind}', {len(edit.describe())} layers",
            do="use an edit with a strength above 0 that weakens something",
        )


def read_edit(path: Path) -> Edit:
    """Read an edit file, be it one of an edit that does nothing.

    Raises:
        UserError: See :func:`load_edit`.
    """
    if not path.is_file():
        raise UserError(
            f"There is no edit file {path}.", do="make one with: kvw erase MODEL --forget F --retain R --out DIR"
        )
    stored = unpacked(path)
    if stored.kind not in Edit.kinds:
        raise unreadable(path, f"kind {stored.kind[:40]!r}, not one of {', '.join(sorted(Edit.kinds))}")
    try:
        return Edit.kinds[stored.kind].from_tensors(stored.tensors, read_metadata(stored.metadata))
    except ValueError as error:
        raise unreadable(path, str(error).splitlines()[0][:200]) from error


def read_metadata(text: str) -> EditMetadata:
    """Read the metadata of an edit.

    Raises:
        ValueError: The metadata of no edit; says what is wrong in one line.
    """
    try:
        metadata = EditMetadata.model_validate_json(text)
        metadata.model_dump_json()  # a number of 5,000 digits can be read and not be written
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:3])
        raise ValueError(f"metadata {place}: {first['msg'][:200]}") from error
    return metadata


def write_edit(edit: Edit, path: Path) -> None:
    """Write an edit file, be it one of an edit that does nothing.

    Raises:
        UserError: The numbers could not be read again, or the place cannot be written.
    """
    tensors = edit.tensors()
    try:
        content = packed(edit.kind, json.loads(edit.metadata.model_dump_json()), tensors)
        edit.from_tensors(tensors, edit.metadata)
    except ValueError as error:
        raise UserError(
            "This edit cannot be kept in a file.", found=str(error).splitlines()[0], do="make it again"
        ) from error
    write_bytes(path, content)


def _named(base_model: str) -> str:
    return f" ({base_model})" if base_model else ""
