"""What is in daemon.json: its owner's settings, ours merged with them, and ours taken out again. Builders only.

https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from machinekit.errors import EngineError
from machinekit.spec import Spec

MIRRORS = "registry-mirrors"
# dockerd's flags whose key in daemon.json is another word, and takes a list
LISTS = {
    "authorization-plugin": "authorization-plugins",
    "dns": "dns",
    "dns-opt": "dns-opts",
    "dns-search": "dns-search",
    "exec-opt": "exec-opts",
    "insecure-registry": "insecure-registries",
    "registry-mirror": MIRRORS,
    "storage-opt": "storage-opts",
}
# ... and the ones that take a map of name=value
MAPS = {"log-opt": "log-opts"}
SOCKET = "unix:///var/run/docker.sock"
FILE = "/etc/docker/daemon.json"
MEND = "mend it there, or its option"


def read(encoded: str) -> dict[str, Any]:
    """The settings in the file, which the probe tells as base64; empty for no file."""
    try:
        settings = json.loads(base64.b64decode(encoded) or b"{}")
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{FILE} on the host is not valid JSON: {error}", "mend it by hand") from None
    if not isinstance(settings, dict):
        raise EngineError(f"{FILE} on the host is not a JSON object", "mend it by hand")
    return settings


def merged(
    current: dict[str, Any],
    spec: Spec,
    *,
    driver: str,
    listen: str,
    unit_hosts: list[str],
    mirrors: Sequence[str] = (),
    former: Sequence[str] = (),
) -> dict[str, Any]:
    """The settings with those of the spec merged in; where both have a list, both count.

    `mirrors` are registries of the machine's setup, `former` those that an earlier setup has brought.
    """
    wanted = dict(current)
    if former:
        left = [mirror for mirror in _list(wanted, MIRRORS) if mirror not in former]
        wanted = {key: left if key == MIRRORS else value for key, value in wanted.items() if key != MIRRORS or left}
    labels: list[str] = []
    for pair in spec.opts:
        name, _, value = pair.partition("=")
        if name == "label":
            labels.append(value)
        elif name in LISTS:
            _extend(wanted, LISTS[name], [value])
        elif name in MAPS:
            key, _, inner = value.partition("=")
            wanted[MAPS[name]] = {**_map(wanted, MAPS[name]), key: inner}
        else:
            wanted[name] = _value(value)
    if spec.storage_driver:
        wanted["storage-driver"] = spec.storage_driver
    _extend(wanted, "insecure-registries", spec.insecure_registries)
    _extend(wanted, MIRRORS, [*spec.registry_mirrors, *mirrors])
    labels = [*_list(wanted, "labels"), f"provider={driver}", *labels, *spec.labels]
    wanted["labels"] = list({label.partition("=")[0]: label for label in labels}.values())  # the last one counts
    wanted["hosts"] = [*dict.fromkeys([*(_list(wanted, "hosts") or unit_hosts or [SOCKET]), listen])]
    return wanted


def without(current: dict[str, Any], ours: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The settings as they were before us; what others have changed since stays changed."""
    reverted = {key: _reverted(value, ours.get(key), before.get(key)) for key, value in current.items()}
    return {key: value for key, value in reverted.items() if value is not None}


def _reverted(current: Any, ours: Any, before: Any) -> Any:
    """A setting with our part of it taken back; None when that leaves nothing."""
    if current == ours:
        return before
    if isinstance(current, list) and isinstance(ours, list):
        added = [value for value in ours if value not in (before or [])]
        return [value for value in current if value not in added] or None
    return current  # somebody has changed it since


def brought(current: dict[str, Any], mirrors: Sequence[str], former: Sequence[str]) -> list[str]:
    """The mirrors that are there because of the machine's setup, and so go with it."""
    theirs = [mirror for mirror in _list(current, MIRRORS) if mirror not in former]
    return [mirror for mirror in mirrors if mirror not in theirs]


def _extend(settings: dict[str, Any], key: str, values: Any) -> None:
    if values:
        settings[key] = [*dict.fromkeys([*_list(settings, key), *values])]


def _list(settings: dict[str, Any], key: str) -> list[str]:
    values = settings.get(key) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise EngineError(f'"{key}" must be a list of texts in {FILE}, not {values!r}', MEND)
    return values


def _map(settings: dict[str, Any], key: str) -> dict[str, Any]:
    values = settings.get(key) or {}
    if not isinstance(values, dict):
        raise EngineError(f'"{key}" must be an object in {FILE}, not {values!r}', MEND)
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # the latter for what nests too deep to be meant
        return text


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")  # Python's parser takes NaN, dockerd's does not
