"""A model behind a server under attack: by what it says, since a server shows nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kvw.edits.edit import package_versions
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.journal import Journal
from kvw.evaluation.records import Reply
from kvw.measuring.fingerprint import digest, example_digest
from kvw.progress import Progress, Reporter
from kvw.records.audit import Found
from kvw.records.run import CostPart, ModelPart
from kvw.runs.audit.asking import drawn, gathered, tries_of
from kvw.runs.audit.attacks import ATTACKS
from kvw.runs.audit.invented import about_nobody
from kvw.runs.audit.models import ABOUT, Role
from kvw.runs.audit.prompts import prompts_of
from kvw.runs.audit.questions import Questions
from kvw.runs.audit.request import AuditRequest, Served
from kvw.runs.costs import Stopwatch


@dataclass(frozen=True)
class ServedModel:
    """One model of a server.

    Args:
        served: The server, and what it calls the model.
        request: Says how much is asked.
    """

    served: Served
    request: AuditRequest

    def endpoint(self, temperature: float = 0.0) -> EndpointModel:
        """The model, to be asked greedily or by drawing."""
        return EndpointModel(
            self.served.url,
            self.served.model,
            thought_tokens=self.served.thought_tokens,
            temperature=temperature,
        )

    def part(self) -> ModelPart:
        """What the record says of it.

        Raises:
            UserError: The server or the model is not there.
        """
        endpoint = self.endpoint()
        endpoint.check()
        name = f"{endpoint.model} at {urlsplit(self.served.url).netloc}"
        return ModelPart(name=name, revision="", fingerprint="", model_type="", dtype="", parameters=0)

    def attacked(self, name: str, questions: Questions, journal: Journal, progress: Progress) -> tuple[Found, int]:
        """One attack.

        Returns:
            What it found, and how many of its prompts the server gave no answer to. They count as not found.
        """
        longest = self.request.max_new_tokens
        if ATTACKS[name].kind == "samples":
            endpoint, replies = self.endpoint(temperature=1.0), list[list[Reply]]()
            for number in range(self.request.samples):
                replies.append(endpoint.answers(questions.examples, max_new_tokens=longest))
                progress(number + 1, self.request.samples)
            texts = [[one.text or "" for one in several] for several in zip(*replies, strict=True)]
            failed = sum(one.error is not None for several in replies for one in several)
            return gathered(drawn(questions, texts)), failed
        asked = prompts_of(name, questions)
        examples = [one.example for one in asked]
        answers = self.endpoint().answers(examples, max_new_tokens=longest, journal=journal, progress=progress)
        failed = sum(one.error is not None for one in answers)
        return gathered(tries_of(asked, [one.text or "" for one in answers], questions)), failed

    def journal(self, name: str, questions: Questions) -> Journal:
        """Keeps answers until the audit is complete, no longer: a server can have other weights any time."""
        return Journal(
            {
                "url": digest(self.served.url),
                "model": digest(self.served.model, self.served.thought_tokens),
                "attack": name,
                "questions": digest([example_digest(one) for one in (*questions.examples, *questions.others)]),
                "longest answer": str(self.request.max_new_tokens),
                "versions": digest(package_versions()),
            }
        )


def served_results(
    request: AuditRequest,
    served: Served,
    questions: Questions,
    left_out: dict[str, str],
    watch: Stopwatch,
    reporter: Reporter,
) -> Iterator[tuple[str, dict[Role, Found]]]:
    """Every attack on the served model, on the one before it, and on questions about nobody.

    Args:
        request: What to do.
        served: The server.
        questions: What is asked.
        left_out: Attacks that are not made.
        watch: Told of stages.
        reporter: Told of prompts without an answer.
    """
    models: dict[Role, tuple[ServedModel, Questions]] = {"now": (ServedModel(served, request), questions)}
    if served.original is not None:
        models["original"] = (ServedModel(replace(served, model=served.original), request), questions)
    nobody = about_nobody(questions)
    if nobody is not None:
        models["floor"] = (models.get("original", models["now"])[0], nobody)
    journals, unanswered = [], 0
    for name in (one for one in request.attacks if one not in left_out):
        found: dict[Role, Found] = {}
        for role, (model, asked) in models.items():
            with watch.stage(f"{name} on {ABOUT[role]}") as progress, model.journal(name, asked) as journal:
                found[role], failed = model.attacked(name, asked, journal, progress)
            journals.append(journal)
            unanswered += failed
        yield name, found
    if unanswered:
        reporter.warn(f"The server gave no answer to {unanswered} prompts; they count as if nothing came back.")
    for journal in journals:
        journal.discard()


def served_costs(watch: Stopwatch) -> CostPart:
    """The time of an audit that loaded no model."""
    return CostPart(device="a server", seconds=watch.seconds, peak_memory_bytes={}, model_bytes=0)
