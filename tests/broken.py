"""Records that no machine can be made of, each broken in its own way."""

from __future__ import annotations

import json
import os

from machinekit.machine import SCHEMA, Machine, Phase
from machinekit.record import RECORD
from machinekit.store import Store

RECORDS = {
    "empty": "",
    "half": '{"schema": 1, "name": "bad", "ui',
    "foreign": '{"DriverName": "virtualbox", "ConfigVersion": 3}',
    "newer": json.dumps({"schema": SCHEMA + 1, "name": "bad", "uid": "u"}),
    "list": "[]",
    "deep": "[" * 100_000,
    "binary": "\udcff\udcfe\x00",
}


def broken(store: Store, kind: str) -> None:
    """The machine `bad`, whose record is broken in this way."""
    directory = store.machines / "bad"
    directory.mkdir(mode=0o700, parents=True)
    path = directory / RECORD
    match kind:
        case "none":
            (directory / "mine.txt").write_text("mine")
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(RECORD)
        case "nowhere":
            path.symlink_to("/no/such/file")
        case "another":
            path.write_text(json.dumps(Machine("good", "u", "fake", "s", "").to_json()))
        case "driver":
            machine = Machine("bad", "u", "no-such-driver", "s", "", phase=Phase.READY)
            path.write_text(json.dumps(machine.to_json()))
        case _:
            path.write_bytes(RECORDS[kind].encode(errors="surrogateescape"))


SAID = {
    **dict.fromkeys(("empty", "half", "deep", "binary"), "cannot read "),
    **dict.fromkeys(("directory", "pipe", "endless", "loop", "nowhere"), "is not a file"),
    **dict.fromkeys(("foreign", "list"), "is not a machinekit record"),
    "newer": "was written by a newer machinekit",
    "none": "is no machine of ours: it has no machine.json",
    "another": "has the record of another machine, 'good'",
    "driver": 'driver "no-such-driver" not found',
}
