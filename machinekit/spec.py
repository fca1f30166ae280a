"""What people ask for, validated: the engine's settings and a driver's options."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from machinekit.errors import UsageError, nearest
from machinekit.provider import Driver, Options
from machinekit.settings import (
    PACKAGE_VERSION,
    DockerdOptions,
    EngineLabels,
    File,
    Fingerprint,
    HostNames,
    Hosts,
    InsecureRegistries,
    Mirrors,
    PackageVersions,
    Proxy,
    StorageDriver,
    Variables,
    WebAddress,
)
from machinekit.store import NAME

VERSION = f"^({PACKAGE_VERSION})?$"


def check_name(name: str) -> str:
    """The name, when it is one a machine can have; raises UsageError."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a machine",
            "1 to 63 letters, digits, dots and dashes, the first a letter or a digit",
        )
    return name


class Spec(BaseModel):
    """How the engine of a machine is installed and configured. Every list keeps its order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["distro", "docker", "script", "none"] = Field(
        default="distro",
        description="where the engine comes from: distro, docker, script or none",
    )
    install_url: WebAddress = Field(default="", description="the script to install the engine with (--engine script)")
    version: str = Field(
        default="",
        pattern=VERSION,
        description="exact version, held against upgrades, such as 29.1.2 (--engine docker or distro)",
    )
    packages: PackageVersions = Field(
        default=(), description="exact version of a package beside the engine's, such as containerd.io=2.2.1-1"
    )
    repository: WebAddress = Field(
        default="", description="base URL of a mirror of Docker's repository (--engine docker)"
    )
    key_fingerprint: Fingerprint = Field(
        default="", description="the fingerprint of the key that signs such a mirror, if not Docker's (--engine docker)"
    )
    opts: DockerdOptions = Field(default=(), description="dockerd option, name=value, the value JSON or text")
    labels: EngineLabels = Field(default=(), description="engine label, name=value")
    env: Variables = Field(default=(), description="engine environment, NAME=value")
    insecure_registries: InsecureRegistries = Field(default=(), description="registry to talk to without verified TLS")
    registry_mirrors: Mirrors = Field(default=(), description="registry mirror URL")
    storage_driver: StorageDriver = Field(default="", description="storage driver of the engine")
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

    @property
    def takes_any_engine(self) -> bool:
        """Whether the distribution's engine will do as it is in an image."""
        return self.engine == "distro" and not self.version

    def model_post_init(self, context: Any) -> None:
        """Refuse what no single field can see."""
        if self.install_url and self.engine != "script":
            raise ValueError("--engine-install-url goes with --engine script")
        if self.engine == "script" and not self.install_url:
            raise ValueError("--engine script needs --engine-install-url")
        if self.version and self.engine not in ("distro", "docker"):
            raise ValueError("--engine-version goes with --engine distro or docker")
        if self.packages and not self.version:
            raise ValueError("--engine-package goes with --engine-version")
        if (self.repository or self.key_fingerprint) and self.engine != "docker":
            raise ValueError("--engine-repository and --engine-key-fingerprint go with --engine docker")
        if bool(self.tls_ca_cert) is not bool(self.tls_ca_key):
            raise ValueError("--tls-ca-cert and --tls-ca-key go together")
        if self.no_proxy and not self.proxy:
            raise ValueError("--no-proxy goes with --proxy")


def parse_spec(values: dict[str, Any], variables: Mapping[str, str] = MappingProxyType({})) -> Spec:
    """The engine's settings; raises UsageError that names the flag, or the environment variable it came from."""
    try:
        return Spec(**values)
    except ValidationError as error:
        problems = explained(error, engine_flag, Spec.model_fields)
        raise UsageError(in_words_of(problems, engine_flag, _dollars(variables))) from None


def engine_flag(field: str) -> str:
    """The command-line flag of an engine setting: --engine-label for labels."""
    name = {"insecure_registries": "insecure_registry"}.get(field) or field.removesuffix("s")
    prefix = "--" if field in ("engine", "proxy", "no_proxy") or field.startswith("tls_") else "--engine-"
    return f"{prefix}{name}".replace("_", "-")


def model(options: type[Options]) -> type[BaseModel]:
    """The pydantic model of a driver's options: validation, JSON Schema and docs come from it."""
    hashable: Any = options  # as every class is, though mypy takes a dataclass's for its instances
    return _model(hashable)


@functools.cache
def _model(options: type[Options]) -> type[BaseModel]:
    hints = get_type_hints(options)
    fields_: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        info = field.metadata["option"]
        default = ... if field.default is dataclasses.MISSING else field.default
        kind = Annotated[hints[field.name], AfterValidator(info.check)] if info.check else hints[field.name]
        fields_[field.name] = (kind, Field(default, description=info.help, **info.rules))
    return create_model(options.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields_)


def parse_options(
    name: str,
    driver: type[Driver[Any]],
    values: dict[str, Any],
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Options:
    """A driver's options from texts and numbers; raises UsageError that names the flag or the environment variable."""
    from machinekit import drivers

    def flag(field: str) -> str:
        return drivers.flag(name, field)

    validated = model(driver.Options)
    try:
        options = driver.Options(**dict(validated(**values)))
        options.check()
    except ValidationError as error:
        secrets = {field for field, info in driver.Options.infos().items() if info.secret}
        problems = explained(error, flag, validated.model_fields, secrets)
        raise UsageError(in_words_of(problems, flag, _dollars(variables))) from None
    except ValueError as error:
        raise UsageError(in_words_of(f"driver {name}: {error}", flag, _dollars(variables))) from None
    return options


def explanation(problem: ErrorDetails, field: FieldInfo | None) -> str:  # noqa: PLR0911 (a table)
    """What a single problem is, to be read after the name of the option."""
    given = problem["input"]
    match problem["type"]:
        case "missing":
            return " is required"
        case "extra_forbidden":
            return " is no option"
        case "value_error":
            return f": {problem['ctx']['error']}"
        case "string_unicode":
            return f": {given!r} is not valid UTF-8"
        case "bool_parsing":
            return f": {given!r} is neither true nor false"
        case "literal_error" if field:
            choices = get_args(field.annotation)
            return f": {given!r} is none of {', '.join(choices)}{nearest(str(given), choices)}"
        case kind if field and kind.startswith(_NUMBERS):
            return f": {given!r} is not {_range(field)}"
        case _:
            return f": {given!r} is not a value it takes: {field.description if field else problem['msg']}"


def in_words_of(text: str, flag: Callable[[str], str], names: Mapping[str, str]) -> str:
    """The text with the flags that nobody typed in the words that were used, which are given by field."""
    for field, name in names.items():
        text = re.sub(rf"(?<![\w-]){re.escape(flag(field))}(?![\w-])", lambda _, name=name: name, text)  # type: ignore[misc]
    return text


def storable(options: Options) -> dict[str, Any]:
    """The options as they are kept in a record: no secrets, only JSON."""
    infos = options.infos()
    values = {key: value for key, value in dataclasses.asdict(options).items() if not infos[key].secret}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _dollars(variables: Mapping[str, str]) -> dict[str, str]:
    return {field: f"${variable}" for field, variable in variables.items()}


def explained(
    error: ValidationError, flag: Callable[[str], str], fields: Mapping[str, FieldInfo], secrets: Collection[str] = ()
) -> str:
    """What pydantic found, in our words: what is wrong, and what is allowed. Never a secret's value."""
    lines = []
    for problem in error.errors(include_url=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if not problem["loc"]:
            lines.append(str(problem["ctx"]["error"]))
        elif name in secrets and problem["type"] != "missing":
            lines.append(f"{flag(name)} does not have the right form: {fields[name].description}")
        else:
            near = nearest(name, fields) if problem["type"] == "extra_forbidden" else ""
            lines.append(f"{flag(name)}{explanation(problem, fields.get(name))}{near}")
    return "; ".join(lines)


_NUMBERS = ("int_", "float_", "finite_", "greater_", "less_")


def _range(field: FieldInfo) -> str:
    """The numbers a field takes, in words."""
    limits = {key: getattr(rule, key) for rule in field.metadata for key in ("ge", "le") if hasattr(rule, key)}
    kind = "a whole number" if field.annotation in (int, int | None) else "a number"
    match limits:
        case {"ge": low, "le": high}:
            return f"{kind} from {low} to {high}"
        case {"ge": low}:
            return f"{kind}, {low} or more"
        case {"le": high}:
            return f"{kind}, {high} or less"
        case _:
            return kind
