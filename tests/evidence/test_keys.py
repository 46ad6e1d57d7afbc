"""Only Ed25519 keys sign and verify, and nothing but the whole of what was signed is verified."""

from __future__ import annotations

import pytest
from tests.evidence.running import write_keys, write_pair

pytest.importorskip("securesystemslib")
pytest.importorskip("cryptography")

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kvw.errors import UserError
from kvw.evidence.envelope import PAYLOAD_TYPE, Altered, Envelope, read_envelope
from kvw.evidence.keys import Signed, private_key, public_key

PLAIN = serialization.NoEncryption()


@pytest.fixture
def pair(tmp_path):
    return private_key(write_keys(tmp_path)), public_key(tmp_path / "key.pub")


def test_a_signature_is_over_the_type_and_every_byte(pair, tmp_path):
    private, public = pair
    signed = private.sign("a", b"what is said")
    assert public.verifies("a", b"what is said", signed)
    assert not public.verifies("b", b"what is said", signed)
    assert not public.verifies("a", b"what is saie", signed)
    for place in range(len(signed.signature)):
        broken = bytearray(signed.signature)
        broken[place] ^= 1
        assert not public.verifies("a", b"what is said", Signed(signed.key, bytes(broken)))
    assert not public_key(write_keys(tmp_path, "other").with_suffix(".pub")).verifies("a", b"what is said", signed)


def test_a_signature_under_another_name_does_not_count(pair):
    private, public = pair
    signed = private.sign(PAYLOAD_TYPE, b"{}")
    assert Envelope(b"{}", signed).refuted(public) == ""
    assert "another key" in Envelope(b"{}", Signed("0" * 64, signed.signature)).refuted(public)
    assert "nobody" in Envelope(b"{}").refuted(public)


def test_openssl_reads_the_signature(pair, tmp_path):
    """The form is DSSE's: anybody can verify it without kvw."""
    private, _ = pair
    key = serialization.load_pem_public_key((tmp_path / "key.pub").read_bytes())
    payload = b"what is said"
    signed = private.sign(PAYLOAD_TYPE, payload)
    message = b"DSSEv1 %d %b %d %b" % (28, PAYLOAD_TYPE.encode(), len(payload), payload)
    assert key.verify(signed.signature, message) is None  # it raises where the signature is not of this message
    with pytest.raises(InvalidSignature):
        key.verify(signed.signature, message + b"!")


@pytest.mark.parametrize(
    "make",
    [lambda: rsa.generate_private_key(65537, 1024), lambda: ec.generate_private_key(ec.SECP256R1())],
    ids=["rsa", "ecdsa"],
)
def test_keys_of_other_kinds_are_refused(tmp_path, make):
    path = write_pair(tmp_path, "other", make(), PLAIN)
    for read, file in ((private_key, path), (public_key, tmp_path / "other.pub")):
        with pytest.raises(UserError, match="is not an Ed25519 key"):
            read(file)


def test_what_is_no_key_is_refused(tmp_path):
    path = write_keys(tmp_path)
    (tmp_path / "text.pem").write_text("hello\n")
    for read, file, words in [
        (private_key, tmp_path / "gone.pem", "cannot be read"),
        (private_key, tmp_path, "cannot be read"),
        (private_key, tmp_path / "text.pem", "not a private key"),
        (private_key, path.with_suffix(".pub"), "not a private key"),
        (public_key, path, "not a public key"),
    ]:
        with pytest.raises(UserError, match=words):
            read(file)
    write_pair(tmp_path, "locked", Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"x"))
    with pytest.raises(UserError, match="encrypted"):
        private_key(tmp_path / "locked.pem")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr("kvw.optional.import_module", absent)
    with pytest.raises(UserError, match="need the package") as told:
        public_key(tmp_path / "key.pub")
    assert 'pip install "kvw[evidence]"' in told.value.do


def test_one_form_alone_is_read(pair, tmp_path):
    """What a lenient reader would take for the same."""
    envelope = Envelope(b'{"x": "?>~"}', None).signed_with(pair[0])
    content, path = envelope.packed(), tmp_path / "evidence.json"
    path.write_bytes(content)
    assert read_envelope(path) == envelope
    text = content.decode()
    payload = text.partition('"payload": "')[2].partition('"')[0]
    assert payload.endswith("=") or "+" in payload or "/" in payload
    variants = {
        "white space": text + " ",
        "no line end": text.rstrip("\n"),
        "compact": text.replace("\n", ""),
        "bytes order mark": "\ufeff" + text,
        "url-safe": text.replace(payload, payload.replace("+", "-").replace("/", "_")),
        "split base64": text.replace(payload, payload[:4] + "\\n" + payload[4:]),
        "escapes": text.replace("payloadType", "p\\u0061yloadType"),
        "a key twice": text.replace('"signatures"', '"payload": "", "signatures"'),
        "another key": text.replace('"signatures"', '"more": 1, "signatures"'),
        "no signatures": text.partition(' "signatures"')[0].rstrip().rstrip(",") + "}",
        "a list": f"[{text}]",
        "a number": "1",
        "empty": "",
    }
    for variant in variants.values():
        if variant == text:
            continue
        path.write_bytes(variant.encode())
        with pytest.raises(Altered):
            read_envelope(path)


def test_spare_bits_of_base64_count(tmp_path):
    path = tmp_path / "evidence.json"
    text = Envelope(b"xy").packed().decode()
    assert "eHk=" in text
    path.write_text(text.replace("eHk=", "eHl="))  # decodes to the same two bytes
    with pytest.raises(Altered, match="another way"):
        read_envelope(path)
