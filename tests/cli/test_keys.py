"""``kvw keys`` as an operator meets it."""

from __future__ import annotations

from tests.program import assert_refused, run

from kvw.serving.keys import Keys, read_keys


def test_a_key_is_printed_once_and_revoked(tmp_path, capsys):
    file = tmp_path / "keys.json"
    assert run("keys", "add", file, "acme", "--model", "people", "--model", "none") == 0
    printed = capsys.readouterr()
    secret = printed.out.strip()
    assert secret not in printed.err
    assert run("keys", "add", file, "monitor", "--metrics") == 0
    capsys.readouterr()
    owner = Keys(file).owner([f"Bearer {secret}"])
    assert (owner.name, owner.models, owner.metrics) == ("acme", ("people", "none"), False)
    assert [key.metrics for key in read_keys(file).keys] == [False, True]
    assert run("keys", "ls", file) == 0
    listed = capsys.readouterr().out
    assert secret not in listed
    assert listed.splitlines()[0].split("  ")[::2] == ["acme", "people, none"]
    assert run("keys", "remove", file, "acme") == 0
    assert [key.name for key in read_keys(file).keys] == ["monitor"]
    assert_refused(capsys, run("keys", "remove", file, "acme"), "no key 'acme'")
