"""How ``kvw erase`` chooses how strong its edit is, and what it refuses to write."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

import kvw
from kvw.cli import main
from kvw.data import Example
from kvw.edits.edit import EditMetadata
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.errors import Damaging
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.salt import salted
from kvw.methods.method import Unlearned
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint
from kvw.models.value_matrix import MatrixKey
from kvw.percent import percent
from kvw.progress import SILENT, remembering
from kvw.proving.verdict import ANNOUNCED
from kvw.records.run import FreelyPart
from kvw.runs import choosing
from kvw.runs.choosing import ROUNDS, Choice, paths_of, paths_of_each
from kvw.runs.choosing import _asked_freely as asked_freely
from kvw.runs.choosing import _lower as lower
from kvw.runs.choosing import _more as more
from kvw.runs.choosing import _refuse as refuse
from kvw.runs.choosing import _share_known as share_known
from kvw.runs.choosing import _tell as tell
from kvw.runs.earlier import keep
from kvw.runs.erase import erase
from kvw.runs.knowing import chosen_first
from kvw.runs.request import EraseRequest, read_data
from kvw.selection.candidate import Candidate
from kvw.selection.known_scores import KnownScores
from kvw.selection.scoring import Score, Share
from kvw.selection.splits import ALL_HELD_OUT, FORGET, HELD_OUT_FORGET, OWN_WORDS, TEXT
from kvw.toy import checkpoint

WRECK = kvw.SubspaceSettings(gate="hard", threshold=0.0, matrices="both")
"""Takes every direction out that forget answers have more of than retain answers."""


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    """Two people to forget and ten to keep, by photo, asked about some things."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "images").symlink_to(world / "images")
    for name, people in (("forget", 2), ("retain", 10)):
        lines = (world / f"{name}.jsonl").read_text().splitlines()
        subjects = list(dict.fromkeys(json.loads(line)["subject"] for line in lines))[:people]
        some = [line for line in lines if json.loads(line)["subject"] in subjects]
        per_subject = dict.fromkeys(subjects, 0)
        chosen = []
        for line in some:
            subject = json.loads(line)["subject"]
            per_subject[subject] += 1
            if per_subject[subject] <= (6 if name == "forget" else 2):
                chosen.append(line)
        (folder / f"{name}.jsonl").write_text("\n".join(chosen) + "\n")
    return {"forget": folder / "forget.jsonl", "retain": folder / "retain.jsonl"}


@pytest.fixture
def request_for(tmp_path):
    """Requests as they are asked; their data are not there."""

    def made(**more):
        given = {
            "out": tmp_path / "run",
            "evaluate_at_most": 4,
            "max_new_tokens": 4,
            "save_model": False,
            "device": "cpu",
        }
        given |= {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain")}
        return EraseRequest(Checkpoint(checkpoint("vanilla"), "toy:vanilla"), **{**given, **more})

    return made


@pytest.fixture
def run_of(request_for, files):
    """Requests with data, to be run."""
    return lambda **more: request_for(**{**files, **more})


def kept(candidate):
    return min(share.value for share in candidate.kept.values())


@pytest.mark.thorough
def test_the_edit_that_is_written_is_the_chosen_one_and_keeps_what_it_must(run_of, tmp_path):
    record = erase(run_of(settings=kvw.SubspaceSettings(layers=(2, 3))))
    selection = record.selection
    assert (selection.unit, selection.keep) == ("directions", 0.98)
    assert kept(selection.chosen) >= 0.98
    assert selection.chosen.splits["forget"].probability < selection.original["forget"].probability
    edit = kvw.load_edit(tmp_path / "run" / "edit.safetensors")
    assert isinstance(edit, LowRankEdit)
    assert sum(value.rank for value in edit.directions.values()) == selection.chosen.dose
    assert edit.metadata.settings["chosen"] == {"directions": selection.chosen.dose}
    assert edit.metadata.forget_count == record.forget.count
    source = {part.name: part for part in selection.sources}["retain"]
    assert (source.examples, source.held_out > 0) == (record.retain.count, True)
    # What is bounded is the edit of all subjects together and its parts.
    assert bool(record.distortion_bounds) == (selection.chosen.where != "each subject by itself")
    assert selection.freely.questions > 0
    stored = json.loads((tmp_path / "run" / "run.json").read_text())["selection"]
    assert [one["chosen"] for one in stored["candidates"]].count(True) == 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["kvw", "leace"])
def test_every_scalable_method_is_brought_within_what_must_stay(run_of, method):
    record = erase(run_of(method=method))
    assert record.selection.unit == {"kvw": "strength", "leace": "share"}[method]
    assert kept(record.selection.chosen) >= 0.98


@pytest.mark.thorough
def test_a_wreck_is_not_written(tmp_path, files, capsys):
    arguments = ["erase", "toy:vanilla", "--out", str(tmp_path / "run"), "--no-model", "--max-new-tokens", "4"]
    arguments += [f"--{name}={path}" for name, path in files.items()]
    arguments += ["--eval-limit", "4", "--set", "gate=hard", "--set", "threshold=0", "--set", "matrices=both"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 5
    assert not (tmp_path / "run").exists()
    error = capsys.readouterr().err
    assert "so nothing was written: 90% of it must be left" in " ".join(error.split())
    assert "--write-damaged" in error
    assert "Traceback" not in error


@pytest.mark.thorough
def test_an_edit_after_which_others_are_refused_is_not_written(run_of, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "ask_others", lambda *_: FreelyPart(questions=20, answered=5))
    with pytest.raises(Damaging, match="5 of 20 questions about others still get their answer"):
        erase(run_of(settings=kvw.SubspaceSettings(mu=0.001)))
    assert not (tmp_path / "run").exists()


def test_bounds_hold_for_a_part_of_what_was_found_and_for_nothing_else():
    edit, found = LowRankEdit({}), Unlearned(LowRankEdit({}), bounds=("bound",))
    assert Choice(edit, None).of(found).bounds == ("bound",)
    assert Choice(edit, None, is_part=False).of(found).bounds == ()
    assert Choice(edit, None).of(found).edit is edit


@pytest.mark.thorough
def test_a_wreck_is_written_if_asked_for_and_says_so(run_of, tmp_path):
    record = erase(run_of(settings=WRECK, write_damaged=True))
    assert any("It is written because you asked for it" in warning for warning in record.warnings)
    assert kept(record.selection.chosen) < 0.9
    assert (tmp_path / "run" / "edit.safetensors").is_file()


@pytest.mark.thorough
def test_the_settings_of_a_wreck_can_be_scaled_down(run_of):
    record = erase(run_of(settings=WRECK, choose=True))
    assert record.selection.unit == "share"
    assert 0 < record.selection.chosen.dose < 1
    assert kept(record.selection.chosen) >= 0.98


@pytest.mark.slow
def test_a_smaller_share_to_keep_forgets_more(run_of):
    def left(keep):
        chosen = erase(run_of(keep=keep, force=True)).selection.chosen
        return chosen.splits["forget"].probability

    assert left(0.7) < left(0.98)


@pytest.mark.thorough
def test_a_model_that_writes_no_english_needs_a_retain_set(run_of):
    with pytest.raises(kvw.UserError, match="Nothing says what must stay"):
        erase(run_of(retain=None))


def test_it_is_said_why_an_edit_is_no_stronger():
    path = SimpleNamespace(doses=(1.0, 2.0))
    within, strongest = (Candidate(None, dose, path) for dose in (1.0, 2.0))
    assert "more would cost others more than --keep allows" in more(within)
    assert "the strongest edit that the method finds with these settings" in more(strongest)
    assert "let kvw choose it with --strength auto" in more(Candidate(None, None))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (0.978, " (an edit that forgets all 5 leaves 97.8% of plain text: --keep 0.975 takes it)"),
        (0.975, " (an edit that forgets all 5 leaves 97.5% of plain text: --keep 0.975 takes it)"),
        (0.985, ""),
        (0.89, ""),
    ],
)
def test_the_keep_that_would_take_an_edit_that_forgets_everything_is_named(request_for, text, told):
    asked = Score((True,) * 5, (0.9,) * 5, (1.0,) * 5, (1,) * 5)
    enough = Candidate(None, 3.0, kept={TEXT: Share(text, 0.0), ALL_HELD_OUT: Share(0.99, 0.0)})
    search = SimpleNamespace(original={FORGET: asked}, forgetting=lambda: enough, candidates=[Candidate(None, 1.0)])
    request = request_for(write_damaged=False)
    assert lower(search, request) == told
    assert more(Candidate(None, 1.0, SimpleNamespace(doses=(1.0, 2.0))), told).endswith(f"or lower --keep{told}.")
    with pytest.raises(Damaging) as refused:
        refuse(search, None, request, SILENT)
    assert refused.value.do.endswith(f"or lower --keep{told}")
    search.forgetting = lambda: None
    assert lower(search, request) == ""


def test_a_page_is_known_although_one_of_its_tokens_is_not_the_first_choice():
    score = Score((False, False, True), (0.9, 0.4, 0.1), (1.0,) * 3, (400, 400, 1))
    pages = [Example("It was", " spring.", plain=True)] * 2
    assert chosen_first(score, [*pages, Example("When?", "Spring")]) == [True, False, True]
    assert chosen_first(score, [Example("When?", "Spring")] * 3) == [False, False, True]


def test_questions_are_counted_once_and_own_words_beside_them():
    def scores(*answered: int) -> dict[str, Score]:
        names = (FORGET, HELD_OUT_FORGET, OWN_WORDS)
        return {
            name: Score((True,) * many + (False,) * (3 - many), (0.5,) * 3, (1.0,) * 3, (1,) * 3)
            for name, many in zip(names, answered, strict=True)
        }

    search = SimpleNamespace(original=scores(3, 2, 3), forgets=lambda one: False)
    judged = {FORGET: [Example("Who?", "Ann")] * 3, HELD_OUT_FORGET: [Example("Who?", "Bo")] * 3}
    assert share_known(search.original, SimpleNamespace(judged=judged)) == 5 / 6
    path = SimpleNamespace(doses=(1.0, 2.0))

    def told(*answered: int) -> str:
        with remembering(SILENT) as reporter:
            tell(search, Candidate(None, 1.0, path, scores(*answered)), 0.98, reporter)
        return reporter.warnings[0]

    assert told(1, 1, 2).startswith(
        "2 of 6 forget questions are still answered (teacher-forced; 5 before), in other words 2 of 3: more"
    )
    assert told(0, 0, 1).startswith(
        "No forget question is answered as it was asked (teacher-forced; 5 before), but in other words 1 of 3 is: more"
    )
    assert "other words" not in told(1, 0, 0)


@pytest.mark.parametrize(("says_it", "searches"), [(0, 0), (1, 1), (2, 2), (9, ROUNDS)])
def test_what_the_model_still_says_after_the_edit_judges_a_new_choice(monkeypatch, says_it, searches):
    edits = [LowRankEdit({}, float(number)) for number in range(4)]
    judged_by, asked, notes, tried = [], [], [], []
    left = (Example("Where?", "Well: Madrid", metadata={"subject": "Ann"}), [(6, 12)])

    class FakeSearch:
        of_each: ClassVar = {"ann": "what Ann needs", "bo": "what Bo needs"}

        def __init__(self, scorer, must_stay, keep):
            own, self.known = scorer
            judged_by.append(own)

        def choose(self, paths, of_each):
            tried.append(of_each)
            return Candidate(edits[len(judged_by)], 1.0)

        def forgets(self, candidate):
            return True

    def replies(loaded, material, edit, max_new_tokens):
        asked.append(edit)
        return [left] if len(asked) <= says_it else []

    monkeypatch.setattr(choosing, "Search", FakeSearch)
    monkeypatch.setattr(choosing, "scorer_for", lambda loaded, material, own, progress, known: (own, known))
    monkeypatch.setattr(choosing, "replies_to_forget", replies)
    monkeypatch.setattr(choosing, "said_by", lambda loaded, material, replies: replies)
    task = SimpleNamespace(request=SimpleNamespace(max_new_tokens=4, keep=0.98), loaded=None)
    material = SimpleNamespace(must_stay=[])
    first = SimpleNamespace(forgets=lambda one: True, of_each=FakeSearch.of_each, known=KnownScores())
    last, chosen = asked_freely(
        first,
        Candidate(edits[0], 1.0),
        [],
        {"ann": ["all of Ann's"], "bo": ["all of Bo's"]},
        task,
        material,
        ["own"],
        SimpleNamespace(note=notes.append),
        lambda *_: None,
    )
    assert last.known is first.known
    assert judged_by == [["own"] + [left] * number for number in range(1, searches + 1)]
    assert tried == [{"ann": ["all of Ann's"], "bo": ["what Bo needs"]}] * searches
    assert chosen.edit is edits[searches]
    assert asked == edits[: min(searches + 1, ROUNDS)]
    assert len(notes) == searches


def test_an_edit_that_keeps_what_it_must_and_forgets_no_more_is_not_asked_freely(monkeypatch):
    monkeypatch.setattr(choosing, "replies_to_forget", None)
    search, chosen = SimpleNamespace(forgets=lambda one: False), Candidate(LowRankEdit({}), 1.0)
    task = SimpleNamespace(request=None, loaded=None)
    assert asked_freely(search, chosen, [], {}, task, *[None] * 4) == (search, chosen)


def test_it_is_said_who_pays_although_enough_is_kept_in_all():
    score = Score((False,) * 2, (0.0,) * 2, (1.0,) * 2, (1,) * 2)
    before = Score((True,) * 2, (0.9,) * 2, (1.0,) * 2, (1,) * 2)
    search = SimpleNamespace(original={FORGET: before}, forgets=lambda one: True)

    def told(facts: Share, others: Share) -> list[str]:
        kept = {"held-out facts": facts, "held-out neighbours": others, ALL_HELD_OUT: Share(0.985, 0.01)}
        with remembering(SILENT) as reporter:
            tell(search, Candidate(None, None, None, {FORGET: score}, kept), 0.98, reporter)
        return reporter.warnings

    (warning,) = told(Share(1.0, 0.01), Share(0.9474, 0.02))
    assert warning.startswith("Others pay: 94.7% of held-out neighbours is left, less than 98%")
    assert ANNOUNCED["retain"].search(warning)
    assert not ANNOUNCED["plain text"].search(warning)
    assert told(Share(1.0, 0.0), Share(0.98, 0.02)) == []


@pytest.mark.parametrize(("share", "written"), [(0.985, "98.5%"), (0.98, "98%"), (0.57, "57%"), (0.9999, "99.99%")])
def test_what_must_be_kept_is_written_with_every_digit(request_for, share, written):
    assert percent(share) == written
    request = request_for(keep=share, write_damaged=False)
    with pytest.raises(Damaging, match=f"No edit of this method keeps {written} of what must stay"):
        refuse(SimpleNamespace(candidates=[Candidate(None, 1.0)], forgetting=lambda: None), None, request, SILENT)
    lost = Candidate(None, 1.0, kept={ALL_HELD_OUT: Share(0.5, 0.0)})
    with pytest.raises(Damaging, match=f"nothing was written: {written} of it must be left"):
        refuse(SimpleNamespace(candidates=[]), lost, request, SILENT)


@pytest.mark.parametrize(("layers", "expected"), [(12, ["layers 0:5", ""]), (30, ["layers 0:14", ""]), (11, [""])])
def test_the_first_half_of_a_deep_decoder_is_tried_first(request_for, layers, expected):
    one = Directions(torch.ones(4, 1), torch.ones(4, 1), -torch.ones(1))
    paths = paths_of(request_for(), LowRankEdit({MatrixKey(layer): one for layer in range(layers)}))
    assert [path.where for path in paths] == expected
    edit = paths[0].edit(paths[0].doses[-1])
    assert len(edit.directions) == (layers // 2 if layers >= 12 else layers)


def test_each_subject_is_tried_by_itself_if_all_of_them_are_asked_about(request_for):
    found = LowRankEdit({})
    one = LowRankEdit({MatrixKey(0): Directions(torch.eye(4)[:, :1], torch.eye(4)[:, :1], torch.tensor([-1.0]))})
    found.of_each = {"ann": one, "bo": one}
    asked = [Example("Who?", "She.", metadata={"subject": name}) for name in ("Ann", "Bo")]
    request = request_for()
    paths = paths_of_each(request, found, SimpleNamespace(judged={FORGET: asked[:1], HELD_OUT_FORGET: asked[1:]}))
    assert {subject: [path.doses for path in own] for subject, own in paths.items()} == {
        "ann": [(1.0,)],
        "bo": [(1.0,)],
    }
    assert paths_of_each(request, found, SimpleNamespace(judged={FORGET: asked[:1]})) == {}


def test_settings_that_fix_the_strength_switch_the_choice_off(request_for):
    assert request_for().chooses
    assert not request_for(settings=kvw.SubspaceSettings(strength=0.5)).chooses
    assert not request_for(method="kvw", settings=kvw.KvwSettings(gamma=0.4)).chooses
    assert request_for(settings=kvw.SubspaceSettings(layers=(0, 2), shrinkage=0.2)).chooses
    assert request_for(settings=kvw.SubspaceSettings(strength=0.5), choose=True).chooses
    assert not request_for(choose=False).chooses


@pytest.mark.thorough
def test_neighbours_that_cannot_be_asked_about_are_told(run_of, tmp_path):
    (tmp_path / "names.txt").write_text("Ann Lee\n")
    by_hand = kvw.SubspaceSettings(strength=0.1)
    asked = {"neighbours": tmp_path / "names.txt", "sources": ("neighbours",)}
    record = erase(run_of(**asked, settings=by_hand, write_damaged=True))
    assert any("No question could be asked about the neighbours" in warning for warning in record.warnings)


def test_a_neighbour_who_is_to_be_forgotten_is_refused(request_for, tmp_path):
    for name, subject in (("forget", "Ada Vance"), ("retain", "Bo Lind")):
        row = {"question": f"Where does {subject} live?", "answer": "In Rome", "subject": subject}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "names.txt").write_text("Ann Lee\nADA VANCE\n")
    with pytest.raises(kvw.UserError, match="A neighbour is among those to be forgotten"):
        read_data(request_for(neighbours=tmp_path / "names.txt"))


def test_requests_that_contradict_themselves_are_refused(request_for, tmp_path):
    with pytest.raises(kvw.UserError, match="method kvw offers a single edit"):
        request_for(method="kvw", settings=kvw.KvwSettings(parity=True), choose=True)
    with pytest.raises(kvw.UserError, match="would not be read"):
        request_for(neighbours=tmp_path / "names.txt", sources=("everyday",))


def test_less_is_asked_of_an_edit_made_by_hand(request_for):
    by_hand = request_for(settings=kvw.SubspaceSettings(strength=0.5))
    assert (request_for().floor, by_hand.floor, replace(by_hand, keep=0.5).floor) == (0.98, 0.9, 0.5)


@pytest.mark.thorough
def test_the_strength_is_chosen_with_the_edits_of_earlier_requests_in_force(run_of, files, tmp_path):
    (tmp_path / "images").symlink_to(files["forget"].parent / "images")
    one, two, kept_of_one = (tmp_path / name for name in ("one.jsonl", "two.jsonl", "kept.safetensors"))
    by_subject: dict[str, list[str]] = {}
    for line in files["forget"].read_text().splitlines():
        by_subject.setdefault(json.loads(line)["subject"], []).append(line)
    for path, lines in zip((one, two), by_subject.values(), strict=True):
        path.write_text("\n".join(lines) + "\n")
    model, first = Checkpoint(checkpoint("vanilla"), "toy:vanilla"), tmp_path / "first.safetensors"
    size = (find_value_matrices(kvw.load_model(model))[1].width, 2)
    parts = {MatrixKey(1): Directions(torch.eye(*size), torch.eye(*size), torch.tensor([-0.1, -0.2]))}
    data = EditMetadata(method="subspace", forget_digest=salted(examples_digest(kvw.read_examples(one))))
    LowRankEdit(parts, 1.0, data).save(first)
    with pytest.raises(kvw.UserError, match="was not made to forget these data"):
        keep(model, [two], kept_of_one, SILENT, edit=first)
    keep(model, [one], kept_of_one, SILENT, edit=first)
    one.unlink()
    record = erase(run_of(forget=two, earlier=[kept_of_one], sources=()))
    both = kvw.load_edit(tmp_path / "run" / "edit.safetensors")
    assert isinstance(both, LowRankEdit)
    assert torch.equal(both.directions[MatrixKey(1)].patterns[:, :2], torch.eye(*size))
    assert sum(value.rank for value in both.directions.values()) == record.selection.chosen.dose + 2
    assert both.metadata.parents[0] == data
    assert both.metadata.forget_digest == both.metadata.parents[1].forget_digest != data.forget_digest
    assert record.selection.earlier == 1
    told = "The edit of an earlier request is in force. Its questions are gone and were not asked"
    assert told in record.selection.sentence
    assert told in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("left", "told"), [(0.97, "the edits of earlier requests alone leave 97.0% of all held out"), (0.99, "")]
)
def test_it_is_said_that_earlier_requests_have_used_up_what_may_be_lost(request_for, left, told):
    def judged(edit):
        return Candidate(edit, None, kept={ALL_HELD_OUT: Share(left, 0.0)})

    weakest = Candidate(None, 1.0, kept={ALL_HELD_OUT: Share(0.95, 0.0)})
    search = SimpleNamespace(candidates=[weakest], judge=judged, forgetting=lambda: None)
    with pytest.raises(Damaging, match="No edit of this method keeps 98%") as refused:
        refuse(search, None, request_for(), SILENT, LowRankEdit({}))
    assert refused.value.found.endswith(told or "even the weakest leaves 95.0% of all held out")
