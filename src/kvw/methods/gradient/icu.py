"""Iterative contrastive unlearning (ICU): each forget example until it is no longer said, and an analogue beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kvw.folding import words
from kvw.methods.gradient.method import GradientMethod
from kvw.settings import Count, NotNegative, Settings, Share

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.data import Prepared
    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class IcuSettings(Settings):
    """ICU: each forget example is trained until the model no longer says its answer, and an analogue is taught with it.

    After every epoch the model answers all forget examples. Those whose answer it no longer gives are left out of the
    next epoch, and come back if it gives it again.

    Args:
        unlearn_weight: Weight of -L_f.
        learn_weight: Weight of the analogues' negative log-likelihood.
        kl_weight: Weight of KL(before || now) on the analogues.
        neighbours: What makes a retain example the analogue of a forget example: the most similar ``question`` (words
            in common, about somebody else), or the nearest mean ``embedding`` of the answer's tokens.
        similarity_floor: An answer with a lower ROUGE-L recall of the forget answer counts as forgotten.
        bleu_floor: So does one with a lower BLEU; 0 does not ask (BLEU needs NLTK).
        memorised_floor: Training ends when fewer of the answers' tokens than this share are the likeliest ones, given
            those before them,
        extraction_floor: and less than this share of an answer need not be given for the rest to come.
        check_every: Epochs between two checks.
    """

    unlearn_weight: NotNegative = 1.0
    learn_weight: NotNegative = 0.5
    kl_weight: NotNegative = 1.0
    neighbours: Literal["question", "embedding"] = "question"
    similarity_floor: Share = 0.3
    bleu_floor: Share = 0.01
    memorised_floor: Share = 0.5994
    extraction_floor: Share = 0.0499
    check_every: Count = 1


def alike_questions(forget: Sequence[str], retain: Sequence[str]) -> list[int]:
    """For each question the position of the one that shares most of its words: |A & B| / |A | B|.

    Of several the one that was taken least often, and then the first.
    """
    sets = [frozenset(words(question)) for question in retain]
    taken: Counter[int] = Counter()
    found = []
    for question in forget:
        mine = frozenset(words(question))
        shares = [len(mine & other) / max(1, len(mine | other)) for other in sets]
        most = max(shares)
        best = min((place for place, share in enumerate(shares) if share == most), key=lambda place: taken[place])
        taken[best] += 1
        found.append(best)
    return found


def alike_answers(model: PreTrainedModel, forget: Sequence[Prepared], retain: Sequence[Prepared]) -> list[int]:
    """For each forget example the retain example with the nearest mean embedding of its answer's tokens (L2)."""
    import torch

    embeddings: Any = model.get_input_embeddings()
    table = embeddings.weight.detach()

    def means(items: Sequence[Prepared]) -> Tensor:
        return torch.stack([table[list(item.answer_ids)].float().mean(0) for item in items])

    return list(map(int, torch.cdist(means(forget), means(retain)).argmin(1)))


class Checking:
    """Finds which forget examples the model still says.

    Args:
        trainee: The model.
        settings: The method's own.
    """

    def __init__(self, trainee: Trainee, settings: IcuSettings) -> None:
        from kvw.evaluation.metrics.optional import optional

        if settings.bleu_floor:
            optional("nltk.translate.bleu_score")  # before anything is trained
        self._trainee, self._settings = trainee, settings
        self._active: Sequence[int] = range(len(trainee.forget))

    def active(self, epoch: int) -> Sequence[int]:
        """The positions of the forget examples that are trained in an epoch; none if the model has forgotten."""
        if epoch % self._settings.check_every:
            return self._active
        with self._trainee.autocast():
            self._active = [] if self._forgotten() else self._still_said()
        return self._active

    def _forgotten(self) -> bool:
        """Whether memorisation accuracy and extraction strength of the set are below both floors."""
        from kvw.evaluation.metrics import extraction_strength, memorisation_accuracy
        from kvw.evaluation.probability import token_scores

        settings, trainee = self._settings, self._trainee
        scores = token_scores(trainee.model, trainee.processor, trainee.forget)
        known = sum(memorisation_accuracy(one.is_argmax) for one in scores) / len(scores)
        extracted = sum(extraction_strength(one.is_argmax) for one in scores) / len(scores)
        return known < settings.memorised_floor and extracted < settings.extraction_floor

    def _still_said(self) -> list[int]:
        from kvw.evaluation.generation import generate_answers
        from kvw.evaluation.metrics import bleu, rouge_l

        settings, trainee = self._settings, self._trainee
        longest = max(len(item.answer_ids) for item in trainee.forget)
        said = generate_answers(trainee.model, trainee.processor, trainee.forget, max_new_tokens=longest)
        return [
            index
            for index, (item, text) in enumerate(zip(trainee.forget, said, strict=True))
            if rouge_l(text, item.example.answer).recall >= settings.similarity_floor
            and (not settings.bleu_floor or bleu(text, item.example.answer) >= settings.bleu_floor)
        ]


def icu(trainee: Trainee, settings: IcuSettings) -> Objective:
    """Minimise -u L_f + l L_a + k KL(before || now), both on the analogues a, over the examples that are still said.

    Source: arXiv 2407.20271 and himalalps/ICU. Their cross-entropy to the outputs before training has the gradient of
    KL; it counts padding, which is left out here.
    """
    from kvw.training.losses import ascent_loss, divergence_loss, likelihood_loss
    from kvw.training.objective import Objective, Term

    reference = trainee.reference() if settings.kl_weight else None
    learns = bool(settings.learn_weight or settings.kl_weight)
    pairs: Sequence[int] = ()
    if learns and trainee.retain:
        if settings.neighbours == "question":
            questions = [[item.example.question for item in items] for items in (trainee.forget, trainee.retain)]
            pairs = alike_questions(*questions)
        else:
            pairs = alike_answers(trainee.model, trainee.forget, trainee.retain)

    def learn(model: PreTrainedModel, rows: Rows) -> Tensor:
        loss = settings.learn_weight * likelihood_loss(model, rows)
        return loss if reference is None else loss + settings.kl_weight * divergence_loss(model, rows, reference)

    return Objective(
        forget=Term(ascent_loss, weight=settings.unlearn_weight),
        retain=Term(learn, weight=float(learns)),
        pairs=pairs,
        active=Checking(trainee, settings).active,
    )


class Icu(GradientMethod):
    """States how firmly it is known."""

    firmness = "the authors' code for plain text; analogues of questions and the check on answers are ours"


METHOD = Icu("icu", IcuSettings, icu)
