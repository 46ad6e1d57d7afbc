"""``kvw evaluate``: scores of a model on a file, with and without an edit, or of a model behind a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kvw.data import read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.edits.edit import Edit, package_versions
from kvw.evaluation.answers import kept_answers, tell_kept
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.evaluation import evaluate as score
from kvw.evaluation.evaluation import evaluate_endpoint
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.records import MORE_THOUGHT, Evaluation
from kvw.files import write_text
from kvw.measuring.fingerprint import digest, examples_digest
from kvw.models.loading import Checkpoint
from kvw.models.quantised import Quantise
from kvw.plural import counted
from kvw.processes import current
from kvw.progress import Reporter
from kvw.records.samples import sample_lines
from kvw.runs.costs import Stopwatch
from kvw.runs.counts import Count, tell_windows
from kvw.runs.first_checks import check_samples_output
from kvw.runs.weights import check_weights


def evaluate(
    checkpoint: Checkpoint,
    data: Path,
    reporter: Reporter,
    *,
    reading: Reading = AS_IT_IS,
    edit: Edit | None = None,
    max_new_tokens: int = 50,
    samples: Path | None = None,
    other_weights: bool = False,
    device: str | None = None,
    quantise: Quantise | None = None,
) -> dict[str, Evaluation]:
    """Score a model on a data file.

    Answers and scores are kept in the cache directory as they come. A run with the same model, edit, data, settings and
    versions goes on with them.

    Returns:
        ``model``, or with an edit ``original`` and ``unlearned``: the evaluation, whose only split is named after the
        file.

    Raises:
        UserError: The data, the model or the edit cannot be used, or the edit was made on other weights and
            ``other_weights`` is off.
    """
    current().broadcast(lambda: check_samples_output(samples))
    examples = read_examples(data, reading)
    counted = Count.of(examples)
    reporter.note(f"{data.stem}: {counted}.")
    watch = Stopwatch(reporter)
    with watch.stage("loading the model"):
        loaded = Loaded.load(checkpoint, device, quantise=quantise)
        splits = {data.stem: loaded.in_windows(examples)}
        loaded.agree(splits[data.stem])
        loaded.prepare(splits[data.stem], max_new_tokens)
    tell_windows(data.stem, counted, splits[data.stem], reporter)
    if edit is not None:
        check_weights(edit, loaded.fingerprint, reporter, other_weights=other_weights)

    def scored(title: str, attached: Edit | None) -> Evaluation:
        with kept_answers(loaded, splits[data.stem], max_new_tokens, attached) as journal:
            tell_kept(journal, reporter)
            with watch.stage(title) as progress:
                return score(
                    loaded.model,
                    loaded.processor,
                    splits,
                    max_new_tokens=max_new_tokens,
                    journal=journal,
                    progress=progress,
                )

    results = {"original" if edit else "model": scored("scoring the model as it is", None)}
    if edit is not None:
        with edit.attach(loaded.model):
            results["unlearned"] = scored("scoring the unlearned model", edit)
    _write_samples(samples, results)
    return results


def evaluate_served(
    endpoint: EndpointModel,
    data: Path,
    reporter: Reporter,
    *,
    reading: Reading = AS_IT_IS,
    max_new_tokens: int = 50,
    samples: Path | None = None,
) -> dict[str, Evaluation]:
    """Score a model behind a server on a data file.

    Answers are kept in the cache directory as they come, for a run that asks the same model at the same URL the same
    questions. Nobody can tell from outside whether a server has other weights by now, so they are removed when all
    questions have been answered.

    Returns:
        ``model``: the evaluation, whose only split is named after the file; probabilities are None.

    Raises:
        UserError: The data or the server cannot be used.
    """
    check_samples_output(samples)
    examples = read_examples(data, reading)
    reporter.note(f"{data.stem}: {Count.of(examples)}.")
    watch = Stopwatch(reporter)
    with watch.stage("looking for the server"):
        endpoint.check()
    fingerprint = {
        "url": digest(endpoint.url),
        "model": digest(endpoint.model),
        "data": examples_digest(examples),
        "longest answer": str(max_new_tokens),
        "thought tokens": str(endpoint.thought_tokens),
        "versions": digest(package_versions()),
    }
    with Journal(fingerprint) as journal:
        tell_kept(journal, reporter, f"; if the server has another model by now, delete {journal.path}")
        with watch.stage(f"asking {endpoint.model}") as progress:
            evaluation = evaluate_endpoint(
                endpoint, {data.stem: examples}, max_new_tokens=max_new_tokens, journal=journal, progress=progress
            )
        results = {"model": evaluation}
        _write_samples(samples, results)
        if not any(summary.failed or summary.cut_off for summary in evaluation.summaries.values()):
            journal.discard()
    _tell_unanswered(endpoint, evaluation, reporter)
    return results


def _tell_unanswered(endpoint: EndpointModel, found: Evaluation, reporter: Reporter) -> None:
    cut = [record.identifier for record in found.records if record.cut_off]
    if cut:
        reporter.warn(
            f"{len(cut)} of {len(found.records)} answers were cut off inside the model's thought, the first one that "
            f"to {cut[0]}. They are not in the scores; {MORE_THOUGHT}."
        )
    elif endpoint.at_limit > endpoint.asked / 2:
        reporter.warn(
            f"{endpoint.at_limit} of {endpoint.asked} answers are as long as was allowed. Where the model thinks first "
            f"and the server does not say so, they are thoughts and count as wrong; {MORE_THOUGHT}."
        )
    errors = [f"{record.identifier}: {record.error}" for record in found.records if record.error and not record.cut_off]
    if errors:
        reporter.warn(
            f"{counted(len(errors), 'example')} failed, the first one {errors[0]}. The same command asks them again."
        )


def _write_samples(samples: Path | None, results: Mapping[str, Evaluation]) -> None:
    if samples is not None and current().is_first:
        write_text(samples, "".join(sample_lines(results)))
