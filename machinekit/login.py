"""Which keys to show a host, in which order, and why none of them opens."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import paramiko

from machinekit.errors import LoginError, UnreachableError
from machinekit.provider import Access
from machinekit.secret import Ask, advice, reveal

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
KINDS = re.compile("(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+|)$")  # that sign without a device or an agent
OTHERS_MAY_READ = 0o077
PUBLIC = (b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC")
Key = paramiko.PKey


class Keys:
    """The keys for one login, as paramiko's authentication strategy.

    With a `key_file` only that key counts, from the agent if it is there. Without one the agent's keys are
    tried, then those of `access`. Raises LoginError at once when the `key_file` cannot be used.
    """

    def __init__(self, who: str, user: str, key_file: Path | None, access: Access, ask: Ask) -> None:
        self._who = who
        self._user = user
        self._access = access
        self._ask = ask
        self._unusable: list[str] = []
        self._agent = _Agent(access.agent)
        try:
            self._given = [(str(key_file), self._explicit(key_file))] if key_file else []
        except LoginError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the agent alone."""
        self._agent._close()  # type: ignore[attr-defined]  # paramiko has no public one

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Show one key after the other until the host takes one."""
        tried: list[str] = []
        for name, key in self._given or self._all():
            try:
                further = transport.auth_publickey(self._user, key)
            except paramiko.BadAuthenticationType as error:
                raise LoginError(
                    f"{self._who} takes no keys, only {', '.join(error.allowed_types)}", "let its sshd accept a key"
                ) from None
            except (paramiko.SSHException, EOFError) as error:
                if not transport.is_active():
                    raise self._cut(tried) from None
                if "timeout" in str(error).lower():
                    raise UnreachableError(f"{self._who} stalls during the login", "try again") from None
                tried.append(name)
                continue
            if further:
                raise LoginError(
                    f"{self._who} wants more than a key: {', '.join(further)}", "use an account that logs in with a key"
                )
            return
        raise self._refused(tried)

    def _explicit(self, path: Path) -> Key:
        public = public_part(path)
        if public and (held := self._agent.holds(public)):
            return held
        return load(path, self._access, self._ask)

    def _all(self) -> Iterator[tuple[str, Key]]:
        paths = self._access.keys or tuple(Path.home() / ".ssh" / name for name in DEFAULT_KEYS)
        paths = tuple(path for path in paths if path.exists())
        public = {part for path in paths if (part := public_part(path))}
        for key in self._agent.get_keys():
            if key.blob in public or not self._access.only_keys:
                yield f"the agent's {key.comment}", key
        shown = {key.blob for key in self._agent.get_keys()}
        for path in sorted(paths, key=_is_encrypted):  # nobody is asked for a passphrase in vain
            if public_part(path) in shown:
                continue
            try:
                yield str(path), load(path, self._access, self._ask)
            except LoginError as error:
                self._unusable.append(error.message)

    def _refused(self, tried: list[str]) -> LoginError:
        remarks = "".join(f"; {remark}" for remark in self._unusable)
        if not tried:
            return LoginError(
                f"there is no key to log in to {self._who} with{remarks}",
                "give a private key, or put one into your agent with ssh-add",
            )
        return LoginError(
            f"{self._who} refuses the login with {', '.join(tried)}{remarks}",
            f"check the user and the key; an account that is locked or has expired refuses {self._user} the same way",
        )

    def _cut(self, tried: list[str]) -> LoginError | UnreachableError:
        if not tried:
            return UnreachableError(
                f"{self._who} breaks off during the login", "if it stays so, the account may have expired"
            )
        return LoginError(
            f"{self._who} breaks off the login after {len(tried) + 1} keys",
            "it allows no more tries: name the right key, or set IdentitiesOnly in your ssh_config",
        )


class _Agent(paramiko.agent.AgentSSH):
    """The agent at a socket of one's choice; without one that answers it has no keys."""

    def __init__(self, path: str) -> None:
        super().__init__()
        path = os.environ.get("SSH_AUTH_SOCK", "") if path in ("", "SSH_AUTH_SOCK") else path
        if path in ("", "none"):
            return
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(Path(os.path.expandvars(path)).expanduser()))
            self._connect(connection)  # type: ignore[attr-defined]  # as above
        except (OSError, paramiko.SSHException):
            connection.close()
            self._conn = None

    def holds(self, public: bytes) -> Key | None:
        """The key with that public part."""
        return next((key for key in self.get_keys() if key.blob == public), None)


def load(path: Path, access: Access, ask: Ask) -> Key:
    """The private key in a file; raises LoginError that says what is wrong with it."""
    problem, hint = _problem(path)
    if problem:
        raise LoginError(problem, hint)
    try:
        return _read(path, None)
    except TypeError:  # cryptography's word for "encrypted"
        pass
    question, answer = f"passphrase of {path}", None
    while (answer := reveal(question, access.passphrase, ask, wrong=answer)) is not None:
        with contextlib.suppress(ValueError):
            return _read(path, answer)
    raise LoginError(
        f"{path} has a passphrase, and nobody tells the right one",
        f"put the key into your agent: ssh-add {path}"
        + (f"; or {more}" if (more := advice(access.passphrase)) else ""),
    )


def public_part(path: Path) -> bytes:
    """The public key that belongs to a private key's file, as the agent has it; empty when that cannot be told."""
    try:
        body = re.search(rb"OPENSSH PRIVATE KEY-----(.*?)-----END", path.read_bytes(), re.DOTALL)
        if not body:
            return base64.b64decode(path.with_name(f"{path.name}.pub").read_text().split()[1])
        message = paramiko.Message(base64.b64decode(body[1]).removeprefix(b"openssh-key-v1\0"))
        for _ in ("cipher", "kdf", "its options"):
            message.get_binary()
        message.get_int()  # how many keys there are: always one
        return message.get_binary()
    except (OSError, ValueError, IndexError):
        return b""


def _read(path: Path, passphrase: str | None) -> Key:
    """The key; raises TypeError without a passphrase that it needs, ValueError for a wrong one."""
    try:
        key: Key = paramiko.PKey.from_path(path, os.fsencode(passphrase) if passphrase is not None else None)  # type: ignore[arg-type]
        return key
    except TypeError:
        raise
    except Exception as error:  # a file that is damaged makes the libraries raise anything, assertions among it
        if passphrase is not None and isinstance(error, ValueError):
            raise
        raise LoginError(f"{path} is not a private key: {error}", "give the path of a private key") from None


def _problem(path: Path) -> tuple[str, str]:
    """What is wrong with a key's file at first sight, and what to do; empty when nothing is."""
    try:
        content, status = path.read_bytes(), path.stat()
    except FileNotFoundError:
        return f"there is no SSH key at {path}", "give the path of a private key"
    except OSError as error:
        return f"cannot read the SSH key {path}: {error.strerror}", "give the path of a private key"
    if content.startswith(PUBLIC):
        return f"{path} is a public key", f"give the private one, {path.with_suffix('')}"
    if content.startswith(b"PuTTY"):
        return f"{path} is a key of PuTTY's", f"puttygen {path} -O private-openssh -o NEW"
    if status.st_uid == os.getuid() and status.st_mode & OTHERS_MAY_READ:
        return f"others may read {path}, so OpenSSH refuses to use it", f"chmod 600 {path}"
    return _not_ours(path, content)


def _not_ours(path: Path, content: bytes) -> tuple[str, str]:
    public = public_part(path)
    kind = paramiko.Message(public).get_binary().decode(errors="replace")
    if b"BEGIN DSA" not in content and KINDS.match(kind):
        return "", ""
    return (
        f"the key in {path} is of a kind that we cannot sign with{f', {kind}' if kind else ''}",
        f"put it into your agent (ssh-add {path}), or use a key of type ed25519",
    )


def _is_encrypted(path: Path) -> bool:
    try:
        paramiko.PKey.from_path(path)
    except TypeError:
        return True
    except Exception:  # noqa: S110 (what is wrong with it, `load` will say)
        pass
    return False
