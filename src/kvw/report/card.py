"""The model card of an edited model: the source's README and a section on what was removed from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK, RepoCard

from kvw.edits.edit import EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.methods.registry import DEFAULT, METHODS
from kvw.runs.record import SplitPart

BEGIN = "<!-- kvw: an edit of this model -->"
END = "<!-- kvw: end of the edit -->"
EMPTY_FRONT_MATTER = "---\n{}\n---\n"
TAGS = ("unlearning", "kvw")
METRICS = {"exact": "exact match", "substring": "contains", "rouge_l_f": "ROUGE-L", "probability": "P(answer)"}


def model_card(
    metadata: EditMetadata,
    layers: Sequence[LayerSummary],
    *,
    scores: Mapping[str, SplitPart] | None = None,
    source: str | None = None,
) -> str:
    """The README of a model that an edit was written into.

    The source's README stays as it is, with one section more at its end; its front matter gets tags and, if the edit
    was made on a model of the hub, ``base_model``, and loses ``model-index``, because those scores are the source's.
    A front matter that is no valid YAML stays in the text, below a new one.

    Args:
        metadata: Of the edit.
        layers: What the edit describes of itself.
        scores: Of a run record, by split, where they are known.
        source: Text of the source's README, if it has one.

    Returns:
        Markdown with front matter. It holds digests and counts of the data and nothing else of it.
    """
    card = _card(source or "")
    tags = card.data.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    card.data["tags"] = tags + [tag for tag in TAGS if tag not in tags]
    if (hub_id := _hub_id(metadata.base_model)) is not None:
        card.data["base_model"] = hub_id
    card.data.pop("model-index")
    above = card.text.rstrip() or f"# {_name(metadata)}, edited"
    card.text = f"{above}\n\n" + "\n".join(_section(metadata, layers, scores or {}))
    return str(card)


def _card(text: str) -> RepoCard:
    """A card that keeps every key of the front matter as it is, known to the hub's library or not."""
    text = text.removeprefix("\ufeff")
    empty = RepoCard(EMPTY_FRONT_MATTER + text)
    if not REGEX_YAML_BLOCK.search(text):
        return empty
    try:
        return RepoCard(text)
    except (yaml.YAMLError, ValueError, TypeError):  # no YAML, no mapping, keys that are no text
        return empty


def _section(metadata: EditMetadata, layers: Sequence[LayerSummary], scores: Mapping[str, SplitPart]) -> list[str]:
    return [
        BEGIN,
        "## What was removed from this model",
        "",
        f"Knowledge was removed from the weights of {_name(metadata)} with kvw, without training.",
        "Only value matrices of the language decoder were changed; every other tensor is the source's, byte for byte.",
        "",
        *_data(metadata),
        "",
        "### How",
        "",
        *_how(metadata, layers),
        "",
        "### Scores before and after",
        "",
        *_scores(scores),
        "",
        "### How to repeat it",
        "",
        *_commands(metadata),
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in metadata.versions.items()) + ".",
        "",
        END,
        "",
    ]


def _data(metadata: EditMetadata) -> list[str]:
    rows = [("forget", metadata.forget_count, metadata.forget_digest)]
    rows += [("retain", metadata.retain_count, metadata.retain_digest)]
    return [
        "| set | examples | SHA-256 of the examples, in any order |",
        "|---|---|---|",
        # A retain set that came as a statistics file has a digest and no count.
        *(f"| {name} | {count or 'not known'} | {digest or 'not known'} |" for name, count, digest in rows),
    ]


def _how(metadata: EditMetadata, layers: Sequence[LayerSummary]) -> list[str]:
    lines = [f"Method `{metadata.method or 'not known'}` with the settings", ""]
    lines += ["```json", json.dumps(metadata.settings, indent=2), "```", ""]
    if not layers:
        return [*lines, "The edit changes no value matrix."]
    weakened, vectors = sum(layer.weakened for layer in layers), sum(layer.vectors for layer in layers)
    strongest = max(layers, key=lambda layer: layer.total_exponent)
    low_rank = strongest.rank is not None
    what = f"{weakened:,} directions" if low_rank else f"{weakened:,} of {vectors:,} knowledge vectors"
    return [
        *lines,
        f"{what} in {len(layers)} value matrices "
        f"({layers[0].key} to {layers[-1].key}) were weakened, most in {strongest.key} "
        f"(mean gate {strongest.mean_gate:.3f}, smallest {strongest.smallest_gate:.3g}).",
    ]


def _scores(scores: Mapping[str, SplitPart]) -> list[str]:
    if not scores:
        return ["Not known: this model was written from an edit file without the record of its run."]
    lines = ["| split | n | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 2) + "|"]
    for name, split in scores.items():
        before, after = split.original, split.unlearned
        cells = [f"{getattr(before, metric):.3f} → {getattr(after, metric):.3f}" for metric in METRICS]
        lines.append(f"| {_cell(name)} | {before.count} of {split.of} | " + " | ".join(cells) + " |")
    return lines


def _commands(metadata: EditMetadata) -> list[str]:
    base = metadata.base_model or "MODEL"
    chosen = options(metadata.settings, metadata.method or "kvw")
    lines = ["```", f"kvw erase {base} --forget FORGET --retain RETAIN --out run {chosen}".rstrip()]
    lines += [f"kvw apply run/edit.safetensors {base} --out model", "```"]
    if metadata.model_fingerprint:
        lines += ["", f"SHA-256 over the weights that the edit was made on: {metadata.model_fingerprint}."]
    return lines


def options(settings: Mapping[str, Any], method: str = "kvw") -> str:
    """Settings of the method as options of ``kvw erase``; what the command has no option for is left out."""
    if method not in METHODS:
        return ""
    found = [f"--method {method}"] if method != DEFAULT else []
    for name, value, default in _entries(METHODS[method].settings(), settings):
        option = name.replace("_", "-")
        if value is None:
            continue
        if name == "layers":
            found.append(f"--layers {value[0]}:{value[1]}")
        elif method != "kvw":
            found += [f"--set {name}={_quoted(value)}"] if value != default else []
        elif isinstance(value, bool):
            # Both switches change something at one of their two values only.
            found += [f"--{'' if value else 'no-'}{option}"] if value != default else []
        else:
            found.append(f"--{option} {value}")
    return " ".join(found)


def _entries(defaults: Any, settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name, recorded value and default of every setting, those of groups one by one."""
    for field in fields(defaults):
        default, value = getattr(defaults, field.name), settings.get(field.name)
        if is_dataclass(default) and isinstance(value, Mapping):
            yield from _entries(default, value, f"{above}{field.name}.")
        else:
            yield above + field.name, value, default


def _quoted(value: Any) -> str:
    return shlex.quote(str(value))


def _name(metadata: EditMetadata) -> str:
    return f"`{metadata.base_model}`" if metadata.base_model else "another model"


def _hub_id(name: str) -> str | None:
    """The repository of ``owner/name`` or ``owner/name@revision``; None for the name of a local folder."""
    repository = name.partition("@")[0]
    return repository if "/" in repository else None


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
