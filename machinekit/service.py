"""The engine's service under each init system: its own -H taken away, its environment set. Builders only."""

from __future__ import annotations

import re
import shlex

from machinekit.spec import Spec

KNOWN = ("systemd", "openrc")  # templates/engine/init.sh has the other half of each
DROP_IN = "/etc/systemd/system/docker.service.d/10-machinekit.conf"
CONF_D = "/etc/conf.d/docker"
BEGIN, END = "# machinekit begins", "# machinekit ends"


def hosts(command: str) -> list[str]:
    """The addresses that the service's command line makes the engine listen at."""
    return re.findall(r"(?:^|\s)(?:-H[=\s]?|--host[=\s])(\S+)", command)


def drop_in(spec: Spec, command: str) -> str:
    """The systemd drop-in: takes the unit's own -H away (daemon.json has the hosts) and sets the environment."""
    words, kept = command.split(), _without_hosts(command)
    lines = ["# Written by machinekit.", "[Service]"]
    if kept != words:
        lines += ["ExecStart=", f"ExecStart={' '.join(kept)}"]
    lines += [f"Environment={_unit_quoted(pair)}" for pair in _environment(spec)]
    return "\n".join(lines) + "\n"


def conf_d(spec: Spec, command: str, current: str) -> str:
    """OpenRC's settings of the service: what its owner wrote, then our lines, which do the same as the drop-in."""
    own = without_ours(current)
    words, kept = command.split(), _without_hosts(command)
    lines = [f"DOCKER_OPTS={shlex.quote(' '.join(kept[1:]))}"] if kept != words else []
    lines += [f"export {shlex.quote(pair)}" for pair in _environment(spec)]
    if not lines:
        return own
    return "\n".join([*([own.rstrip("\n")] if own else []), BEGIN, *lines, END]) + "\n"


def _environment(spec: Spec) -> list[str]:
    """What was given by hand comes last and counts."""
    return [*(f"{name}={value}" for name, value in spec.proxies.items()), *spec.env]


def without_ours(text: str) -> str:
    """OpenRC's settings of the service as their owner wrote them."""
    return re.sub(rf"(?ms)^{BEGIN}$.*?^{END}$\n?", "", text)


def _without_hosts(command: str) -> list[str]:
    kept, skip = [], False
    for word in command.split():
        if not skip and not re.match(r"(-H|--host=)", word) and word != "--host":
            kept.append(word)
        skip = word in ("-H", "--host") and not skip
    return kept


def _unit_quoted(text: str) -> str:
    # systemd.syntax(7): C escapes inside quotes; systemd.unit(5): % starts a specifier
    for character, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(character, escaped)
    return f'"{text}"'
