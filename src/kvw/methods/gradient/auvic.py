"""AUVIC: the vision tower forgets a concept against a generator that keeps it visible, and keeps those like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.settings import TrainedSettings, steps
from kvw.methods.method import LoadedModel
from kvw.settings import Count, Index, NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.data import Example, Prepared
    from kvw.training.answers import Answers
    from kvw.training.objective import Objective, Rows, Side
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class AuvicSettings(Settings):
    """AUVIC: the vision tower forgets a concept while a generator changes its pictures so that it stays visible.

    Rebuilt from notes of the paper: weights, rates, temperatures and numbers of anchors were not given.

    Args:
        maps: Last names of the linear maps that are trained, in the parts that are; none for all of them.
        forget_loss: ``bce``: the largest logit of the concept's token is pushed down. ``npo``: the answer becomes less
            likely, as in NPO.
        beta: Of ``npo``.
        concept: Whose first token is the concept: of what the ``answer`` says (the subject's name if it has it), or of
            the subject's ``name`` everywhere.
        epsilon: How far the generator may change a pixel, in brightness from 0 to 1; 0 is without a generator.
        hidden: Width of the generator.
        generator_rate: Learning rate of the generator.
        inner_steps: Steps of the generator before each step of the model.
        disguises: How often each question is asked once more with the name and a greeting before it.
        group: How many portraits of the retain set are put beside the forgotten one in a further picture of each
            example; 0 makes none.
        candidates: Names of concepts like it that must stay; none for the subjects of the retain set that it names.
        considered: How many of them are considered, the nearest by the embeddings of their names.
        anchors: How many of those are held in each step.
        temperature: Of their drawing (Gumbel) in the first step,
        last_temperature: and after the last.
        anchor_weight: lambda, the weight of the anchors.
        consistency_weight: beta, the weight of KL(original picture || changed picture).
    """

    maps: tuple[str, ...] = ("q_proj", "v_proj", "fc1", "fc2")
    forget_loss: Literal["bce", "npo"] = "bce"
    beta: Positive = 0.1
    concept: Literal["answer", "name"] = "answer"
    epsilon: NotNegative = 8 / 255
    hidden: Count = 256
    generator_rate: Positive = 1e-4
    inner_steps: Count = 1
    disguises: Index = 1
    group: Index = 0
    candidates: tuple[str, ...] = ()
    considered: Count = 20
    anchors: Count = 4
    temperature: Positive = 1.0
    last_temperature: Positive = 0.1
    anchor_weight: NotNegative = 1.0
    consistency_weight: NotNegative = 1.0


def drawn_anchors(cosines: Tensor, count: int, temperature: float, noise: Tensor) -> Tensor:
    """The weights of the anchors of a step: softmax over the ``count`` largest of cosine / t + g, 0 elsewhere.

    Args:
        cosines: Of each concept to each candidate, (concepts, candidates).
        count: How many are taken of each.
        temperature: t; towards 0 the nearest are taken.
        noise: g, Gumbel noise of the same shape.
    """
    import torch

    keys = cosines / temperature + noise
    best = keys.topk(min(count, keys.shape[1]), dim=1)
    return torch.zeros_like(keys).scatter(1, best.indices, best.values.softmax(1))


def largest_logits(answers: Answers, tokens: Tensor) -> Tensor:
    """max over the positions of each row that predict its answer of the logits of some tokens.

    Args:
        answers: The answers of a batch.
        tokens: For each row, (rows, tokens), int64.

    Returns:
        (rows, tokens).
    """
    import torch

    return torch.stack([answers.logits[answers.rows == row][:, own].amax(0) for row, own in enumerate(tokens)])


class Concepts:
    """What the objective knows of each forget example before the first step.

    Args:
        trainee: The model before training.
        items: The examples.
        settings: The method's own.

    Attributes:
        tokens: The concept's token of each example and those of its candidates, (examples, 1 + candidates).
        before: Their largest logits in the model before training.
        cosines: Of the names' mean embeddings, (examples, candidates).
    """

    def __init__(self, trainee: Trainee, items: Sequence[Prepared], settings: AuvicSettings) -> None:
        import torch

        from kvw.measuring.engine import evaluating
        from kvw.training.answers import answers

        tokenizer = trainee.processor.tokenizer
        names = self._candidates(trainee, items, settings) if settings.anchor_weight else []
        own = [item.example.subject or item.example.answer for item in items]
        self.cosines = torch.zeros(len(items), 0)
        if names:
            table: Any = trainee.model.get_input_embeddings()
            means = {name: _mean_embedding(table.weight, tokenizer, name) for name in {*names, *own}}
            others = torch.stack([means[name] for name in names])
            self.cosines = torch.nn.functional.cosine_similarity(
                torch.stack([means[name] for name in own])[:, None], others[None], dim=-1
            )
            nearest = self.cosines.amax(0).topk(min(settings.considered, len(names))).indices
            self.cosines, names = self.cosines[:, nearest], [names[int(place)] for place in nearest]
        concept = _concept_tokens(trainee, items, settings)
        anchors = [first_token(tokenizer, name) for name in names]
        self.tokens = torch.tensor([[token, *anchors] for token in concept], device=trainee.model.device)
        found = torch.zeros(self.tokens.shape, device=trainee.model.device)
        with evaluating(trainee.model), trainee.autocast():
            for batch in trainee.batches(items, range(len(items))):
                said = answers(trainee.model, trainee.rows(items, batch).batch)
                found[list(batch)] = largest_logits(said, self.tokens[list(batch)]).to(found)
        self.before = found

    @staticmethod
    def _candidates(trainee: Trainee, items: Sequence[Prepared], settings: AuvicSettings) -> list[str]:
        from kvw.folding import collapsed

        forgotten = {item.example.subject_key for item in items}
        names = settings.candidates or tuple(
            subject
            for item in trainee.retain
            if (subject := item.example.subject) is not None
            and item.example.subject_key not in forgotten
            and collapsed(subject) in collapsed(f"{item.example.asked} {item.example.answer}")
        )
        if not names:
            raise UserError(
                "AUVIC needs concepts like the forgotten one that must stay.",
                found="no retain example that names its subject",
                do="name some with --set candidates='Ann Lee, Bo Day', or set anchor_weight=0",
            )
        return list(dict.fromkeys(names))


def first_token(tokenizer: Any, name: str) -> int:
    """The first token of a name within a sentence, after a space; tokens that are only a space do not count."""
    ids = tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
    return int(next((one for one in ids if tokenizer.decode([one]).strip()), ids[0]))


class Game:
    """The losses of the model, and the steps of the generator before it.

    Args:
        trainee: The model before training.
        items: The forget examples, each with a picture.
        settings: The method's own.
    """

    def __init__(self, trainee: Trainee, items: Sequence[Prepared], settings: AuvicSettings) -> None:
        import torch

        from kvw.methods.gradient.pixel_generator import Adversary

        self._trainee, self._items, self._settings = trainee, items, settings
        self._known = Concepts(trainee, items, settings)
        self._reference = trainee.reference_log_likelihoods(items) if settings.forget_loss == "npo" else None
        self._weights = torch.zeros_like(self._known.cosines, device=trainee.model.device)
        self._done = torch.zeros(())
        self._adversary: Adversary | None = None
        self.beside = {"steps": self._done}
        if settings.epsilon:
            self._adversary = Adversary(
                trainee.model,
                trainee.processor,
                items,
                hidden=settings.hidden,
                epsilon=settings.epsilon,
                rate=settings.generator_rate,
                seed=trainee.settings.seed,
            )
            self.beside |= self._adversary.beside

    def loss(self, model: PreTrainedModel, rows: Rows) -> Tensor:
        """Sum over the rows of L_f + lambda L_p + beta L_c."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits, kl_div

        from kvw.training.answers import answers

        places, settings, known = list(rows.indices), self._settings, self._known
        with torch.no_grad():
            batch = self._changed(rows)
        said = answers(model, batch)
        total = self._forgetting(said, rows)
        if known.cosines.shape[1]:
            now, held = largest_logits(said, known.tokens[places, 1:]), known.before[places, 1:].to(said.logits)
            each = binary_cross_entropy_with_logits(now, held.sigmoid(), reduction="none")
            total = total + settings.anchor_weight * (self._weights[places].to(each) * each).sum()
        if self._adversary is not None and settings.consistency_weight:
            clean = torch.log_softmax(answers(model, rows.batch).logits, -1)
            apart = kl_div(torch.log_softmax(said.logits, -1), clean, reduction="none", log_target=True).sum(-1)
            total = total + settings.consistency_weight * (said.per_row(apart) / said.lengths).sum()
        return total

    def before_step(self, examples: Mapping[Side, Sequence[int]]) -> None:
        """Draw the anchors, and let the generator make the concept more visible on the examples of the step."""
        import torch

        from kvw.measuring.engine import evaluating

        settings, trainee, cosines = self._settings, self._trainee, self._known.cosines
        along = float(self._done) / max(1, steps(trainee.settings, len(self._items)) - 1)
        temperature = settings.temperature * (settings.last_temperature / settings.temperature) ** along
        self._done.add_(1)
        if cosines.shape[1]:
            noise = -torch.log(torch.empty(cosines.shape).exponential_())
            self._weights.copy_(drawn_anchors(cosines, settings.anchors, temperature, noise.to(cosines)))
        if self._adversary is None:
            return
        batches = trainee.batches(self._items, examples["forget"])
        losses = [partial(self._visible, batch, len(examples["forget"])) for batch in batches]
        for _ in range(settings.inner_steps):
            with evaluating(trainee.model), trainee.autocast(), torch.enable_grad():
                self._adversary.ascend(losses)

    def _visible(self, batch: Sequence[int], of: int) -> Tensor:
        """The share of a batch in the mean of L_f over the examples of a step."""
        from kvw.training.answers import answers

        rows = self._trainee.rows(self._items, batch)
        return self._forgetting(answers(self._trainee.model, self._changed(rows)), rows) / of

    def _changed(self, rows: Rows) -> dict[str, Tensor]:
        from kvw.methods.steering.perturbation import PIXELS

        return rows.batch if self._adversary is None else {**rows.batch, PIXELS: self._adversary.pixels(rows)}

    def _forgetting(self, said: Answers, rows: Rows) -> Tensor:
        """Sum over the rows of L_f."""
        from torch.nn.functional import softplus

        from kvw.training.losses import negative_preference

        places = list(rows.indices)
        if self._reference is not None:
            return negative_preference(said.log_likelihoods - self._reference[places], self._settings.beta).sum()
        return softplus(largest_logits(said, self._known.tokens[places, :1])).sum()


def auvic(trainee: Trainee, settings: AuvicSettings) -> Objective:
    """min over the tower, max over the generator, of L_f + lambda L_p + beta L_c; see :class:`AuvicSettings`.

    L_f = -log(1 - sigmoid(max z_T)) on the changed picture x', with z_T the logit of the concept's token at positions
    that predict the answer; L_p = sum_i w_i BCE(max z_i, sigmoid(max z_i before)) over the anchors i;
    L_c = KL(p(. | x) || p(. | x')), mean over these positions. The generator only raises L_f.

    Source: arXiv 2511.11299, from notes of it; what they leave open is ours.

    Raises:
        UserError: No forget example shows a picture, no such maps are trained, or there are no anchors.
    """
    from kvw.data import prepare
    from kvw.methods.gradient.disguises import in_disguise
    from kvw.training.objective import Objective, Term

    shown = _pictured([item.example for item in trainee.forget])
    portraits = [item.example.images[0] for item in trainee.retain if item.image_count == 1]
    made = in_disguise(shown, portraits, disguises=settings.disguises, group=settings.group)
    items = prepare(made, trainee.processor, trainee.model.config)
    _only(trainee, settings.maps)
    game = Game(trainee, items, settings)
    return Objective(
        forget=Term(game.loss, per="example"),
        retain=None,
        examples=items,
        before_step=game.before_step,
        beside=game.beside,
    )


def _pictured(examples: Sequence[Example]) -> list[Example]:
    found = [one for one in examples if one.images]
    if not found:
        raise UserError(
            "AUVIC changes how pictures are seen.",
            found="a forget set without pictures",
            do="give forget questions with pictures, or take another method",
        )
    return found


def _only(trainee: Trainee, maps: Sequence[str]) -> None:
    """Train nothing but the linear maps of these names."""
    modules = {name.partition(".lora_")[0].removesuffix(".weight").removesuffix(".bias") for name in trainee.parameters}
    chosen = sorted(name for name in modules if name.rpartition(".")[2] in maps)
    if not maps:
        return
    if not chosen:
        raise UserError(
            "No such map is trained.",
            found=", ".join(sorted({name.rpartition(".")[2] for name in modules})),
            do="set maps to some of these, or to none for all",
        )
    trainee.only(chosen)


def _concept_tokens(trainee: Trainee, items: Sequence[Prepared], settings: AuvicSettings) -> list[int]:
    """Of ``answer``: the first token of the subject's name in the answer, or else of its first word that tells."""
    from kvw.data.telling import telling_tokens, token_starts, tokens_in
    from kvw.folding import placed_words, words

    processor = trainee.processor
    if settings.concept == "name":
        return [first_token(processor.tokenizer, item.example.subject or item.example.answer) for item in items]
    found = []
    for item, telling in zip(items, telling_tokens(items, processor), strict=True):
        starts, text = token_starts(item, processor)
        named = {*words(item.example.subject or "")}
        spans = [(start, end) for word, start, end in placed_words(text) if word in named]
        found.append(item.answer_ids[(tokens_in(spans, starts, text) or telling)[0]])
    return found


def _mean_embedding(table: Tensor, tokenizer: Any, name: str) -> Tensor:
    ids = tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
    mean: Tensor = table.detach()[list(ids)].float().mean(0)
    return mean


class Auvic(GradientMethod):
    """Trains the vision tower unless told otherwise, as the paper does."""

    firmness = (
        "notes of the paper; weights, rates, temperatures and numbers of anchors were not given, code not at hand"
    )
    training = MappingProxyType(
        {
            "parts": ("vision",),
            "lora": {"rank": 32, "alpha": 32.0},
            "learning_rate": 1e-4,
            "epochs": 5,
            "schedule": "constant",
        }
    )

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: TrainedSettings) -> None:
        """Whether there is something to see."""
        super().check(loaded, forget, settings)
        _pictured(forget)

    def announce(self, loaded: LoadedModel, forget: Sequence[Prepared], settings: TrainedSettings) -> list[str]:
        """What a change of the tower does not reach."""
        blind = sum(not item.image_count for item in forget)
        told = f"{blind} of {len(forget)} forget questions show no picture: a change of how pictures are seen leaves "
        return [*super().announce(loaded, forget, settings), *([f"{told}their answers as they are."] if blind else [])]


METHOD = Auvic("auvic", AuvicSettings, auvic)
