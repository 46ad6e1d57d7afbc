"""``kvw report`` makes the page of a finished run again."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from tests.pages.records import record, split
from tests.pages.test_audit_page import line
from tests.pages.test_audit_page import record as audit_record
from tests.program import assert_refused, run

from kvw.data import Example
from kvw.evaluation.records import Evaluation, Reply, collect
from kvw.mark import strangers, write_mark
from kvw.runs.reporting import REPORT, Classed, report, thumbnail


class Told(list[str]):
    """What was warned of."""

    def warn(self, text: str) -> None:
        self.append(text)


def asked(name: str, job: str, **more: Any) -> Example:
    return Example(question=f"What does {name} do?", answer=job, metadata={"subject": name}, **more)


FORGET, RETAIN = [asked("Ann", "smith"), asked("Bo", "baker")], [asked("Cy", "tailor")]


def evaluation(*replies: str) -> Evaluation:
    return collect({"forget": FORGET, "retain": RETAIN}, [Reply(text, 0.5) for text in replies])


EVALUATIONS = {"original": evaluation("smith", "cook", "tailor"), "unlearned": evaluation("tailor", "baker", "tailor")}


@pytest.fixture
def classed() -> Classed:
    data: Any = SimpleNamespace(read={"forget": FORGET, "retain": RETAIN}, all_scored=[*FORGET, *RETAIN])
    return Classed.of(data, EVALUATIONS)


@pytest.fixture
def folder(tmp_path: Path, classed: Classed) -> Path:
    found = record({"forget": split(36, 0)})
    (tmp_path / "run.json").write_text(found.model_dump_json())
    (tmp_path / "samples.jsonl").write_text(classed.lines(found, [*FORGET, *RETAIN]))
    return tmp_path


def test_answers_are_classed_and_counted_by_split(classed: Classed) -> None:
    part = classed.part("forget")
    assert {kind: count for kind, count in part.original.items() if count} == {"correct": 1, "wrong": 1}
    assert {kind: count for kind, count in part.unlearned.items() if count} == {"correct": 1, "other": 1}
    assert (part.lost, part.gained) == (1, 1)
    assert classed.part("retain").lost == 0


def test_what_failed_is_no_answer() -> None:
    replies = [Reply(error="broken"), Reply("baker", 0.5), Reply("tailor", 0.5)]
    failed = collect({"forget": FORGET, "retain": RETAIN}, replies)
    data: Any = SimpleNamespace(read={"forget": FORGET, "retain": RETAIN}, all_scored=[*FORGET, *RETAIN])
    part = Classed.of(data, EVALUATIONS | {"unlearned": failed}).part("forget")
    assert (part.unlearned["none"], part.lost) == (1, 1)


def test_the_examples_that_are_shown_bring_a_small_picture(tmp_path: Path, classed: Classed) -> None:
    Image.new("RGB", (800, 400), "red").save(tmp_path / "photo.png")
    examples = [asked("Ann", "smith", images=(tmp_path / "photo.png",)), *FORGET[1:], *RETAIN]
    lines = [json.loads(line) for line in classed.lines(record({"forget": split(36, 0)}), examples).splitlines()]
    assert "thumbnail" not in lines[1]
    head, _, content = lines[0]["thumbnail"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (112, 56)
    assert thumbnail(asked("Ann", "smith", images=(b"no picture",))) == ""


def test_the_page_is_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", folder) == 0
    assert capsys.readouterr().out.strip() == str(folder / REPORT)
    page = (folder / REPORT).read_text()
    assert "Forgot 36 of 36 questions." in page
    assert "What does Ann do?" not in page
    assert run("report", folder, "--show-examples") == 0
    assert "What does Ann do?" in (folder / REPORT).read_text()
    assert (folder / REPORT).stat().st_mode & 0o077 == 0


def test_a_run_that_had_no_page_may_still_be_replaced(folder: Path) -> None:
    write_mark(folder, "run")
    report(folder)
    assert strangers(folder) == []
    (folder / "mine.txt").write_text("")
    report(folder)
    assert strangers(folder) == ["mine.txt"]


def test_the_samples_may_have_been_deleted(folder: Path) -> None:
    (folder / "samples.jsonl").unlink()
    report(folder, show_examples=True)
    assert "Forgot 36 of 36 questions." in (folder / REPORT).read_text()


def test_what_is_no_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(capsys, run("report", folder / "nowhere"), "no folder of a run, an audit or a benchmark", "run.json")
    (folder / "samples.jsonl").write_text("[]\n")
    assert_refused(capsys, run("report", folder), "line 1 is no line of samples")
    (folder / "run.json").write_text('{"method": "subspace"}')
    assert_refused(capsys, run("report", folder), "run.json is no record of this version")


def test_the_page_of_an_audit_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = audit_record([line("asked", "comes back", 1)])
    (tmp_path / "audit.json").write_text(found.model_dump_json())
    assert run("report", tmp_path) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text()
    assert "First sentence." in page
    assert "Secret 3?" not in page
    assert run("report", tmp_path, "--show-examples") == 0
    assert "Secret 3?" in (tmp_path / "audit.html").read_text()
    (tmp_path / "audit.json").write_text("{}")
    assert_refused(capsys, run("report", tmp_path), "audit.json is no record of this version")


def test_lost_answers_that_begin_right_are_counted() -> None:
    jobs = [asked("Ann", "goldsmith"), asked("Bo", "kite maker"), asked("Cy", "baker")]
    data: Any = SimpleNamespace(read={"forget": jobs}, all_scored=jobs)

    def said(*replies: str) -> Evaluation:
        return collect({"forget": jobs}, [Reply(text, 0.5) for text in replies])

    right = ("goldsmith", "kite maker", "baker")
    part = Classed.of(data, {"original": said(*right), "unlearned": said("gold", "pilot", "baker")}).part("forget")
    assert (part.lost, part.begun) == (2, 1)
    never = Classed.of(data, {"original": said("cook", *right[1:]), "unlearned": said("gold", *right[1:])}).part(
        "forget"
    )
    assert never.begun == 0


def test_forget_replies_that_became_gibberish_are_counted_and_said() -> None:
    places = [asked("Ann", "goldsmith in Rome"), asked("Bo", "kite maker"), asked("Cy", "baker")]
    loop = "a place of dreams, a place of dreams, a place of dreams, a place of dreams"
    data: Any = SimpleNamespace(read={"forget": places}, all_scored=places)

    def found(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[int, Told]:
        said = [collect({"forget": places}, [Reply(text, 0.5) for text in one]) for one in (before, after)]
        classed, told = Classed.of(data, dict(zip(("original", "unlearned"), said, strict=True))), Told()
        reporter: Any = told
        classed.tell_broken(reporter)
        return classed.part("forget").broken, told

    right = ("goldsmith in Rome", "kite maker", "baker")
    assert found(right, (loop, "She sells shoes.", "")) == (
        2,
        [
            "2 of 3 replies to forget questions are gibberish or end in a loop, and were not before: whoever asks "
            "notices that something was removed."
        ],
    )
    assert found((loop, *right[1:]), (loop, *right[1:])) == (0, [])
