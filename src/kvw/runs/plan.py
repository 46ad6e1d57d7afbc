"""``--dry-run``: what was found, and one batch of the largest size through every stage."""

from __future__ import annotations

from kvw.edits.low_rank import MOST_OF_EACH
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.language import perplexity
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import answer_probabilities
from kvw.measuring.batch_sizing import token_budget
from kvw.methods.plan import MemoryPlan, MethodPlan, largest_batch, timed
from kvw.models.placement import describe_devices, execution_device
from kvw.models.saving import parameter_bytes
from kvw.progress import Reporter, remembering
from kvw.records.run import KNOWS_ENGLISH
from kvw.retain.answering import LONGEST_ANSWER
from kvw.retain.sources import stand_ins
from kvw.runs.choosing import parts_tried
from kvw.runs.costs import Stopwatch, peak_memory
from kvw.runs.erase import Job, check
from kvw.runs.material import asked_for, dealt_out
from kvw.runs.request import DataSets, EraseRequest
from kvw.runs.solving import choosing_stage, for_the_solve, refuse_nothing_kept
from kvw.selection.search import tries
from kvw.selection.splits import FORGET, HELD_OUT_FORGET
from kvw.strict import Strict

CANDIDATES = 12
"""Edits of one series that are scored while the strength is chosen: two bisections of up to 64 doses."""
IN_PART = 8
"""Further ones if directions are tried in part: two bisections of 11 parts."""


class Plan(Strict):
    """What a run would do, and how long it would take at the speed of one batch."""

    model: str
    model_type: str
    dtype: str
    device: str
    model_bytes: int
    peak_memory_bytes: dict[str, int]
    layers: tuple[int, int]
    layers_in_model: int
    examples: dict[str, int]
    pictures: dict[str, int]
    """Examples with a picture, of each split."""
    subjects: dict[str, int]
    """Different subjects of each split; 0 where none is named."""
    retain_left_out: int
    """Retain examples that the forget set is about or holds too; they are not in ``examples``."""
    longest_example: dict[str, int]
    """Tokens, images included."""
    seconds: dict[str, float]
    """Estimated seconds of each stage; an upper bound, since the largest batch was timed."""
    memory: MemoryPlan | None
    """What the method will hold beside the model, from methods that plan it."""
    warnings: list[str]


def dry_run(request: EraseRequest, reporter: Reporter, data: DataSets | None = None) -> Plan:
    """Check everything, then time the largest batch of every stage; nothing is written.

    Args:
        request: What would be done.
        reporter: Told of stages, notes and warnings.
        data: The data of the request, if they have been read already.

    Raises:
        UserError: Whatever the run itself would stop at.
    """
    with remembering(reporter) as told:
        job = check(request, Stopwatch(told), told, data)
    loaded = job.loaded
    with reporter.stage("one batch through every stage"):
        estimates = _estimates(job)
    lengths = {name: items for name, items in (("forget", job.forget), ("retain", job.retain)) if items}
    return Plan(
        model=str(loaded.checkpoint),
        model_type=loaded.model.config.model_type,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        device=describe_devices(loaded.model),
        model_bytes=parameter_bytes(loaded.model),
        peak_memory_bytes=peak_memory(loaded.model),
        layers=job.layers,
        layers_in_model=loaded.all_layers[1] + 1,
        examples=job.data.sizes,
        pictures={name: count.pictures for name, count in job.data.counts.items()},
        subjects={name: count.subjects for name, count in job.data.counts.items()},
        retain_left_out=job.data.left_out.count,
        longest_example={name: max(item.length for item in items) for name, items in lengths.items()},
        seconds=estimates.seconds,
        memory=estimates.memory,
        warnings=told.warnings,
    )


def _estimates(job: Job) -> MethodPlan:
    """The largest batch of every stage, timed, and what the method says of itself."""
    loaded, request = job.loaded, job.request
    model, processor = loaded.model, loaded.processor
    scored = sum(len(examples) for examples in job.data.scored.values())
    batch = largest_batch(job.forget, token_budget(execution_device(model)))
    generate_answers(model, processor, batch[:1], max_new_tokens=2)  # the first call of a model is always slower
    generating = timed(lambda: generate_answers(model, processor, batch, max_new_tokens=request.max_new_tokens))
    forcing = timed(lambda: answer_probabilities(model, processor, batch)) / len(batch)
    scoring = (generating / len(batch) + forcing) * scored
    speaks = _speaks(loaded)
    gathered = stand_ins(loaded, job.data.forget, **asked_for(job)) if speaks else []
    material = dealt_out(job.data, gathered, request, speaks=speaks)
    refuse_nothing_kept(job, material)
    solving = for_the_solve(job, material)
    questions = sum(len(source.examples) for source in gathered if source.name != "text")
    longer = max(1.0, LONGEST_ANSWER / request.max_new_tokens)
    judged = sum(map(len, material.judged.values()))
    series = len(parts_tried(request, range(job.layers[0], job.layers[1] + 1)))
    edits = (CANDIDATES * series if request.chooses else 1) if material.must_stay else 0
    forgetting = sum(len(material.judged.get(split, ())) for split in (FORGET, HELD_OUT_FORGET))
    thins = edits > 1 and request.made_by.scaling(request.settings) == "directions"
    edits += series * IN_PART if thins else 0
    thinning = series * tries(forgetting) * forgetting if thins else 0
    subjects = {example.subject_key for example in material.judged[FORGET]}
    if thins and 1 < len(subjects) <= MOST_OF_EACH:  # each is looked for by itself, too
        thinning += series * tries(forgetting) * forgetting
        edits += series * len(subjects)
    forget, retain = loaded.prepare(solving.data.forget), loaded.prepare(solving.data.retain)
    plan = request.made_by.plan(loaded, forget, retain, solving.request.settings)
    plan = plan or MethodPlan(seconds={})
    seconds = {
        "scoring the original model": scoring,
        "gathering what must stay": generating / len(batch) * longer * questions,
        **plan.seconds,
        choosing_stage(request): forcing * (judged * (1 + edits) + thinning),
        "scoring the unlearned model": scoring,
    }
    return MethodPlan(seconds={name: round(value, 1) for name, value in seconds.items()}, memory=plan.memory)


def _speaks(loaded: Loaded) -> bool:
    """Whether the model writes ordinary language, by the sentences that a run scores too."""
    try:
        return perplexity(loaded.model, loaded.processor) < KNOWS_ENGLISH
    except UserError:  # it cannot be asked in words alone
        return False
