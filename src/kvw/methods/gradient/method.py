"""A method that minimises an objective over the training loop, as one object. Importing this loads nothing heavy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kvw.methods.gradient.settings import TrainedSettings, flat, read, steps
from kvw.methods.grid import every_combination
from kvw.methods.method import LoadedModel, Method, Stages
from kvw.methods.trained import Trained
from kvw.plural import counted
from kvw.progress import Progress
from kvw.training.settings import ADAPTERS, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.data.rendering import Processor
    from kvw.methods.plan import MethodPlan
    from kvw.training.objective import Objective, Sets
    from kvw.training.result import Result
    from kvw.training.trainee import Trainee

Build = Callable[["Trainee", Any], "Objective"]


class WithTraining(Method[TrainedSettings]):
    """A method with settings of its own, and settings of training.

    Attributes:
        own: Class of its own settings; the first sentence of its docstring describes the method.
        trains: Whether there are settings of training.
        training: Settings of training whose defaults are others than those of :class:`TrainingSettings`, as a recipe
            has them.
    """

    settings = TrainedSettings
    own: type[Any]
    trains = True
    training: Mapping[str, Any] = MappingProxyType({})

    @property
    def setting_classes(self) -> tuple[type[Any], ...]:
        """Its own settings, and those of training."""
        return (self.own, TrainingSettings) if self.trains else (self.own,)

    def read(self, values: Mapping[str, Any]) -> TrainedSettings:
        """See :func:`kvw.methods.gradient.settings.read`."""
        given = flat(self.name, self.own, values, trains=self.trains)
        defaults = flat(self.name, self.own, self.training, trains=self.trains)
        if ADAPTERS in values and not any(name.startswith(ADAPTERS) for name in given):  # none are asked for
            defaults = {name: value for name, value in defaults.items() if not name.startswith(ADAPTERS)}
        if ADAPTERS in given and any(name.startswith(ADAPTERS) for name in defaults):  # those of this method
            given = {name: value for name, value in given.items() if name != ADAPTERS}
        return read(self.name, self.own, {**defaults, **given}, trains=self.trains)

    def as_given(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of training stand beside the method's own."""
        training = recorded.get("training") or {}
        adapters = {ADAPTERS: training.get(ADAPTERS) or {}} if self.trains else {}
        return {**recorded.get("method_settings", {}), **training, **adapters}

    def combinations(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every combination, flat: ``{"beta": 0.1, "learning_rate": 1e-4, "lora.rank": 8}``."""
        grid = every_combination(self.name, flat(self.name, self.own, values, trains=self.trains))
        for settings in grid:
            self.read(settings)
        return grid

    def accepts(self, settings: object) -> bool:
        """Settings of another method have another name."""
        return isinstance(settings, TrainedSettings) and settings.method == self.name

    def cost_settings(self, values: Mapping[str, Any], rows: int) -> TrainedSettings:
        """Batches are those of the recipe, unless it says otherwise."""
        return self.read({"batch_size": rows, **values})


class GradientMethod(WithTraining, Trained[TrainedSettings]):
    """A baseline: an objective, its settings, and how to train.

    Args:
        name: What commands and recipes call it.
        own: Class of its own settings.
        build: Makes the objective from a model in training and own settings.
        layers: Which decoder layers it trains, from a model and own settings; None for what the training settings say.
    """

    def __init__(
        self,
        name: str,
        own: type[Any],
        build: Build,
        layers: Callable[[PreTrainedModel, Any], tuple[int, int]] | None = None,
    ) -> None:
        self.name, self.own, self.build, self.layers = name, own, build, layers

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: TrainedSettings) -> None:
        """See :func:`kvw.methods.gradient.refusals.check_refusals`."""
        from kvw.methods.gradient.refusals import check_refusals

        refusals = getattr(settings.method_settings, "refusals", ())
        check_refusals(forget, loaded.processor, refusals, loaded.model.config)

    def building(self, model: PreTrainedModel, own: Any) -> Callable[[Trainee], Objective]:
        """What makes the objective of a model in training; called while the model is still without adapters."""
        return lambda trainee: self.build(trainee, own)

    def run(
        self,
        model: PreTrainedModel,
        processor: Processor,
        sets: Sets,
        own: Any,
        training: TrainingSettings | None = None,
        *,
        reference: PreTrainedModel | None = None,
        state: Path | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """Change a model in place, see :func:`kvw.training.running.run`.

        Args:
            model: A plain model.
            processor: Its processor.
            sets: Forget set and retain set.
            own: The method's own settings.
            training: How to train; None for the defaults.
            reference: A reference other than the model itself.
            state: Where training keeps its state.
            progress: Called with the steps done and their total.
        """
        from kvw.training.running import run

        if training is None and self.training:
            training = self.read({}).training
        return run(
            model,
            processor,
            sets,
            self.name,
            self.building(model, own),
            training,
            settings=asdict(own),
            layers=self.layers(model, own) if self.layers is not None else None,
            reference=reference,
            state=state,
            progress=progress,
        )

    def train(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: TrainedSettings,
        *,
        state: Path | None = None,
        progress: Progress,
    ) -> Result:
        """See :func:`kvw.methods.gradient.unlearn`."""
        from kvw.methods.gradient.unlearning import unlearn

        return unlearn(
            loaded.model,
            loaded.processor,
            forget,
            retain,
            self,
            settings.method_settings,
            settings.training,
            state=state if self.trains else None,
            progress=progress,
        )

    def preferring(self, settings: TrainedSettings, answers: Sequence[str]) -> TrainedSettings:
        """The answers become the method's setting ``alternatives``, if it has one and none are given."""
        own = settings.method_settings
        if getattr(own, "alternatives", True):
            return settings
        return replace(settings, method_settings=replace(own, alternatives=tuple(answers)))

    def announce(self, loaded: LoadedModel, forget: Sequence[Prepared], settings: TrainedSettings) -> list[str]:
        """How many steps, and how large the edit is."""
        size = f"{self.edit_bytes(loaded.model, settings) / 1e6:,.0f} MB"
        edit = f"Its edit is no small file: it holds every weight that it changes, {size} at most."
        if settings.training is None:
            return [f"{self.name} runs every example once. {edit}"]
        count, training = steps(settings.training, len(forget)), settings.training
        rows, times = training.batch_size * training.accumulation, counted(count, "step")
        return [
            f"{self.name} trains the model in {times} of up to {rows} forget and {rows} retain examples. It takes "
            f"memory for a copy of the weights, and for gradients and two averages of what is trained. {edit}"
        ]

    def plan(
        self, loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: TrainedSettings
    ) -> MethodPlan:
        """See :func:`kvw.methods.gradient.plan.training_plan`."""
        from kvw.methods.gradient.plan import training_plan

        return training_plan(self, loaded, forget, retain, settings)

    def measure_cost(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: TrainedSettings,
        stage: Stages,
    ) -> None:
        """The time until the objective stands counts by itself."""
        from kvw.training.running import run

        settings = self.preferring(settings, [example.answer[::-1] for example in forget])
        own = settings.method_settings
        sets: Sets = {"forget": loaded.prepare(forget), "retain": loaded.prepare(retain)}
        if not self.trains:
            with stage(self.stage):
                self.run(loaded.model, loaded.processor, sets, own)
            return
        layers = self.layers(loaded.model, own) if self.layers is not None else None
        making = self.building(loaded.model, own)
        with ExitStack() as entered:
            entered.enter_context(stage("references and masks"))

            def build(trainee: Trainee) -> Objective:
                objective = making(trainee)
                entered.close()
                entered.enter_context(stage(self.stage))
                return objective

            run(loaded.model, loaded.processor, sets, self.name, build, settings.training, layers=layers)


class OneUpdate(GradientMethod):
    """A method that changes the weights once, by what whole sets say, in place of training."""

    trains = False

    def __init__(self) -> None:
        """There is no objective to minimise."""

    @abstractmethod
    def update(
        self, model: PreTrainedModel, processor: Processor, sets: Sets, own: Any, progress: Progress | None
    ) -> Result:
        """Change a model in place; the arguments are those of :meth:`run`."""

    def run(
        self,
        model: PreTrainedModel,
        processor: Processor,
        sets: Sets,
        own: Any,
        training: TrainingSettings | None = None,
        *,
        reference: PreTrainedModel | None = None,
        state: Path | None = None,
        progress: Progress | None = None,
    ) -> Result:
        """See :meth:`update`: there are no settings of training, no reference and no state."""
        return self.update(model, processor, sets, own, progress)
