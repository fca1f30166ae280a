"""A machine's record on the disk: read and judged, or as the bytes that are written."""

from __future__ import annotations

import json
import os

from machinekit.errors import StoreError

TYPE_CHECKING = False  # see cli/command.py
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from machinekit.machine import Machine

RECORD = "machine.json"  # in the machine's own directory, which has its name
ESSENTIAL = {"name": str, "address": str, "url": str, "tls": bool}  # what is read without loading the whole record
LOST = "restore it from a backup; machinekit rm -f forgets the machine, machinekit gc finds what is left of it"


def encode(machine: Machine) -> bytes:
    """JSON with a line for each key: with `indent` it takes Python's encoder, which is five times as slow."""
    lines = (f'  "{key}": {json.dumps(value)}' for key, value in machine.to_json().items())
    return "{{\n{}\n}}\n".format(",\n".join(lines)).encode()


def parse(directory: Path) -> dict[str, Any]:
    """What a directory's record says, as far as it is one; raises StoreError."""
    path = directory / RECORD
    try:
        if not os.path.lexists(path):
            raise StoreError(f"{directory} is no machine of ours: it has no {RECORD}", "move it away")
        if not path.is_file():  # reading a pipe would never end
            raise StoreError(f"cannot read {path}: it is not a file", LOST)
        text = path.read_bytes()
        data = json.loads(text)
        if b"\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()  # half a character could not be printed
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"cannot read {path}: {error}", LOST) from None
    if not isinstance(data, dict) or type(data.get("schema")) is not int:
        raise StoreError(f"{path} is not a machinekit record", LOST)
    return data


def essentials(directory: Path) -> dict[str, Any]:
    """The record as plain data, of which the essential is what it must be; raises StoreError."""
    data = parse(directory)
    for key, kind in ESSENTIAL.items():
        if not isinstance(data.get(key), kind):
            raise _unfit(directory, data, f"no {key}")
    _check_name(directory, data["name"])
    return data


def load(directory: Path) -> Machine:
    """The record, whole; raises StoreError."""
    from machinekit.machine import SCHEMA, Machine

    data = parse(directory)
    try:
        if data["schema"] > SCHEMA:
            raise ValueError("too new")
        machine = Machine.from_json(data)
    except (KeyError, TypeError, ValueError) as error:
        raise _unfit(directory, data, str(error)) from None
    _check_name(directory, machine.name)
    return machine


def _unfit(directory: Path, data: dict[str, Any], why: str) -> StoreError:
    from machinekit.machine import SCHEMA

    if data["schema"] > SCHEMA:
        return StoreError(f'machine "{directory.name}" was written by a newer machinekit', "upgrade machinekit")
    return StoreError(f"{directory / RECORD} is not a machinekit record: {why}", LOST)


def _check_name(directory: Path, recorded: str) -> None:
    if recorded != directory.name:
        raise StoreError(
            f"{directory} has the record of another machine, {recorded!a}",
            f"give the directory the name {recorded!a} again",
        )
