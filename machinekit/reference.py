"""Secrets by reference: what people write instead of a secret, resolved once a process and never stored."""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from machinekit import pack
from machinekit.errors import NotSetUpError, UsageError

KINDS = ("env", "file", "command", "keyring")
FORM = "env:NAME, file:PATH, command:SHELL LINE or keyring:SERVICE/USER"
PATIENCE = 120.0  # seconds for a command, which may itself ask a person
HIDDEN = "***"
TELLING = 4  # characters: a shorter line of a secret, such as a brace, tells nothing, and much else has it

_values: dict[str, str] = {}
_one_at_a_time = threading.Lock()  # machines that work at the same time share the answer


def check(text: str, folder: Path | None = None) -> str:
    """The reference, a file's path made absolute; raises ValueError when it is none, and never says what it is."""
    kind, separator, what = text.partition(":")
    user = what.rpartition("/") if kind == "keyring" else ("-", "-", "-")
    if kind not in KINDS or not separator or not what.strip() or not all(user):
        raise ValueError(f"a secret is given by reference, never as its value: {FORM}")
    if kind == "file":
        return f"file:{pack.absolute(what, folder)}"
    return text


def resolve(reference: str, where: str) -> str:
    """The secret, as os.environ has texts, without the newline at its end; raises UsageError that names `where`.

    A keyring needs a library of its own: without it this raises NotSetUpError.
    """
    with _one_at_a_time:
        if reference not in _values:
            kind, _, what = reference.partition(":")
            try:
                value = _KNOWN[kind](what)
            except _UnknownError as error:
                raise UsageError(
                    f"{where}: {reference} cannot be resolved: {error}", "give it, and try again"
                ) from None
            if not value.strip("\r\n"):
                raise UsageError(f"{where}: {reference} cannot be resolved: it is empty", "give it, and try again")
            _values[reference] = value
        return _values[reference].removesuffix("\n").removesuffix("\r")


def content(reference: str, where: str) -> bytes:
    """The secret as a file's content: to the byte when it comes from a file; raises what `resolve` raises."""
    value = resolve(reference, where)
    return os.fsencode(_values[reference] if reference.startswith("file:") else value)


def redacted(text: str) -> str:
    """The text with every secret of this process hidden, however a script may have put it."""
    for form in _forms():
        text = text.replace(form, HIDDEN)
    return text


def _refused(reference: str, where: str, why: str) -> UsageError:
    return UsageError(f"{where}: {reference} cannot be resolved: {why}", "give it, and run the same command again")


def _forms() -> list[str]:
    """What to hide: the secrets, each line of one that has several, and as programs write them; the longest first."""
    forms = set()
    for value in list(_values.values()):
        whole = value.strip("\r\n")
        texts = {whole, *(line for line in whole.splitlines() if len(line.strip()) >= TELLING)}
        for text in texts:
            forms |= {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
            forms |= {shlex.quote(text), urllib.parse.quote(os.fsencode(text), safe="")}
        forms |= {base64.b64encode(os.fsencode(form)).decode() for form in (value, whole)}
        forms |= set(_inside_base64(os.fsencode(whole)))
    return sorted(forms, key=len, reverse=True)


def _inside_base64(secret: bytes) -> Iterator[str]:
    """What a longer text with the secret in it has of it in Base64, such as a registry's "user:password"."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode()
        form = encoded[-(-8 * before // 6) : 8 * (before + len(secret)) // 6]
        if len(form) >= 2 * TELLING:
            yield form


class _UnknownError(Exception):
    """Why there is no such secret."""


def _variable(name: str) -> str:
    if name not in os.environ:
        raise _UnknownError("the variable is not set")
    return os.environ[name]


def _file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            held = file.read(pack.LIMIT + 1)
    except OSError as error:
        raise _UnknownError(error.strerror) from None
    if len(held) > pack.LIMIT:
        raise _UnknownError(f"it has more than {pack.LIMIT >> 20} MB")
    return os.fsdecode(held)


def _command(line: str) -> str:
    try:
        result = subprocess.run(
            ["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise _UnknownError(f"the command does not end within {PATIENCE:.0f} s") from None
    if result.returncode != 0:
        # what it said is its own business: a command that fails late may have said the secret
        raise _UnknownError(f"the command fails with exit code {result.returncode}")
    return os.fsdecode(result.stdout)


def _keyring(what: str) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise NotSetUpError(f"keyring:{what} needs the library keyring", "pip install 'machinekit[keyring]'") from None
    service, _, user = what.rpartition("/")
    try:
        value: str | None = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise _UnknownError(f"the keyring says: {error}") from None
    if value is None:
        raise _UnknownError("the keyring has none")
    return value


_KNOWN = {"env": _variable, "file": _file, "command": _command, "keyring": _keyring}
