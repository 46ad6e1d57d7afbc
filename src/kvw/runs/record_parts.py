"""What ``run.json`` says of the request, the model and the data: names, counts and salted digests, never an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.salt import salted
from kvw.measuring.source_state import checkpoint_digests
from kvw.records.run import AskedPart, DataPart, ForgetPart, ModelPart, RetainPart, SplitPart
from kvw.runs.counts import Count
from kvw.runs.material import Material
from kvw.runs.reporting import Classed
from kvw.runs.request import DataSets, EraseRequest
from kvw.runs.seen import seen_part


def asked_part(request: EraseRequest) -> AskedPart:
    """What was asked, beside the data and the settings of the method."""
    return AskedPart(
        keep=request.keep,
        retain=request.retain is not None,
        sources=list(request.sources),
        neighbours=request.neighbours is not None,
        write_damaged=request.write_damaged,
        quantise=request.quantise or "",
        template_options=dict(request.model.template_options),
    )


def model_part(loaded: Loaded) -> ModelPart:
    """The model that is edited."""
    return ModelPart(
        name=loaded.checkpoint.name,
        revision=loaded.checkpoint.revision,
        fingerprint=loaded.fingerprint,
        model_type=loaded.model.config.model_type,
        dtype=str(loaded.model.dtype).removeprefix("torch."),
        quantised=loaded.quantised,
        parameters=loaded.model.num_parameters(),
        files=checkpoint_digests(loaded.checkpoint.folder, loaded.digests),
    )


def split_part(data: DataSets, name: str, classed: Classed, material: Material) -> SplitPart:
    """The scores and kinds of answers of both models on one split, and how much of it had a part in making the edit."""
    return SplitPart(
        file=data.files[name],
        of=data.counts[name].examples,
        pictures=data.counts[name].pictures,
        subjects=data.counts[name].subjects,
        digest=salted(examples_digest(data.scored[name])),
        original=classed.evaluations["original"].summaries[name],
        unlearned=classed.evaluations["unlearned"].summaries[name],
        answers=classed.part(name),
        seen=seen_part(data.scored[name], data, material),
    )


def forget_part(data: DataSets) -> ForgetPart:
    """The forget set, and the files whose union it is."""
    several = data.forget_files if len(data.forget_files) > 1 else []
    whole = _described(data.files["forget"], data.forget)
    return ForgetPart(**whole, files=[DataPart(**_described(file.name, file.examples)) for file in several])


def _described(file: str, examples: Sequence[Example]) -> dict[str, Any]:
    """What a part says of any file: its name, counts and salted digest."""
    count = Count.of(examples)
    return {
        "file": file,
        "count": count.examples,
        "digest": salted(examples_digest(examples)),
        "pictures": count.pictures,
        "subjects": count.subjects,
    }


def retain_part(request: EraseRequest, data: DataSets) -> RetainPart | None:
    """The user's retain set without what was left out; None without one."""
    if data.retain_statistics is not None and request.retain is not None:
        digest = salted(data.retain_statistics.fingerprint["data"])
        return RetainPart(file=request.retain.name, count=None, digest=digest)
    if "retain" not in data.files:
        return None
    return RetainPart(
        **_described(data.files["retain"], data.retain),
        with_forget_answers=data.overlap.answers,
        with_forget_names=data.overlap.names,
        left_out_about_forgotten=data.left_out.about_forgotten,
        left_out_identical=data.left_out.identical,
    )
