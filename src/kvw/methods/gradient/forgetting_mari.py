"""Forgetting-MarI: what the forget set adds to the retain set is forgotten, and nothing that both say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kvw.methods.gradient.method import GradientMethod
from kvw.settings import NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.data import Prepared
    from kvw.training.answers import Answers
    from kvw.training.objective import Objective, Rows, Side
    from kvw.training.trainee import Trainee

Balance = Literal["data", "even"]


@dataclass(frozen=True)
class ForgettingMariSettings(Settings):
    """Forgetting-MarI: what forget answers add to what retain answers say is forgotten, and nothing that both say.

    The form for language models is a reconstruction: only code of the parent method, for classifiers, was read.

    Args:
        estimator: ``pooled``: one mean distribution over all answer positions. ``token``: one for the first answer
            tokens, one for the second and so on; the mean over the places that both sets reach.
        weight: Factor of the mutual information.
        retain_weight: Weight of L_r.
        balance: ``data``: by the answer tokens of the two sets in a step, as in the parent's code. ``even``: as if they
            were equally many, and both indicators equally likely.
        detach_retain: Whether the mean over the retain set is taken as fixed, so that only forget answers move.
    """

    estimator: Literal["pooled", "token"] = "pooled"
    weight: Positive = 1.0
    retain_weight: NotNegative = 1.0
    balance: Balance = "data"
    detach_retain: bool = False


def marginal_information(
    retain: Tensor, forget: Tensor, retain_count: Tensor, forget_count: Tensor, balance: Balance
) -> Tensor:
    """I(next token; indicator), nats, where the indicator tells the retain set from both sets together.

    I = H(w r + (1 - w) m) - w H(r) - (1 - w) H(m), the Jensen-Shannon divergence of r and m = (1 - a) r + a f with
    a = n_f / (n_r + n_f) and w = n_r / (2 n_r + n_f). It is 0 exactly where r = f.

    Args:
        retain: r, mean distributions over the retain set: (places, vocabulary).
        forget: f, the same of the forget set.
        retain_count: n_r: (places,).
        forget_count: n_f: (places,).
        balance: ``even`` takes a and w as one half.

    Returns:
        (places,).
    """
    import torch

    share = (forget_count / (retain_count + forget_count))[:, None]  # a
    weight = (retain_count / (2 * retain_count + forget_count))[:, None]  # w
    if balance == "even":
        share, weight = torch.full_like(share, 0.5), torch.full_like(weight, 0.5)
    mixed = (1 - share) * retain + share * forget

    def entropy(p: Tensor) -> Tensor:
        # 0 log 0 is 0, and its derivative must stay finite.
        return -(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)

    weights = weight[:, 0]
    whole = entropy(weight * retain + (1 - weight) * mixed)
    return whole - weights * entropy(retain) - (1 - weights) * entropy(mixed)


class Marginal:
    """The mutual information of a step, linear in what single examples say.

    It depends on means over the whole step. So these are measured first, without gradients. Then each answer token i
    adds <p_i, dI / dp>, whose gradient is that of I, however the step is cut into batches.

    Args:
        trainee: The model.
        settings: The method's own.
    """

    def __init__(self, trainee: Trainee, settings: ForgettingMariSettings) -> None:
        self._trainee, self._settings = trainee, settings
        self._slopes: dict[Side, Tensor] = {}
        self._rest: dict[Side, float] = {}

    def measure(self, examples: Mapping[Side, Sequence[int]]) -> None:
        """Run the examples of a step, given by their positions in the sets; each of several processes runs all."""
        import torch

        sums: dict[Side, Tensor] = {}
        counts: dict[Side, Tensor] = {}
        for side in ("forget", "retain"):
            sums[side], counts[side] = self._summed(side, examples[side])
        places = min(len(one) for one in counts.values())
        counts = {side: one[:places] for side, one in counts.items()}
        means = {side: (sums[side][:places] / counts[side][:, None]).requires_grad_() for side in sums}
        found = marginal_information(
            means["retain"], means["forget"], counts["retain"], counts["forget"], self._settings.balance
        ).mean()
        slopes = dict(zip(means, torch.autograd.grad(found, list(means.values())), strict=True))
        for side, slope in slopes.items():
            tokens = sum(len(self._set(side)[index].answer_ids) for index in examples[side])
            # The loop divides by all answer tokens of the step; each place has a mean over its own.
            self._slopes[side] = slope * (tokens / counts[side])[:, None]
            # The value of I counts once, on the side of the forget set.
            whole = float(found.detach()) if side == "forget" else 0.0
            self._rest[side] = whole - float((slope * means[side].detach()).sum())

    def loss(self, side: Side, scored: Answers) -> Tensor:
        """The sum over some answer tokens of one set whose mean over the step is I, or 0 for the retain set."""
        probabilities = scored.logits.softmax(-1)  # (tokens, vocabulary)
        slopes, places = self._slopes[side], self._places(scored)
        inside = places < len(slopes)
        linear = (probabilities[inside] * slopes[places[inside]].to(probabilities.dtype)).sum()
        return linear + self._rest[side] * len(places)

    def _set(self, side: Side) -> Sequence[Prepared]:
        return self._trainee.forget if side == "forget" else self._trainee.retain

    def _places(self, scored: Answers) -> Tensor:
        """The place of each token in its answer, from 0; 0 for all if they are pooled: (tokens,)."""
        import torch

        if self._settings.estimator == "pooled":
            return torch.zeros_like(scored.rows)
        lengths = scored.lengths.long()
        return torch.arange(len(scored.rows), device=scored.rows.device) - (lengths.cumsum(0) - lengths)[scored.rows]

    def _summed(self, side: Side, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Sums of distributions by place, (places, vocabulary), and how many were summed, (places,); both float32."""
        import torch

        from kvw.measuring.engine import evaluating
        from kvw.training.answers import answers

        trainee, prepared = self._trainee, self._set(side)
        most = 1 if self._settings.estimator == "pooled" else max(len(prepared[index].answer_ids) for index in indices)
        sums: Tensor | None = None
        counts = torch.zeros(most, device=trainee.model.device)
        with evaluating(trainee.model), trainee.autocast():
            for batch in trainee.batches(prepared, indices):
                scored = answers(trainee.model, trainee.rows(prepared, batch).batch)
                places = self._places(scored)
                values = scored.logits.softmax(-1)
                if sums is None:
                    sums = values.new_zeros(most, values.shape[-1])
                sums.index_add_(0, places, values)
                counts.index_add_(0, places, torch.ones_like(places, dtype=counts.dtype))
        assert sums is not None
        return sums, counts.to(sums.dtype)


def forgetting_mari(trainee: Trainee, settings: ForgettingMariSettings) -> Objective:
    """Minimise c L_r + w I(next token; indicator), over the answer positions of both sets.

    Source: arXiv 2511.11914 (abstract), and the code of its parent method, xushizhou/Machine_Unlearn_via_Info_Reg.
    """
    from kvw.training.answers import answers
    from kvw.training.objective import Objective, Term

    marginal = Marginal(trainee, settings)

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        return settings.weight * marginal.loss("forget", answers(model, rows.batch))

    def retain(model: PreTrainedModel, rows: Rows) -> Tensor:
        scored = answers(model, rows.batch)
        kept = settings.retain_weight * scored.losses.sum()
        return kept if settings.detach_retain else kept + settings.weight * marginal.loss("retain", scored)

    return Objective(forget=Term(forget), retain=Term(retain), before_step=marginal.measure)


class ForgettingMari(GradientMethod):
    """States how firmly it is known."""

    firmness = "the abstract, and the code of its parent method for classifiers"


METHOD = ForgettingMari("forgetting-mari", ForgettingMariSettings, forgetting_mari)
