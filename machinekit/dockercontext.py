"""Docker contexts in the docker client's own configuration, as the client stores them.

https://github.com/docker/cli, cli/context/store: meta/<SHA-256 of the name>/meta.json, and the
certificates under tls/<SHA-256 of the name>/docker/. Only this module knows that layout.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machinekit import locks
from machinekit.errors import MachinekitError, StoreError
from machinekit.store import CA, CLIENT_CERT, CLIENT_KEY

RESERVED = "default"
LOCK = ".machinekit.lock"
PATIENCE = 30.0  # seconds to wait for another process that changes the client's configuration
MARK = "machinekit"  # in the metadata, with the machine's uid: contexts of other makers are never touched
STORE = "machinekit.store"  # and with the id of the store that knows the machine


def use(name: str, uid: str, url: str, certificates: Path | None, store: str = "") -> None:
    """Write a context for a machine and make it the client's current one.

    Raises MachinekitError when a context of that name is not ours, StoreError when it cannot be written.
    """
    if name == RESERVED:
        raise MachinekitError(
            f'"{name}" is the docker client\'s own word for the local engine, so no context can be called that',
            f'use eval "$(machinekit env {name})", or a machine of another name',
        )
    if _owner(name) not in (None, uid):
        raise MachinekitError(
            f'there is a docker context "{name}" already, and it is not this machine\'s',
            f"docker context rm {name}, or use machinekit env {name}",
        )
    with _changing("write"):
        _write(name, uid, url, certificates, store)
        _make_current(name)


def refresh(name: str, uid: str, url: str, certificates: Path | None, store: str = "") -> None:
    """Bring the machine's context up to date where it has one."""
    if _is_ours(name, uid):
        with _changing("write"):
            _write(name, uid, url, certificates, store)


def ours() -> list[tuple[str, str, str]]:
    """Every context with our mark: its name, the machine's uid, and the store's id, empty where it is not told."""
    found = []
    for path in sorted((_folder() / "contexts" / "meta").glob("*/meta.json")):
        try:
            about = json.loads(path.read_bytes())
            name, marks = about["Name"], about["Metadata"]
            if path.parent == _meta(name) and isinstance(marks[MARK], str):
                found.append((name, marks[MARK], str(marks.get(STORE, ""))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # another maker's, or nobody's any more
    return found


def _write(name: str, uid: str, url: str, certificates: Path | None, store: str) -> None:
    meta = {
        "Name": name,
        "Metadata": {"Description": f"machinekit machine {name}", MARK: uid, STORE: store},
        "Endpoints": {"docker": {"Host": url, "SkipTLSVerify": False}},
    }
    _make(_meta(name))
    _replace(_meta(name) / "meta.json", json.dumps(meta).encode())
    if certificates:
        folder = _tls(name) / "docker"
        _make(folder)
        for file in (CA, CLIENT_CERT, CLIENT_KEY):
            _replace(folder / file, (certificates / file).read_bytes())


def remove(name: str, uid: str) -> None:
    """Remove the machine's context, or what is left of one; the client goes back to its default."""
    half_made = _is_half_made(name)
    if half_made or _is_ours(name, uid) or any(path.exists() for path in _left()):
        with _changing("remove"):
            if not (half_made or _is_ours(name, uid)):
                return
            if _config().get("currentContext") == name:
                _make_current("")
            for folder in (_tls(name), _meta(name)):
                if folder.exists():
                    shutil.rmtree(folder)


@contextmanager
def _changing(doing: str) -> Iterator[None]:
    """One at a time, and without what one that was killed has left."""
    with _reported(doing):
        _folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = locks.held(
            _folder() / LOCK, "the docker client's configuration", doing, patience=PATIENCE, needed=lambda: False
        )
        with lock:
            _draft(_folder() / "config.json").unlink(missing_ok=True)
            yield


@contextmanager
def _reported(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {doing} the docker context: {error}", "check the folder's permissions") from None


def _is_ours(name: str, uid: str) -> bool:
    try:
        return _owner(name) == uid
    except StoreError:
        return False  # what we cannot even read is not of our making


def _left() -> tuple[Path, ...]:
    """What a command that was killed may have left in the client's own folder."""
    return _folder() / LOCK, _draft(_folder() / "config.json")


def _is_half_made(name: str) -> bool:
    """Whether a command that was killed left a context's folder without what makes it one."""
    meta = _meta(name) / "meta.json"
    return meta.parent.is_dir() and {*meta.parent.iterdir()} <= {_draft(meta)}


def _folder() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")


def _meta(name: str) -> Path:
    return _folder() / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()


def _tls(name: str) -> Path:
    return _folder() / "contexts" / "tls" / hashlib.sha256(name.encode()).hexdigest()


def _make(folder: Path) -> None:
    """Make a folder, and what is missing above it, for its owner alone."""
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        path.mkdir(mode=0o700, exist_ok=True)


def _owner(name: str) -> str | None:
    """The uid in the context's mark; empty for another maker's context, None when there is no context."""
    try:
        return str(json.loads((_meta(name) / "meta.json").read_bytes())["Metadata"].get(MARK, ""))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read the docker context: {error}", "check the folder's permissions") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""


def _config() -> dict[str, Any]:
    try:
        config = json.loads((_folder() / "config.json").read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StoreError(f"{_folder() / 'config.json'} is not valid JSON: {error}", "mend it by hand") from None
    return config if isinstance(config, dict) else {}


def _make_current(name: str) -> None:
    config = _config()
    if name:
        config["currentContext"] = name
    else:
        config.pop("currentContext", None)
    _replace(_folder() / "config.json", json.dumps(config, indent="\t").encode())


def _replace(path: Path, content: bytes) -> None:
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    draft = _draft(path)
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _draft(path: Path) -> Path:
    path = path.resolve()  # the client's configuration may be a link into somebody's dotfiles
    return path.with_name(f".{path.name}.machinekit")
