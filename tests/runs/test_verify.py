"""Evidence of a run: what it holds, what it does not, and that nothing can be changed without notice."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from tests.evidence.running import closed, erase, opened, write_keys
from tests.program import assert_refused, run

pytest.importorskip("securesystemslib")
pytest.importorskip("cryptography")

from kvw.evidence.envelope import PAYLOAD_TYPE, Envelope
from kvw.evidence.keys import Signed, private_key, public_key
from kvw.files import file_digest
from kvw.measuring.fingerprint import examples_digest, source_digest, weights_digest
from kvw.models.checkpoint import Checkpoint
from kvw.models.headers import read_header
from kvw.progress import SILENT
from kvw.records.run import RunRecord
from kvw.runs.verify import VerifyRequest, verify

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two signed runs, one without a model, what they were made of, and the cache with the secret."""
    folder = tmp_path_factory.mktemp("evidence")
    write_keys(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KVW_CACHE", str(folder / "cache"))
        erase(folder, "run", "--sign-key", str(folder / "key.pem"))
        erase(folder, "alone", "--no-model", "--layers", "1:2", "--sign-key", str(folder / "key.pem"))
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it, free to be changed."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "place" / "cache"))
    return tmp_path / "place"


def looked_at(place, *, key="key", evidence="run/evidence.json", **more):
    """All checks of the run, by what was looked at; data files under their names."""
    data = [place / f"{name}.jsonl" for name in ("anna", "retain", "asked")]
    asked = {
        "key": public_key(place / f"{key}.pub") if key else None,
        "model": Checkpoint(place / "run/model", "model"),
        "edit": place / "run/edit.safetensors",
        "original": Checkpoint(place / "original", "original"),
        "run": place / "run",
        "data": data,
    }
    found = verify(VerifyRequest(place / evidence, **{**asked, **more}), SILENT)
    states = {}
    for check in found.checks:
        states.setdefault(check.what, []).append(check)
    return found, {what: checks[0] for what, checks in states.items() if what != "data"}, states.get("data", [])


def failing(found):
    return [check.what for check in found.checks if check.state == "fails"]


def test_everything_holds(place):
    found, checks, data = looked_at(place)
    assert found.holds
    assert [check.state for check in found.checks] == ["holds"] * 9
    assert list(checks) == ["signature", "run", "edit", "original", "model", "edit on original"]
    assert "all to the bit" in checks["edit on original"].text
    assert ["--forget" in data[0].text, "--retain" in data[1].text, "--eval asked" in data[2].text] == [True] * 3


def test_what_the_statement_holds_and_what_nobody_can_guess_from_it(place):
    envelope, statement = opened(place / "run/evidence.json")
    record = RunRecord.model_validate_json((place / "run/run.json").read_bytes())
    text = json.dumps([envelope, statement])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {"run.json", "edit.safetensors", "model/config.json", "model/model.safetensors"} < {
        one["name"] for one in statement["subject"]
    }
    predicate = statement["predicate"]
    assert predicate["edit"] == record.edit_digest
    assert predicate["results"]["forget"]["unlearned"] == json.loads(
        record.splits["forget"].unlearned.model_dump_json()
    )
    assert predicate["settings"] == record.settings
    assert predicate["result"] == weights_digest(place / "run/model")
    assert predicate["original"]["weights"] == weights_digest(place / "original")
    assert opened(place / "alone/evidence.json")[1]["predicate"]["result"] == ""
    assert predicate["floor"] == (record.selection.keep if record.selection else None)
    assert predicate["warnings"] == record.warnings
    assert len(record.nonce) == 32
    for name in ("anna", str(place), "key.pem", record.nonce):  # names of files, places, and what guards the record
        assert name not in text
    from kvw.data import read_examples

    for part in ("anna", "retain", "asked"):
        examples = read_examples(place / f"{part}.jsonl")
        for digest in (examples_digest(examples), source_digest(place / f"{part}.jsonl", examples)):
            assert digest not in text
        assert file_digest(place / f"{part}.jsonl") not in text
        assert file_digest(place / f"{part}.png") not in text
    assert file_digest(place / "run/samples.jsonl") not in text
    assert str(place) not in (place / "run/run.json").read_text()
    assert (place / "run/evidence.json").stat().st_mode & 0o777 == 0o600


def test_a_run_says_what_it_wrote_and_how_it_was_called(place):
    record = RunRecord.model_validate_json((place / "run/run.json").read_bytes())
    files = {path.relative_to(place / "run").as_posix(): path for path in (place / "run").rglob("*") if path.is_file()}
    own = {".kvw", "run.json", "evidence.json", "report.html"}
    assert record.written == {name: file_digest(path) for name, path in files.items() if name not in own}
    assert record.command == (
        "kvw erase original --forget FORGET --retain RETAIN --out OUT --retain-sources none --write-damaged "
        "--method kvw --gamma 1.0 --schedule one-shot --eval asked=FILE --max-new-tokens 2 --sign-key SIGN-KEY"
    )
    assert record.model.files.keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert set(record.data_files) == {"--forget", "--retain", "--eval asked"}


def changed(path, generator):
    """Change one byte of a file; returns its content before."""
    before = path.read_bytes()
    place = generator.randrange(len(before))
    path.write_bytes(before[:place] + bytes([before[place] ^ generator.randrange(1, 256)]) + before[place + 1 :])
    return before


@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_any_changed_byte_is_found(place, count):
    generator = random.Random(count)
    model = sorted(path for path in (place / "run/model").rglob("*") if path.is_file())
    data = [place / f"{name}.{ending}" for name in ("anna", "retain", "asked") for ending in ("jsonl", "png")]
    groups = {
        "model": model,
        "edit": [place / "run/edit.safetensors"],
        "data": data,
        "signature": [place / "run/evidence.json"],
        "run": [place / "run/run.json", place / "run/samples.jsonl"],
    }
    for number in range(count):
        what = list(groups)[number % len(groups)]
        path = generator.choice(groups[what])
        before = changed(path, generator)
        found, *_ = looked_at(place)
        assert not found.holds, path
        assert what in failing(found), path
        path.write_bytes(before)
    assert looked_at(place)[0].holds


def test_a_byte_of_a_model_that_the_run_did_not_write_is_found(place):
    """The evidence has no digests of it then: the edit on the original says what each byte has to be."""
    assert (
        run("apply", place / "alone/edit.safetensors", place / "original", "--out", place / "made", "--no-check") == 0
    )
    alone = {"evidence": "alone/evidence.json", "run": place / "alone", "edit": None}
    alone["model"] = Checkpoint(place / "made", "made")
    found, checks, _ = looked_at(place, **alone)
    assert (found.holds, checks["model"].state) == (True, "not checked")
    assert checks["edit on original"].state == "holds"
    without, checks, _ = looked_at(place, **alone, original=None)
    assert (without.holds, checks["edit on original"].state) == (False, "fails")

    generator = random.Random(1)
    for path in (place / "made/model.safetensors", place / "made/config.json", place / "made/model.safetensors"):
        before = changed(path, generator)
        assert failing(looked_at(place, **alone)[0]) == ["edit on original"]
        path.write_bytes(before)
    path, before = place / "made/model.safetensors", (place / "made/model.safetensors").read_bytes()
    header = read_header(path)
    begin = next(header[name].begin for name in header if "language" in name and "layers.1.mlp.down_proj" in name)
    path.write_bytes(before[:begin] + bytes([before[begin] ^ 1]) + before[begin + 1 :])
    found, checks, _ = looked_at(place, **alone)  # no more than rounding, and no digest says that it was so
    assert failing(found) == ["edit on original"]
    assert "rounding on another machine may explain" in checks["edit on original"].text
    path.write_bytes(before)
    (place / "made/modeling_extra.py").write_text("print('here')\n")
    assert failing(looked_at(place, **alone)[0]) == ["edit on original"]


def test_other_files_in_the_model_are_found(place):
    model = place / "run/model"
    for name in ("modeling_extra.py", "adapter_config.json", "sub/x.safetensors", ".hidden"):
        path = model / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
        found, checks, _ = looked_at(place)
        assert failing(found) == ["model"]
        assert f"{name} is not part of it" in checks["model"].text
        path.unlink()
    (model / "link").symlink_to(place)
    assert failing(looked_at(place)[0]) == ["model"]
    (model / "link").unlink()
    (model / "config.json").rename(model / "config.jso")
    assert "config.json is missing" in looked_at(place)[1]["model"].text


def test_the_run_folder_is_looked_at_whole(place):
    for name in ("more.txt", "sub/more.txt"):
        (place / "run/sub").mkdir(exist_ok=True)
        (place / "run" / name).write_text("x")
        assert failing(looked_at(place)[0]) == ["run"]
        (place / "run" / name).unlink()
    (place / "run/samples.jsonl").unlink()
    assert failing(looked_at(place)[0]) == ["run"]


def test_a_model_and_an_edit_are_taken_from_the_run_if_none_are_named(place):
    found, checks, _ = looked_at(place, model=None, edit=None)
    assert found.holds
    assert {checks[what].state for what in ("model", "edit", "edit on original")} == {"holds"}
    shutil.rmtree(place / "run/model")
    assert "model/ is missing" in looked_at(place, model=None)[1]["run"].text


def test_another_original_is_found(place):
    before = changed(place / "original/tokenizer.json", random.Random(3))
    assert failing(looked_at(place)[0]) == ["original"]
    (place / "original/tokenizer.json").write_bytes(before)
    (place / "original/extra.py").write_text("")
    assert failing(looked_at(place)[0]) == ["original"]


def test_evidence_of_one_run_says_nothing_for_another(place):
    found, *_ = looked_at(place, evidence="alone/evidence.json")
    assert failing(found) == ["run", "edit"]
    alone = {"evidence": "alone/evidence.json", "run": place / "alone", "edit": None}
    assert failing(looked_at(place, **alone)[0]) == ["edit on original"]  # the model of the other run
    original = Checkpoint(place / "original", "original")
    assert failing(looked_at(place, model=original, run=None, data=[])[0]) == ["model"]


def attacks(place):
    """Forged files of evidence, each with what the answer must say."""
    path = place / "run/evidence.json"
    envelope, statement = opened(path)
    own = envelope["signatures"][0]
    payload = Envelope(_payload(envelope))
    public, other = public_key(place / "key.pub"), private_key(write_keys(place, "other"))
    better = json.loads(json.dumps(statement))
    better["predicate"]["results"]["forget"]["unlearned"]["exact"] = 0.125
    yield "another key", payload.signed_with(other).packed().decode(), "signed with another key"
    theirs = payload.signed_with(other).signed.signature
    swapped = Envelope(payload.payload, Signed(public.name, theirs)).packed().decode()
    yield "their signature under our name", swapped, "not one of your key"
    yield "another statement", closed(envelope, better), "not one of your key"
    resigned = Envelope(_payload(json.loads(closed(envelope, better)))).signed_with(other).packed().decode()
    yield "another statement and key", resigned, "another key"
    yield "no signature", closed(envelope | {"signatures": []}), "nobody has signed"
    yield "another type", closed(envelope | {"payloadType": "text/plain"}), "of type 'text/plain'"
    kind = private_key(place / "key.pem").sign("text/plain", payload.payload)
    yield "signed as another type", Envelope(payload.payload, kind).packed().decode(), "not one of your key"
    bare = private_key(place / "key.pem")._signer._private_key.sign(payload.payload)
    yield "signed bare", Envelope(payload.payload, Signed(public.name, bare)).packed().decode(), "not one of your key"
    two = [own, {"keyid": "0" * 64, "sig": own["sig"]}]
    yield "two signatures", closed(envelope | {"signatures": two}), "2 signatures"
    yield "the same twice", closed(envelope | {"signatures": [own, own]}), "2 signatures"
    yield "a scheme beside", closed(envelope | {"signatures": [own | {"scheme": "none"}]}), "another way"
    yield "a key beside", closed(envelope | {"signatures": [own | {"public": "x"}]}), "another way"
    yield "an empty signature", closed(envelope | {"signatures": [own | {"sig": ""}]}), "not one of your key"
    for name, change in {
        "another predicate": {"predicateType": "https://slsa.dev/provenance/v1"},
        "another statement type": {"_type": "https://in-toto.io/Statement/v0.1"},
        "a further field": {"more": 1},
        "a subject twice": {"subject": statement["subject"] + statement["subject"][:1]},
    }.items():
        text = closed(envelope, statement | change)
        signed = Envelope(_payload(json.loads(text))).signed_with(private_key(place / "key.pem"))
        yield name, signed.packed().decode(), "no statement that this version reads"


def _payload(envelope):
    import base64

    return base64.b64decode(envelope["payload"])


def test_forged_evidence_is_refused(place):
    seen = 0
    for name, text, words in attacks(place):
        assert json.loads(text)["payloadType"] in (PAYLOAD_TYPE, "text/plain")
        (place / "forged.json").write_text(text)
        found, *_ = looked_at(place, evidence="forged.json")
        assert [check.state for check in found.checks] == ["fails"], name
        assert words.lower() in found.checks[0].text.lower(), (name, found.checks[0].text)
        seen += 1
    assert seen == 17


def test_without_a_public_key_nothing_is_verified(place):
    found, checks, _ = looked_at(place, key=None)
    assert (found.holds, failing(found)) == (False, [])
    assert "No public key was named" in checks["signature"].text
    envelope, _ = opened(place / "run/evidence.json")
    (place / "unsigned.json").write_text(closed(envelope | {"signatures": []}))
    found, checks, _ = looked_at(place, key=None, evidence="unsigned.json")
    assert (found.holds, failing(found)) == (False, [])
    assert "Nobody has signed it" in checks["signature"].text


def test_text_of_others_reaches_no_terminal_as_it_is(place):
    envelope, statement = opened(place / "run/evidence.json")
    statement["predicate"]["method"] = "\x1b[2Jkvw"
    (place / "forged.json").write_text(closed(envelope | {"signatures": []}, statement))
    text = looked_at(place, key=None, evidence="forged.json")[0].checks[0].text
    assert "\x1b" not in text
    assert "[2Jkvw" in text


def test_on_another_machine_data_cannot_be_checked_and_the_rest_can(place, tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "elsewhere"))
    found, checks, data = looked_at(place, data=[])
    assert found.holds
    assert "only on the machine of the run" in checks["run"].text
    assert [check.state for check in data] == ["not checked"]
    found, _, data = looked_at(place)
    assert not found.holds
    assert "secret of the machine of the run" in data[0].text


def test_what_was_not_looked_at_is_said(place):
    found, checks, data = looked_at(place, model=None, edit=None, original=None, run=None, data=[place / "anna.jsonl"])
    assert found.holds
    left = {what for what, check in checks.items() if check.state == "not checked"}
    assert left == {"run", "edit", "original", "model", "edit on original"}
    assert [check.state for check in data] == ["holds", "not checked"]
    assert "--eval asked, --retain" in data[1].text


def program(place, *arguments, evidence="run/evidence.json"):
    return run("verify", place / evidence, "--public-key", place / "key.pub", *arguments)


def test_the_command_says_it_and_ends_with_its_own_code(place, capsys):
    assert program(place, "--run", place / "run", "--original", place / "original") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "holds signature Key" in said
    assert said.endswith("What was checked holds.")
    assert program(place, "--model", place / "run/model", "--json") == 0
    assert json.loads(capsys.readouterr().out)["holds"] is True
    assert run("verify", place / "run/evidence.json", "--run", place / "run") == 6
    assert "no signature was checked" in " ".join(capsys.readouterr().out.split())
    (place / "run/model/config.json").write_text("no json")
    assert program(place, "--model", place / "run/model", "--original", place / "original") == 6
    said = " ".join(capsys.readouterr().out.split())
    assert "config.json is another" in said
    assert said.endswith("The evidence does not hold.")


def test_a_run_is_signed_later_if_it_is_as_it_was(place, capsys):
    (place / "run/evidence.json").unlink()
    sign = ["evidence", "sign", place / "run", "--key", place / "key.pem"]
    model = place / "run/model/config.json"
    before = model.read_bytes()
    for change in (lambda: model.write_bytes(before + b" "), lambda: (place / "run/more").write_text("")):
        change()
        assert_refused(capsys, run(*sign), "is not what the run wrote")
        model.write_bytes(before)
    (place / "run/more").unlink()
    assert run(*sign) == 0
    assert "is signed with key" in capsys.readouterr().out
    assert looked_at(place)[0].holds
    write_keys(place, "other")
    assert run(*sign[:-1], place / "other.pem") == 0
    assert not looked_at(place)[0].holds
    assert looked_at(place, key="other")[0].holds

    record = json.loads((place / "run/run.json").read_text())
    (place / "run/run.json").write_text(json.dumps(record | {"written": {}}))
    assert_refused(capsys, run(*sign), "earlier version")
    os.truncate(place / "run/run.json", 100)
    assert_refused(capsys, run(*sign), "no run record of this version")


def test_a_key_that_cannot_sign_is_told_before_the_run(place, capsys):
    (place / "bad.pem").write_text("x")
    with pytest.raises(AssertionError):
        erase(place, "never", "--sign-key", str(place / "bad.pem"))
    assert "not a private key" in capsys.readouterr().err
    assert not Path(place / "never").exists()
