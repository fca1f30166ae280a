"""What people ask for, validated: the engine's settings and a driver's options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from machinekit.errors import UsageError
from machinekit.provider import Driver, Options
from machinekit.store import NAME

# dockerd's flags whose form daemon.json does not share
FLAGS_ONLY = {
    "add-runtime": "runtimes",
    "default-address-pool": "default-address-pools",
    "default-ulimit": "default-ulimits",
}


def check_name(name: str) -> str:
    """The name, when it is one a machine can have; raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a machine",
            "1 to 63 letters, digits, dots and dashes, the first a letter or a digit",
        )
    return name


def _pairs(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"[^=\s]+=.*", value, re.DOTALL):
            raise ValueError(f"{value!r} is not of the form name=value")
    return values


def _single_lines(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not value.isprintable():
            raise ValueError(f"{value!r} has a control character, which a systemd unit cannot carry")
    return values


def _dockerd_options(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        name = value.partition("=")[0]
        if name in FLAGS_ONLY:
            raise ValueError(f"{name} is called {FLAGS_ONLY[name]} in daemon.json and takes JSON there")
        if name.startswith("tls") or name in ("H", "host", "hosts"):
            raise ValueError(f"{name} is machinekit's own to set")
    return values


def _host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|[0-9A-Fa-f:.]+", value):
            raise ValueError(f"{value!r} is neither a host name nor an address")
    return values


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _fingerprint(text: str) -> str:
    digits = "".join(text.split()).upper()
    if digits and not re.fullmatch("[0-9A-F]{40}", digits):
        raise ValueError(f"{text!r} is not the 40 hexadecimal digits of a key's fingerprint")
    return digits


def _proxy(url: str) -> str:
    if not url:
        return url
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError(
            "a proxy with a password would have to be kept in the record: let it know this network instead"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} is not of the form http://HOST:PORT")
    return url.rstrip("/")


def _separated(values: tuple[str, ...]) -> tuple[str, ...]:
    """Each host on its own, as NO_PROXY may have them."""
    hosts = tuple(host for value in values for host in value.split(","))
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9_.:*/\[\]-]+", host):
            raise ValueError(f"{host!r} is neither a host, a domain nor a network")
    return hosts


Proxy = Annotated[str, AfterValidator(_proxy)]
Hosts = Annotated[tuple[str, ...], AfterValidator(_separated)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
File = Annotated[str, AfterValidator(_absolute)]
Pairs = Annotated[tuple[str, ...], AfterValidator(_pairs)]
DockerdOptions = Annotated[Pairs, AfterValidator(_dockerd_options)]
HostNames = Annotated[tuple[str, ...], AfterValidator(_host_names)]
Lines = Annotated[Pairs, AfterValidator(_single_lines)]


class Spec(BaseModel):
    """How the engine of a machine is installed and configured. Every list keeps its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["distro", "docker", "script", "none"] = Field(
        default="distro",
        description="where the engine comes from: distro, docker, script or none",
    )
    install_url: str = Field(default="", description="the script to install the engine with (--engine script)")
    version: str = Field(
        default="",
        pattern=r"^([0-9][0-9A-Za-z.:~+_-]*)?$",
        description="exact version, held against upgrades, such as 29.1.2 (--engine docker or distro)",
    )
    repository: str = Field(
        default="",
        pattern=r"^(https?://[^\s'\"]+)?$",
        description="base URL of a mirror of Docker's repository (--engine docker)",
    )
    key_fingerprint: Fingerprint = Field(
        default="", description="the fingerprint of the key that signs such a mirror, if not Docker's (--engine docker)"
    )
    opts: DockerdOptions = Field(default=(), description="dockerd option, name=value, the value JSON or text")
    labels: Pairs = Field(default=(), description="engine label, name=value")
    env: Lines = Field(default=(), description="engine environment, NAME=value")
    insecure_registries: tuple[str, ...] = Field(default=(), description="registry to talk to without verified TLS")
    registry_mirrors: tuple[str, ...] = Field(default=(), description="registry mirror URL")
    storage_driver: str = Field(default="", description="storage driver of the engine")
    proxy: Proxy = Field(default="", description="HTTP proxy for packages, images and the engine, http://HOST:PORT")
    no_proxy: Hosts = Field(default=(), description="host, domain or network that is reached without the proxy")
    tls_sans: HostNames = Field(default=(), description="further name or address in the server certificate")
    tls_ca_cert: File = Field(default="", description="a CA of your own (PEM) instead of one for each machine")
    tls_ca_key: File = Field(default="", description="its key (PEM), read where it is whenever it must sign")

    @property
    def proxies(self) -> dict[str, str]:
        """The proxy as programs read it from their environment; empty without one."""
        if not self.proxy:
            return {}
        direct = ",".join(dict.fromkeys(["localhost", "127.0.0.1", "::1", *self.no_proxy]))
        return {"HTTP_PROXY": self.proxy, "HTTPS_PROXY": self.proxy, "NO_PROXY": direct}

    def model_post_init(self, context: Any) -> None:
        """Refuse what no single field can see."""
        if self.install_url and self.engine != "script":
            raise ValueError("an install URL goes with --engine script")
        if self.engine == "script" and not self.install_url:
            raise ValueError("--engine script needs --engine-install-url")
        if self.version and self.engine not in ("distro", "docker"):
            raise ValueError("--engine-version goes with --engine distro or docker")
        if (self.repository or self.key_fingerprint) and self.engine != "docker":
            raise ValueError("--engine-repository and --engine-key-fingerprint go with --engine docker")
        if bool(self.tls_ca_cert) is not bool(self.tls_ca_key):
            raise ValueError("--tls-ca-cert and --tls-ca-key go together")
        if self.no_proxy and not self.proxy:
            raise ValueError("--no-proxy goes with --proxy")


def parse_spec(values: dict[str, Any]) -> Spec:
    """The engine's settings; raises UsageError that names the flag."""
    try:
        return Spec(**values)
    except ValidationError as error:
        raise _usage_error(error, engine_flag, Spec.model_fields) from None


def engine_flag(field: str) -> str:
    """The command-line flag of an engine setting: --engine-label for labels."""
    name = {"insecure_registries": "insecure_registry"}.get(field) or field.removesuffix("s")
    prefix = "--" if field in ("engine", "proxy", "no_proxy") or field.startswith("tls_") else "--engine-"
    return f"{prefix}{name}".replace("_", "-")


def model(options: type[Options]) -> type[BaseModel]:
    """The pydantic model of a driver's options: validation, JSON Schema and docs come from it."""
    hints = get_type_hints(options)
    fields_: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        info = field.metadata["option"]
        default = ... if field.default is dataclasses.MISSING else field.default
        fields_[field.name] = (hints[field.name], Field(default, description=info.help, **info.rules))
    return create_model(options.__name__, __config__=ConfigDict(extra="forbid"), **fields_)


def parse_options(name: str, driver: type[Driver[Any]], values: dict[str, Any]) -> Options:
    """A driver's options from texts and numbers; raises UsageError that names the flag."""
    from machinekit.drivers import flag

    validated = model(driver.Options)
    try:
        options = driver.Options(**dict(validated(**values)))
    except ValidationError as error:
        secrets = {field for field, info in driver.Options.infos().items() if info.secret}
        raise _usage_error(error, lambda field: flag(name, field), validated.model_fields, secrets) from None
    try:
        options.check()
    except ValueError as error:
        raise UsageError(f"driver {name}: {error}") from None
    return options


def storable(options: Options) -> dict[str, Any]:
    """The options as they are kept in a record: no secrets, only JSON."""
    infos = options.infos()
    values = {key: value for key, value in dataclasses.asdict(options).items() if not infos[key].secret}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _usage_error(
    error: ValidationError, flag: Callable[[str], str], fields: Mapping[str, FieldInfo], secrets: Collection[str] = ()
) -> UsageError:
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name in secrets and problem["type"] != "missing":
            lines.append(f"{flag(name)} does not have the right form: {fields[name].description}")  # not the value
        else:
            lines.append(_explained(problem, flag, fields))
    return UsageError("; ".join(lines))


def _explained(problem: ErrorDetails, flag: Callable[[str], str], fields: Mapping[str, FieldInfo]) -> str:
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    name = str(problem["loc"][0])
    match problem["type"]:
        case "missing":
            return f"{flag(name)} is required"
        case "string_pattern_mismatch":
            return f"{flag(name)}: {problem['input']!r} is not a value it takes: {fields[name].description}"
        case "value_error":
            return f"{flag(name)}: {problem['ctx']['error']}"
        case _:
            return f"{flag(name)}: {problem['msg']} (given: {problem['input']!r})"
