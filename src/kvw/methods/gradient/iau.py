"""Influence approximation unlearning (IAU): one update on the gradients of whole sets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kvw.errors import UserError
from kvw.methods.gradient.method import OneUpdate
from kvw.progress import Progress
from kvw.settings import Count, NotNegative, Positive, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kvw.data.rendering import Processor
    from kvw.training.objective import Sets, Side
    from kvw.training.result import Result


@dataclass(frozen=True)
class IauSettings(Settings):
    """Influence approximation unlearning: one update against the forget set's gradient, and along the retain set's.

    On a large model one update is soon too much or nothing: choose the rate on the model itself.

    Args:
        rate: Factor of both gradients; with ``adam`` how far each weight moves.
        retain_weight: Factor of the retain set's gradient.
        optimiser: ``sgd``: the formula. ``adam``: the first step of Adam, as in the authors' code: each weight moves by
            the rate, and only the sign of its gradient counts.
        steps: How many updates.
        batch_size: Examples per forward; each update sees all examples, whatever it is.
    """

    rate: Positive = 1e-3
    retain_weight: NotNegative = 1.0
    optimiser: Literal["sgd", "adam"] = "sgd"
    steps: Count = 1
    batch_size: Count = 4


class Iau(OneUpdate):
    """Takes a step in place of training."""

    name = "iau"
    own = IauSettings
    firmness = "the authors' code and summaries of the paper; without its penalty at planting"
    stage = "updating"

    def update(
        self, model: PreTrainedModel, processor: Processor, sets: Sets, own: Any, progress: Progress | None
    ) -> Result:
        """theta <- theta + rate ((n_f / n) grad L_f - c grad L_r), n_f of the n answer tokens of both sets.

        Removing examples is taken for adding others with the opposite gradient, so no Hessian is needed.

        Source: arXiv 2507.23257, and Lolo1222/IAU.

        Raises:
            UserError: A set is empty, or a gradient is not finite.
        """
        import torch

        from kvw.training.loop import add_gradients, update
        from kvw.training.losses import ascent_loss, descent
        from kvw.training.objective import Term
        from kvw.training.result import Result
        from kvw.training.settings import TrainingSettings
        from kvw.training.trainee import in_training

        if not sets["forget"] or (own.retain_weight and not sets["retain"]):
            raise UserError("This method needs both sets.", do="give retain examples, or --set retain_weight=0")
        tokens = {side: sum(len(item.answer_ids) for item in sets[side]) for side in sets}
        terms: dict[Side, Term] = {
            "forget": Term(ascent_loss, weight=tokens["forget"] / sum(tokens.values())),
            "retain": descent(own.retain_weight),
        }
        kind = torch.optim.SGD if own.optimiser == "sgd" else torch.optim.Adam
        with in_training(model, processor, TrainingSettings(batch_size=own.batch_size), sets) as trainee:
            model.eval()  # no dropout: the gradient of a whole set is no estimate
            optimiser = kind(trainee.parameters.values(), lr=own.rate)
            for done in range(own.steps):
                optimiser.zero_grad(set_to_none=True)
                for side, term in terms.items():
                    if term.weight:
                        add_gradients(trainee, term, sets[side], range(len(sets[side])))
                update(trainee, optimiser)
                if progress:
                    progress(done + 1, own.steps)
            names = set(trainee.parameters)
        zeros = sum(int((~alive).sum()) for alive in trainee.survivors.values())
        weights = {name: value.detach() for name, value in model.named_parameters() if name in names}
        return Result(self.name, {"method": asdict(own)}, weights, kept_zeros=zeros)


METHOD = Iau()
