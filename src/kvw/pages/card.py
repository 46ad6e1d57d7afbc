"""The model card of an edited model: the source's README and a section on what was removed from it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK, RepoCard

from kvw.edits.edit import EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.evaluation.records import METRICS
from kvw.methods.describing import acting
from kvw.methods.registry import DEFAULT, get_method, installed
from kvw.printable import printable
from kvw.records.run import AskedPart, LanguagePart, SelectionPart, SplitPart
from kvw.retain import KEEP, SOURCES

BEGIN = "<!-- kvw: an edit of this model -->"
END = "<!-- kvw: end of the edit -->"
SCORES = "### Scores before and after"
EMPTY_FRONT_MATTER = "---\n{}\n---\n"
TAGS = ("unlearning", "kvw")
CONFIDENTIAL = (
    "The edit file, the samples, the record and the report of the run (`edit.safetensors`, `samples.jsonl`, "
    "`run.json`, `report.html`) describe what was removed. They are confidential: do not publish them with this model."
)
LONGEST_SHOWN = 300


def model_card(
    metadata: EditMetadata,
    layers: Sequence[LayerSummary],
    *,
    asked: AskedPart | None = None,
    scores: Mapping[str, SplitPart] | None = None,
    selection: SelectionPart | None = None,
    language: LanguagePart | None = None,
    source: str | None = None,
    other_weights: str = "",
) -> str:
    """The README of a model that an edit was written into.

    The source's README stays as it is, with one section more at its end; its front matter gets tags and, if the edit
    was made on a model of the hub, ``base_model``, and loses ``model-index``, because those scores are the source's.
    A front matter that is no valid YAML stays in the text, below a new one.

    Args:
        metadata: Metadata of the edit.
        layers: What the edit describes of itself.
        asked: Of a run record: what the run was asked, for the command that repeats it.
        scores: Scores of a run record, by split, where they are known.
        selection: Of a run record: how strong the edit is and what it keeps.
        language: Whether it is still a language model, where that was looked at.
        source: Text of the source's README, if it has one.
        other_weights: SHA-256 of the weights that the edit was written into, if it was made on others. Then neither it
            nor an earlier edit has scores.

    Returns:
        Markdown with front matter. It holds salted digests and counts of the data and nothing else of it. Whatever the
        edit and the record say is shown as it is and never read as Markdown, HTML or YAML: they may come from others.
    """
    card = _card(source or "")
    tags = card.data.get("tags") or []
    tags = [tags] if isinstance(tags, str) else list(tags)
    card.data["tags"] = tags + [tag for tag in TAGS if tag not in tags]
    if (hub_id := _hub_id(metadata.base_model)) is not None:
        card.data["base_model"] = hub_id
    card.data.pop("model-index")
    above = card.text.rstrip() or f"# {_name(metadata)}, edited"
    above = _without_scores(above) if other_weights else above
    section = _section(metadata, layers, asked, scores or {}, selection, language, other_weights)
    card.text = f"{above}\n\n" + "\n".join(section)
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


def _section(
    metadata: EditMetadata,
    layers: Sequence[LayerSummary],
    asked: AskedPart | None,
    scores: Mapping[str, SplitPart],
    selection: SelectionPart | None,
    language: LanguagePart | None,
    other_weights: str,
) -> list[str]:
    known = None if other_weights else selection
    return [
        BEGIN,
        *_what(metadata),
        "",
        *_data(metadata),
        "",
        CONFIDENTIAL,
        "",
        "### How",
        "",
        *_how(metadata, layers),
        "",
        SCORES,
        "",
        *_scores(scores, other_weights),
        "",
        *([_tamed(known.sentence), ""] if known else []),
        *_language(language),
        "",
        "### How to repeat it",
        "",
        *_commands(metadata, asked, other_weights),
        "",
        f"Versions: {', '.join(code(' '.join(entry)) for entry in sorted(metadata.versions.items()))}.",
        "",
        END,
        "",
    ]


def _what(metadata: EditMetadata) -> list[str]:
    """What was done to the model; an inverse or an adapter that amplifies removes nothing."""
    if metadata.undoes or metadata.amplifies:
        title, what = "What was done to this model", "An edit that strengthens was written into the weights of"
    else:
        title, what = "What was removed from this model", "Knowledge was removed from the weights of"
    return [
        f"## {title}",
        "",
        f"{what} {_name(metadata)} with kvw, without training.",
        "Only value matrices of the language decoder were changed; every other tensor is the source's, byte for byte.",
    ]


def _data(metadata: EditMetadata) -> list[str]:
    rows = [("forget", metadata.forget_count, metadata.forget_digest)]
    rows += [("retain", metadata.retain_count, metadata.retain_digest)]
    return [
        "| set | examples | salted digest of the examples, in any order |",
        "|---|---|---|",
        # A retain set that came as a statistics file has a digest and no count.
        *(f"| {name} | {count or 'not known'} | {_cell(digest) or 'not known'} |" for name, count, digest in rows),
    ]


def _how(metadata: EditMetadata, layers: Sequence[LayerSummary]) -> list[str]:
    lines = [f"Method {code(metadata.method) or 'not known'} with the settings", ""]
    lines += ["```json", _json(acting(metadata.settings, metadata.method)), "```", ""]
    if not layers:
        return [*lines, "The edit changes no value matrix."]
    if any(layer.trained for layer in layers):
        return [
            *lines,
            f"{sum(layer.trained or 0 for layer in layers):,} numbers in {len(layers)} weights were trained.",
        ]
    weakened, vectors = sum(layer.weakened for layer in layers), sum(layer.vectors for layer in layers)
    strongest = max(layers, key=lambda layer: layer.total_exponent)
    low_rank = strongest.rank is not None
    what = f"{weakened:,} directions" if low_rank else f"{weakened:,} of {vectors:,} knowledge vectors"
    strengthened = sum(layer.strengthened for layer in layers)
    also = f" {strengthened:,} were strengthened." if strengthened else ""
    return [
        *lines,
        f"{what} in {len(layers)} value matrices "
        f"({layers[0].key} to {layers[-1].key}) were weakened, most in {strongest.key} "
        f"(mean gate {strongest.mean_gate:.3f}, smallest {strongest.smallest_gate:.3g}).{also}",
    ]


def _scores(scores: Mapping[str, SplitPart], other_weights: str) -> list[str]:
    if other_weights:
        return ["Not known: the edit was made on other weights, and what was measured there is not true of this model."]
    if not scores:
        return ["Not known: this model was written from an edit file without the record of its run."]
    lines = ["| split | n | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 2) + "|"]
    for name, split in scores.items():
        before, after = split.original, split.unlearned
        cells = [f"{getattr(before, metric):.3f} → {getattr(after, metric):.3f}" for metric in METRICS]
        lines.append(f"| {_cell(name)} | {before.count} of {split.of} | " + " | ".join(cells) + " |")
    return lines


def _without_scores(text: str) -> str:
    """A card whose earlier edits have no scores: what was measured there is not true of these weights either."""
    said = "Not known: another edit was written into these weights afterwards, see below."

    def edit(found: re.Match[str]) -> str:
        return re.sub(rf"({SCORES}\n\n).*?(?=\n### |\Z)", rf"\g<1>{said}\n", found[0], flags=re.DOTALL)

    return re.sub(f"{BEGIN}.*?{END}", edit, text, flags=re.DOTALL)


def _language(language: LanguagePart | None) -> list[str]:
    if language is None:
        return ["Whether it still writes ordinary language was not looked at."]
    return [*(f"**Warning:** {damage}\n" for damage in language.damage), language.sentence]


def _commands(metadata: EditMetadata, asked: AskedPart | None, other_weights: str) -> list[str]:
    base = _quoted(metadata.base_model or "MODEL")
    lines = ["```", *([] if metadata.parents else [_erase(base, metadata, asked)])]
    lines += [
        f"kvw apply run/edit.safetensors {base} --out model" + (" --other-weights" if other_weights else ""),
        "```",
    ]
    if not metadata.parents and asked is None:
        lines += ["", "What else the run was asked is not known: the edit file came without the record of its run."]
    if not metadata.parents and _from_python_alone(metadata):
        python = "kvw.runs.request.EraseRequest(choose=False)"
        lines += ["", f"Its strength was not chosen, which is asked for from Python: `{python}`."]
    if metadata.model_fingerprint:
        lines += ["", f"SHA-256 over the weights that the edit was made on: {code(metadata.model_fingerprint)}."]
    if other_weights:
        lines += ["", f"SHA-256 over the other weights that it was written into: {code(other_weights)}."]
    return lines


def _erase(base: str, metadata: EditMetadata, asked: AskedPart | None) -> str:
    """The command that makes the edit again."""
    words = ["kvw erase", base, "--forget FORGET"]
    words += ["--retain RETAIN"] if asked is None or asked.retain else []
    words += ["--out run", options(metadata.settings, metadata.method)]
    words += [f"--value-matrices {_quoted(metadata.value_matrices)}"] if metadata.value_matrices else []
    if asked is not None:
        words += [f"--keep {asked.keep}"] if asked.keep != KEEP else []
        words += ["--neighbours NEIGHBOURS"] if asked.neighbours else []
        if tuple(asked.sources) != SOURCES:
            words.append(f"--retain-sources {_quoted(','.join(asked.sources) or 'none')}")
        words += ["--write-damaged"] if asked.write_damaged else []
        words += [f"--quantise {_quoted(asked.quantise)}"] if asked.quantise else []
        words += [
            f"--template-option {_quoted(f'{name}={json.dumps(value)}')}"
            for name, value in asked.template_options.items()
        ]
    return " ".join(word for word in words if word)


def _from_python_alone(metadata: EditMetadata) -> bool:
    """Whether the strength was left as it was found although no option of the method can say so."""
    known = metadata.method in installed()
    return known and not get_method(metadata.method).dose and "chosen" not in metadata.settings


def options(settings: Mapping[str, Any], method: str) -> str:
    """Settings of the method as options of ``kvw erase``; what the command has no option for is left out.

    If the strength was not chosen, there is a setting among them that fixes it, be it at its default.
    """
    if method not in installed():  # the name of a file in an edit of others is no reason to run that file
        return f"--method {_quoted(method)}" if method else ""
    made_by = get_method(method)
    words = [f"--method {method}"] if method != DEFAULT else []
    chosen, dose = "chosen" in settings, made_by.dose
    fixing = () if chosen else dose[:1]
    defaults, given = (made_by.as_given(one) for one in (asdict(made_by.read({})), settings))
    for name, value, default in _entries(defaults, given):
        option = name.replace("_", "-")
        if name == "layers" and value is not None:
            words.append(f"--layers {_quoted(':'.join(map(str, value)) if isinstance(value, Sequence) else value)}")
        elif name in made_by.options and isinstance(value, bool):
            # Both switches change something at one of their two values only.
            words += [f"--{'' if value else 'no-'}{option}"] if value != default else []
        elif name in made_by.options and value is not None:
            words.append(f"--{option} {_quoted(value)}")
        elif value != default or name in fixing:
            words.append(f"--set {name}={_quoted(_as_text(value))}")
    if chosen and any(
        one.partition(" ")[0] in {"--set", *(f"--{name.replace('_', '-')}" for name in dose)} for one in words
    ):
        words.append("--strength auto")  # or else settings that say how strong an edit is would fix it
    return " ".join(words)


def _entries(
    defaults: Mapping[str, Any], settings: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and default of every setting that is recorded, those of groups one by one."""
    for name in {**defaults, **settings} if above else defaults:  # a group may be left out by default
        if name not in settings:
            continue
        default, value = defaults.get(name), settings[name]
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            yield from _entries(default, value, f"{above}{name}.")
        else:
            yield above + name, tuple(value) if isinstance(value, list) else value, default


def _as_text(value: Any) -> str:
    """As ``--set`` reads it."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        several = list(map(str, value))
        return json.dumps(several) if any("," in one for one in several) else ",".join(several)
    return str(value)


def _quoted(value: Any) -> str:
    """One word of a shell, on one line, that ends no block of code."""
    return shlex.quote(_tamed(str(value)).replace("`", "'"))


def _json(settings: Mapping[str, Any]) -> str:
    """JSON that means the same and has nothing in it that Markdown or HTML would see."""
    text = json.dumps(settings, indent=2, sort_keys=True)
    return re.sub(r"[`<>&]|\{(?=[{%#])", lambda found: f"\\u{ord(found[0]):04x}", text)


def _name(metadata: EditMetadata) -> str:
    return code(metadata.base_model) or "another model"


def _hub_id(name: str) -> str | None:
    """The repository of ``owner/name`` or ``owner/name@revision``; None for the name of a local folder, or no name."""
    repository = name.partition("@")[0]
    return repository if re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repository, re.ASCII) else None


def code(text: str) -> str:
    """A span of code that shows a text on one line; empty for an empty text."""
    shown = _tamed(text).strip()[:LONGEST_SHOWN]
    if not shown:
        return ""
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _tamed(text: str) -> str:
    """A text on one line in which no program finds the beginning or the end of a template or a comment."""
    return re.sub(r"\{(?=[{%#])|<!(?=--)|--(?=>)", r"\g<0> ", printable(text))


def _cell(text: str) -> str:
    """The same in a table."""
    return code(text).replace("|", "\\|")
