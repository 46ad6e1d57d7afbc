"""What a method of unlearning is: one object that every command asks. Importing this loads nothing heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from docstring_parser import parse

from kvw.errors import UserError
from kvw.methods.grid import every_combination
from kvw.methods.reading import default_of, read_settings
from kvw.progress import Progress, unheard

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.edits.edit import Edit
    from kvw.measuring.examples import Measured
    from kvw.measuring.labelled import LabelledBatches
    from kvw.measuring.sources import Positions
    from kvw.measuring.statistics import Statistics
    from kvw.methods.bounds import DistortionBounds
    from kvw.methods.earlier import Earlier
    from kvw.methods.plan import MethodPlan
    from kvw.models.value_matrix import ValueMatrix

Scaling = Literal["directions", "strength", "share"]
"""How one result offers edits of many strengths: by how many directions it weakens (low-rank edits), by parts and
multiples of its strength, or by its share in a mixture with the original weights."""
Stages = Callable[[str], AbstractContextManager[None]]
"""Times a block under a name."""
RETAIN_PASS = "retain pass"
"""The stage of ``kvw bench cost`` whose result serves later requests, too."""
Settings = TypeVar("Settings", bound="DataclassInstance")


class LoadedModel(Protocol):
    """A model in memory, as methods get it."""

    @property
    def model(self) -> PreTrainedModel:
        """The model on its device, in evaluation mode."""

    @property
    def processor(self) -> Any:
        """The processor of the model."""

    @property
    def all_layers(self) -> tuple[int, int]:
        """First and last decoder layer."""

    def prepare(self, examples: Sequence[Example]) -> list[Prepared]:
        """Render and check examples.

        Raises:
            UserError: One cannot be used.
        """

    def batches(self, examples: Sequence[Example]) -> LabelledBatches:
        """Batches of examples, the longest first, made when asked for."""

    def measure(
        self, examples: Sequence[Example], positions: Positions = "answer", progress: Progress | None = None
    ) -> Measured:
        """Statistics of all layers: mean abs(m) of every knowledge vector. They are kept between runs."""

    def conditions(self, examples: Sequence[Example]) -> Mapping[str, str] | None:
        """All that measurements on these examples depend on; None if nothing is to be kept between runs."""


@dataclass(frozen=True)
class Unlearned:
    """An edit, and what its method has to say about it.

    Args:
        edit: The edit. Experts that saw too few tokens are listed in ``metadata.left_alone``.
        bounds: What was found for each value matrix, from methods that give any.
        warnings: What the user should know.
    """

    edit: Edit
    bounds: tuple[DistortionBounds, ...] = ()
    warnings: tuple[str, ...] = ()


class Method(ABC, Generic[Settings]):
    """A method of unlearning. A new one states ``name`` and ``settings`` and writes :meth:`make`.

    The module of a method is imported to list it: what needs torch is imported inside the functions.

    Attributes:
        name: What commands and recipes call it.
        settings: A frozen dataclass that checks its values. The first sentence of its docstring describes the method,
            and the docstring's ``Args`` describe the settings.
        scales: How one result offers edits of many strengths; None if it offers only itself.
        dose: The settings that fix how strong the edit is. If one is given, no strength is chosen.
        acts_by: ``hooks`` if its edits act while the model runs and have no weights to write.
        options: The settings with an option of their own in ``kvw erase`` that other methods do not share.
        stronger: What makes its edits stronger, for the advice where nothing was forgotten.
        firmness: What of the published method was known when it was built, for ``kvw methods``; empty where its formula
            was read in full, or where nothing is published.
        version: Of methods that do not come with kvw: results of another version are not gone on with.
        instead_of_retain: What to do where there is no retain set, for the advice; empty if nothing can be done.
        takes_earlier: Whether earlier requests can be forgotten with a further one from what was kept of them.
        stage: What ``kvw bench cost`` calls its work, unless :meth:`measure_cost` has several stages.
    """

    name: str
    settings: type[Settings]
    scales: Scaling | None = "strength"
    dose: tuple[str, ...] = ()
    acts_by: Literal["weights", "hooks"] = "weights"
    options: tuple[str, ...] = ()
    stronger = "more --layers, or other settings (kvw methods NAME)"
    instead_of_retain = ""
    firmness = ""
    version = ""
    takes_earlier = False
    stage = "making the edit"

    def keep(self, loaded: LoadedModel, forget: Sequence[Example], progress: Progress) -> Earlier:
        """Measure what a later request needs of this one, so that its data can be deleted.

        Args:
            loaded: The model.
            forget: What was forgotten; every example names its subject.
            progress: Called while the examples are measured.

        Raises:
            UserError: The method needs the data themselves.
        """
        raise UserError(f"Method {self.name} needs the data of earlier requests.", do="keep the data")

    @abstractmethod
    def make(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: Settings,
        progress: Progress,
    ) -> Unlearned:
        """Make the edit; the model is left as it was.

        Args:
            loaded: The model.
            forget: What must go.
            retain: What must stay.
            settings: The settings.
            progress: Called with what is done and how much there is.

        Raises:
            UserError: The method cannot use what it was given.
        """

    @property
    def setting_classes(self) -> tuple[type[Any], ...]:
        """The dataclasses whose fields users give by name."""
        return (self.settings,)

    @property
    def title(self) -> str:
        """What sentences call it."""
        return self.name

    @property
    def summary(self) -> str:
        """The method in one sentence."""
        return parse(self.setting_classes[0].__doc__ or "").short_description or ""

    def read(self, values: Mapping[str, Any]) -> Settings:
        """The settings from the values of a recipe or a command line.

        Args:
            values: Values by name; as they are or as text. Layers are written ``1:25``, nothing ``none``, and a value
                inside a group of settings ``sources.answer``.

        Raises:
            UserError: There is no such setting, one is missing, or a value makes no sense.
        """
        return read_settings(self.settings, values, f"method {self.name}")

    def settings_from(self, given: object) -> Settings:
        """The settings that a caller gives: an object, some of them by name, or None for the defaults.

        Raises:
            UserError: They are of another method, there is no such setting, or a value makes no sense.
        """
        if given is None or isinstance(given, Mapping):
            return self.read(given or {})
        if not self.accepts(given):
            raise UserError(
                f"These are not the settings of method {self.name}.",
                found=type(given).__name__,
                do=f"give {self.settings.__name__} or a dict of settings, or name the method they are of",
            )
        return cast(Settings, given)

    def as_given(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The settings as an edit records them, by the names that users give them; groups are mappings."""
        return dict(recorded)

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The settings that had no part in an edit, because of the others; ``recorded`` are those that it records."""
        return set()

    def combinations(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every combination of the settings of a recipe; a list stands for several values to try.

        Returns:
            At least one set of settings, in the order in which the recipe lists them.

        Raises:
            UserError: There is no such setting, a value makes no sense, or there are too many combinations.
        """
        grid = every_combination(self.name, values)
        for settings in grid:
            self.read(settings)
        return grid

    def accepts(self, settings: object) -> bool:
        """Whether these are settings of this method."""
        return isinstance(settings, self.settings)

    def fixes_strength(self, settings: Settings) -> bool:
        """Whether the settings say how strong the edit is to be: one of ``dose`` is not its default."""
        return any(
            field.name in self.dose and getattr(settings, field.name) != default_of(field) for field in fields(settings)
        )

    def scaling(self, settings: Settings) -> Scaling | None:
        """How a result under these settings offers edits of many strengths; None if it offers only itself."""
        return self.scales

    def to_choose_from(self, settings: Settings) -> Settings:
        """The settings with which the method is run if the strength is chosen from what it finds."""
        return settings

    def smallest_gate(self, settings: Settings) -> float:
        """Gates below this become 0 in the edits that are chosen by number of directions."""
        return 0.0

    def needs_retain(self, settings: Settings) -> bool:
        """Whether the method uses the retain set."""
        return True

    def statistics_positions(self, settings: Settings) -> Positions | None:
        """The positions whose statistics the method needs of the retain set, and nothing else; None if it reads the
        examples."""
        return None

    def make_from_statistics(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Statistics,
        settings: Settings,
        progress: Progress,
    ) -> Unlearned:
        """As :meth:`make`, from statistics of the retain set; for methods with :meth:`statistics_positions`.

        Raises:
            UserError: The method reads the retain examples themselves.
        """
        raise UserError(
            f"Method {self.name} reads the retain examples themselves.",
            found="a statistics file",
            do="give --retain the file of the examples",
        )

    def holds_out(self, settings: Settings) -> bool:
        """Whether the method holds out views of the forget facts itself, and so needs all of them."""
        return False

    def changes_weights_meanwhile(self, settings: Settings) -> bool:
        """Whether weights are changed while it runs, so that packed ones cannot be used."""
        return False

    def value_matrices(self, model: PreTrainedModel, settings: Settings) -> list[ValueMatrix]:
        """The value matrices that the method may change; by default those of all FFNs.

        Raises:
            UserError: The model does not have the layers, or not such matrices.
        """
        from kvw.models.finding import find_value_matrices

        return find_value_matrices(model)

    def most_rank(self, settings: Settings) -> int:
        """The most directions that are written for each value matrix."""
        return 1

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: Settings) -> None:
        """Find out before any pass what would stop the method later; nothing by default.

        Raises:
            UserError: Names what to fix.
        """

    def edit_bytes(self, model: PreTrainedModel, settings: Settings) -> int:
        """The most bytes that the edit takes on the disk."""
        rank = self.most_rank(settings)
        return sum(4 * matrix.width * (2 * rank + 1) for matrix in self.value_matrices(model, settings))

    def announce(self, loaded: LoadedModel, forget: Sequence[Prepared], settings: Settings) -> list[str]:
        """What a user should know before a run of ``kvw erase`` begins, above all what it costs."""
        return []

    def plan(
        self, loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: Settings
    ) -> MethodPlan | None:
        """What a run would take, for ``kvw erase --dry-run``; None if the method cannot say.

        Raises:
            UserError: The settings ask more of the data than there is.
        """
        return None

    def cost_settings(self, values: Mapping[str, Any], rows: int) -> Settings:
        """The settings for ``kvw bench cost``, from a recipe's values; ``rows`` examples are to run per forward."""
        return self.read(values)

    def measure_cost(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: Settings,
        stage: Stages,
    ) -> None:
        """Do the work once, cut into stages, for ``kvw bench cost``."""
        with stage(self.stage):
            self.make(loaded, forget, retain, settings, unheard)
