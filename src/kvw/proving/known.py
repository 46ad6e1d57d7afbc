"""Which facts a model knows."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from kvw.cache import cache_directory
from kvw.checked import read_checked, write_checked
from kvw.data import Prepared, prepare
from kvw.data.rendering import Processor
from kvw.edits.edit import package_versions
from kvw.errors import UserError
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.measuring.fingerprint import digest, examples_digest, processor_parts, weights_digest
from kvw.models.loading import Checkpoint, load_model, load_processor
from kvw.progress import SILENT, Reporter
from kvw.proving.facts import Fact, facts

FEWEST_ASKED, FEWEST_HELD_OUT = 3, 1
"""A fact is known if at least three of the four ways to ask, and one of the two that are held out, bring it."""

logger = logging.getLogger(__name__)


def known_facts(
    checkpoint: Checkpoint, reporter: Reporter = SILENT, candidates: Sequence[Fact] | None = None
) -> tuple[Fact, ...]:
    """The facts that a model knows, in their order; kept in the cache directory.

    A question brings a fact if, teacher-forced on the sentence that answers it, the model's first choice is right at
    every token of the fact. A fact is known if at least three of its four ways to ask bring it and at least one of the
    two that are held out. Facts that can no longer be known are not asked for any further.

    Args:
        checkpoint: The model; it is loaded only if the cache does not hold the result.
        reporter: Told of the passes.
        candidates: The facts to look at; None for all that are shipped.

    Raises:
        UserError: The model cannot be loaded or asked.
    """
    candidates = facts() if candidates is None else candidates
    processor = load_processor(checkpoint)
    fingerprint = {
        "model weights": weights_digest(checkpoint.folder),
        "model configuration": digest((checkpoint.folder / "config.json").read_text("utf-8")),
        "data": examples_digest(
            example for fact in candidates for example in fact.examples((*fact.domain.asked, *fact.domain.held_out))
        ),
        **processor_parts(processor),
        "versions": digest(package_versions()),
        "rule": f"{FEWEST_ASKED} asked, {FEWEST_HELD_OUT} held out",
    }
    file = cache_directory() / "known" / f"{digest(fingerprint)}.json"
    content = read_checked(file)
    if content is None:
        found = _find(checkpoint, processor, candidates, fingerprint, reporter)
        content = json.dumps(found).encode("utf-8")
        try:
            write_checked(file, content)
        except UserError as error:
            logger.warning("the facts that the model knows could not be kept for the next run: %s", error)
    places = {(domain, subject) for domain, subject in json.loads(content)}
    return tuple(fact for fact in candidates if (fact.domain.name, fact.subject) in places)


def _find(
    checkpoint: Checkpoint,
    processor: Processor,
    candidates: Sequence[Fact],
    fingerprint: dict[str, str],
    reporter: Reporter,
) -> list[tuple[str, str]]:
    """Domain and subject of each fact that is known."""
    with reporter.stage("loading the model"):
        model = load_model(checkpoint)
    left = list(candidates)
    # Scores are kept by their question, so that they are there after other facts have been added.
    kept = {part: found for part, found in fingerprint.items() if part not in ("data", "rule")}
    for kind, fewest in (("held_out", FEWEST_HELD_OUT), ("asked", FEWEST_ASKED)):
        ways = len(getattr(left[0].domain, kind)) if left else 0
        brought = dict.fromkeys(left, 0)
        for way in range(ways):
            prepared = prepare(
                [fact.examples([getattr(fact.domain, kind)[way]])[0] for fact in left], processor, model.config
            )
            title = f"asking for {len(left)} facts ({'held out' if kind == 'held_out' else kind}, way {way + 1})"
            with reporter.stage(title) as progress, Journal(kept) as journal:
                scores = token_scores(model, processor, prepared, journal=journal, progress=progress)
            for fact, item, score in zip(left, prepared, scores, strict=True):
                brought[fact] += brings(fact.name, item, score, processor)
            left = [fact for fact in left if brought[fact] + ways - way - 1 >= fewest]
    return [(fact.domain.name, fact.subject) for fact in left]


def brings(name: str, item: Prepared, score: TokenScores, processor: Processor) -> bool:
    """Whether a model, teacher-forced, chooses every token of a fact first.

    Args:
        name: The fact.
        item: A question with the answer that holds it.
        score: What the model makes of this answer.
        processor: The model's.

    Raises:
        UserError: The answer does not hold the fact.
    """
    return all(score.is_argmax[place] for place in fact_tokens(name, item.answer_ids, processor))


def fact_tokens(name: str, answer_ids: Sequence[int], processor: Processor) -> range:
    """Which of the tokens of an answer, at whose end a name stands, belong to the name.

    Args:
        name: The name.
        answer_ids: Token ids of the answer.
        processor: Whose tokens they are.

    Raises:
        UserError: The answer does not hold the name.
    """

    def holds(first: int, last: int) -> bool:
        return name in processor.tokenizer.decode(answer_ids[first:last])

    if not holds(0, len(answer_ids)):
        raise UserError("The answer does not hold the fact.", found=processor.tokenizer.decode(answer_ids), do=name)
    first = max(place for place in range(len(answer_ids)) if holds(place, len(answer_ids)))
    last = min(place for place in range(first + 1, len(answer_ids) + 1) if holds(first, place))
    return range(first, last)
