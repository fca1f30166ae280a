"""Secrets by reference: found once, never shown."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from machinekit import reference
from machinekit.errors import NotSetUpError, UsageError


@pytest.mark.parametrize("text", ["s3cret", "", "env:", "evn:TOKEN", "keyring:s3cret", "keyring:/s3cret", "file: "])
def test_a_value_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="a secret is given by reference, never as its value: env:NAME") as caught:
        reference.check(text)
    assert "s3cret" not in str(caught.value)


def test_a_files_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert reference.check("file:token", tmp_path) == f"file:{tmp_path}/token"
    assert reference.check("file:~/token") == "file:/home/me/token"
    with pytest.raises(ValueError, match="must be an absolute path"):
        reference.check("file:token")
    for text in ("env:TOKEN", "command:pass show a/b", "keyring:a service/me"):
        assert reference.check(text) == text


def test_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "from the environment")
    (tmp_path / "token").write_bytes(b"from a file\n\n")
    assert reference.resolve("env:TOKEN", "here") == "from the environment"
    assert reference.resolve(f"file:{tmp_path}/token", "here") == "from a file\n"
    assert reference.content(f"file:{tmp_path}/token", "here") == b"from a file\n\n", "a file is a file to the byte"
    assert reference.resolve("command:printf 'said\\r\\n'", "here") == "said"
    assert reference.content("command:echo said", "here") == b"said"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("env:NOT_SET", "the variable is not set"),
        ("env:EMPTY", "it is empty"),
        ("file:/nowhere", "No such file or directory"),
        ("command:echo s3cret; echo s3cret >&2; exit 7", "the command fails with exit code 7"),
        ("command:true", "it is empty"),
    ],
)
def test_one_that_cannot_be_resolved_is_named(text: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(UsageError) as caught:
        reference.resolve(text, "machines.web.roles.0.token")
    assert caught.value.message == f"machines.web.roles.0.token: {text} cannot be resolved: {why}"
    assert caught.value.exit_code == 2


def test_a_command_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "PATIENCE", 0.1)
    with pytest.raises(UsageError, match="does not end within 0 s"):
        reference.resolve("command:sleep 10", "here")


def test_a_command_is_asked_once(tmp_path: Path) -> None:
    line = f"command:echo x >>{tmp_path}/asked; echo said"
    assert [reference.resolve(line, "here"), reference.resolve(line, "there")] == ["said", "said"]
    assert (tmp_path / "asked").read_text() == "x\n"


def test_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)  # as when it is not installed
    with pytest.raises(NotSetUpError, match="needs the library keyring") as caught:
        reference.resolve("keyring:a/service/me", "here")
    assert "machinekit[keyring]" in caught.value.hint

    library, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    kept = {("a/service", "me"): "held"}
    library.get_password = lambda service, user: kept.get((service, user))  # type: ignore[attr-defined]
    library.errors = errors  # type: ignore[attr-defined]
    errors.KeyringError = OSError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", library)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert reference.resolve("keyring:a/service/me", "here") == "held"
    with pytest.raises(UsageError, match="the keyring has none"):
        reference.resolve("keyring:a/service/you", "here")


def test_a_file_that_does_not_end() -> None:
    with pytest.raises(UsageError, match="it has more than 8 MB"):
        reference.resolve("file:/dev/zero", "here")


def test_what_was_resolved_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reference.redacted("nothing is known") == "nothing is known"
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("KEY", "-----BEGIN\nMIIB\n-----END\n")
    for name in ("TOKEN", "KEY"):
        reference.resolve(f"env:{name}", "here")
    encoded = base64.b64encode(b"s3cret").decode()
    assert reference.redacted(f"a s3cret b MIIB c {encoded}") == "a *** b *** c ***"


@pytest.mark.parametrize(
    "said",
    [
        lambda secret: json.dumps({"password": secret}),
        lambda secret: json.dumps({"password": secret}, ensure_ascii=False),
        lambda secret: f"+ login {shlex.quote(secret)}",
        lambda secret: f"https://me:{urllib.parse.quote(secret, safe='')}@git.example",
        *(
            lambda secret, user=user: base64.b64encode(f"{user}:{secret}!".encode()).decode()
            for user in ("a", "ab", "abc")
        ),
    ],
)
def test_a_secret_is_hidden_however_a_program_writes_it(
    monkeypatch: pytest.MonkeyPatch, said: Callable[[str], str]
) -> None:
    secret = """it's "é/ s3cret"""  # noqa: S105
    monkeypatch.setenv("TOKEN", secret)
    reference.resolve("env:TOKEN", "here")
    hidden = reference.redacted(said(secret))
    assert reference.HIDDEN in hidden
    assert "s3cret" not in hidden
    assert len(hidden) < len(said(secret)) - 10


def test_a_brace_of_a_secret_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", '{\n"key": "s3cret"\n}\n')
    reference.resolve("env:KEY", "here")
    assert reference.redacted('cannot read {"a": {}}; "key": "s3cret"') == 'cannot read {"a": {}}; ***'
