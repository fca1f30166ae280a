"""The forms of the engine's settings: what is certainly wrong is refused before a machine is made.

Whatever else is wrong the engine itself says, and its settings are put back then.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from machinekit.provider import absolute

# dockerd's flags whose form daemon.json does not share
FLAGS_ONLY = {
    "add-runtime": "runtimes",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
}
# https://docs.docker.com/engine/manage-resources/labels/#key-format-recommendations
RESERVED = ("com.docker.", "io.docker.", "org.dockerproject.")
# packages that come with an engine's and have versions of their own
COMPANIONS = ("containerd.io", "docker-buildx-plugin", "containerd", "runc", "docker-cli")
PACKAGE_VERSION = r"[0-9][0-9A-Za-z.:~^+_-]*"  # of dpkg, rpm and apk
HOST = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"


def _each(check: Callable[[str], None]) -> AfterValidator:
    """A validator of lists whose every value must pass."""

    def checked(values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if re.search("[\ud800-\udfff]", value):  # bytes that were no text
                raise ValueError(f"{value!r} is not valid UTF-8")
            check(value)
        return values

    return AfterValidator(checked)


def _pair(value: str) -> None:
    if not re.fullmatch(r"[^=\s]+=.*", value, re.DOTALL):
        raise ValueError(f"{value!r} is not of the form name=value")


def _label(value: str) -> None:
    _pair(value)
    if value.startswith(RESERVED):
        raise ValueError(f"{value!r}: names that start with {', '.join(RESERVED)} are Docker's own")


def _package(value: str) -> None:
    name, _, version = value.partition("=")
    if name not in COMPANIONS or not re.fullmatch(PACKAGE_VERSION, version):
        raise ValueError(f"{value!r} is not NAME=VERSION with one of the names {', '.join(COMPANIONS)}")


def _packages(versions: dict[str, str]) -> dict[str, str]:
    for name, version in versions.items():
        _package(f"{name}={version}")
    return versions


def _variable(value: str) -> None:
    # systemd passes over other assignments without failing: systemd.exec(5), Environment=
    name, separator, content = value.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{value!r} is not of the form NAME=value, the name of letters, digits and underscores")
    if bad := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", content):
        raise ValueError(f"{value!r} has the control character {bad[0]!r}, which a systemd unit cannot carry")


def _dockerd_option(value: str) -> None:
    _pair(value)
    name, _, content = value.partition("=")
    if name in FLAGS_ONLY:
        raise ValueError(f"{name} is called {FLAGS_ONLY[name]} in daemon.json and takes JSON there")
    if name.startswith("tls") or name in ("H", "host", "hosts"):
        raise ValueError(f"{name} is machinekit's own to set")
    if name == "label":
        _label(content)
    if content.startswith(("{", "[")):
        try:
            json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{value!r} begins like JSON and is none: {error}") from None


def _host_name(value: str) -> None:
    if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:.]+", value):
        raise ValueError(f"{value!r} is neither a host name nor an address")


def _insecure_registry(value: str) -> None:
    host, _, port = value.rpartition(":") if re.search(r":\d+$", value) else (value, ":", "1")
    try:
        if "/" in value:
            ipaddress.ip_network(value, strict=False)
            return
        if host.startswith("["):
            ipaddress.IPv6Address(host.removeprefix("[").removesuffix("]"))
            host = "localhost"
    except ValueError:
        host = ""
    if not re.fullmatch(HOST, host) or not _is_port(port):
        raise ValueError(f"{value!r} is neither HOST[:PORT] nor a network such as 10.0.0.0/8")


def _mirror(value: str) -> None:
    web_address(value)
    if urlsplit(value).query or urlsplit(value).fragment:
        raise ValueError(f"{value!r}: a mirror's URL has neither ? nor #")


def _address(value: str) -> str:
    if value:
        web_address(value)
    return value


def _fingerprint(text: str) -> str:
    digits = "".join(text.split()).upper()
    if digits and not re.fullmatch("[0-9A-F]{40}", digits):
        raise ValueError(f"{text!r} is not the 40 hexadecimal digits of a key's fingerprint")
    return digits


def _proxy(url: str) -> str:
    if url:
        web_address(url)
        if urlsplit(url).path.strip("/") or urlsplit(url).query:
            raise ValueError(f"{url!r} is not of the form http://HOST:PORT")
    return url.rstrip("/")


def _separated(values: tuple[str, ...]) -> tuple[str, ...]:
    """Each host on its own, as NO_PROXY may have them."""
    hosts = tuple(host for value in values for host in value.split(","))
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9_.:*/\[\]-]+", host):
            raise ValueError(f"{host!r} is neither a host, a domain nor a network")
    return hosts


def web_address(value: str) -> None:
    """Raise ValueError unless it is an http or https URL without a password, which others would see."""
    try:
        url = urlsplit(value)
        right = (
            url.scheme in ("http", "https")
            and re.fullmatch(f"{HOST}|[0-9a-f:.]+", url.hostname or "")
            and _is_port(url.port)
        )
    except ValueError:  # a port or an address that is none
        right = False
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ValueError("a URL with a user or a password in it would be seen by others")
    if not right or not value.isprintable() or " " in value:
        raise ValueError(f"{value!r} is not a URL such as https://host.example/path")


def _is_port(port: str | int | None) -> bool:
    return port is None or 1 <= int(port) <= 65535  # noqa: PLR2004


def _storage_driver(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./:-]*", value):  # a plugin's may be an image's name
        raise ValueError(f"{value!r} is not a name such as overlay2")
    return value


DockerdOptions = Annotated[tuple[str, ...], _each(_dockerd_option)]
EngineLabels = Annotated[tuple[str, ...], _each(_label)]
PackageVersions = Annotated[tuple[str, ...], _each(_package)]
VersionByPackage = Annotated[dict[str, str], AfterValidator(_packages)]
Variables = Annotated[tuple[str, ...], _each(_variable)]
HostNames = Annotated[tuple[str, ...], _each(_host_name)]
InsecureRegistries = Annotated[tuple[str, ...], _each(_insecure_registry)]
Mirrors = Annotated[tuple[str, ...], _each(_mirror)]
WebAddress = Annotated[str, AfterValidator(_address)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
File = Annotated[str, AfterValidator(absolute)]
Proxy = Annotated[str, AfterValidator(_proxy)]
Hosts = Annotated[tuple[str, ...], AfterValidator(_separated)]
StorageDriver = Annotated[str, AfterValidator(_storage_driver)]
