"""Roles: folders with a declaration of their options and three scripts. Runs nothing.

role.yaml       what it is, and its options as data
install.sh.j2   puts it on the machine; may run again at any time
check.sh.j2     exits 0 when it is there as wanted, else says what is wrong; gets no secrets
remove.sh.j2    takes it away again
"""

from __future__ import annotations

import base64
import functools
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import SchemaError

from machinekit import pack, reference
from machinekit.errors import nearest
from machinekit.render import filled, folder
from machinekit.spec import explained

BUILT_IN = "roles"  # in templates/
DECLARATION = "role.yaml"
STATE = "/var/lib/machinekit/roles"  # on a machine
RESERVED = {"role", "name", "options", "kept", "state"}  # words of a role's use, and of its templates
SCRIPTS = ("install", "check", "remove")


def is_stored(info: ValidationInfo) -> bool:
    """Whether what is validated is a record's, whose word counts."""
    return bool((info.context or {}).get("stored"))


def folder_of(info: ValidationInfo) -> Path | None:
    """Where relative paths count from."""
    return (info.context or {}).get("folder")


def _secret(text: str, info: ValidationInfo) -> str:
    return text if not text or is_stored(info) else reference.check(text, folder_of(info))


def _written(value: Any) -> Any:
    """A number may be a secret that somebody wrote: its value is not to be told."""
    return value if isinstance(value, str) else reference.check("")


def _local(path: str, info: ValidationInfo) -> str:
    if "\n" in path:
        raise ValueError(f"{path.partition(chr(10))[0]!r} and so on is a text; give the path of a file that has it")
    return path if not path or is_stored(info) else pack.absolute(path, folder_of(info))


Secret = Annotated[str, BeforeValidator(_written), AfterValidator(_secret)]
Local = Annotated[str, AfterValidator(_local)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Option(BaseModel):
    """One option, as a role declares it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["string", "integer", "boolean", "list", "map", "file", "folder"] = "string"
    help: str
    default: Any = None
    required: bool = False
    secret: bool = False  # a string or a map whose values are references
    identity: bool = False  # another value is another thing: the old one is removed first
    needs: str = ""  # the option that goes with it
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    min: int | None = None
    max: int | None = None


class Declaration(BaseModel):
    """What role.yaml says.

    What is `outside` leaves something elsewhere that has to be taken back before the machine goes, such as the
    registration of a runner. `pins` are the options that together say exactly what is installed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str
    outside: bool = False
    pins: tuple[str, ...] = ()
    options: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")], Option] = {}

    @field_validator("options")
    @classmethod
    def _are_not_ours(cls, options: dict[str, Option]) -> dict[str, Option]:
        if taken := RESERVED.intersection(options):
            raise ValueError(f"no option can be called {', '.join(sorted(taken))}")
        return options


@dataclass(frozen=True)
class Role:
    """A role as it is found: its declaration and its scripts' templates."""

    name: str
    about: Declaration
    templates: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Prepared:
    """A role with its options, as scripts. `secrets` has the reference of each shell variable that they may use.

    Where `identity` differs from what is on a machine, that is removed before this is installed.
    """

    name: str
    install: str
    check: str
    remove: str
    digest: str
    identity: str
    outside: bool
    secrets: dict[str, str] = field(default_factory=dict, hash=False)


@functools.cache
def names() -> tuple[str, ...]:
    """The built-in roles."""
    return tuple(sorted(path.parent.name for path in folder(BUILT_IN).glob(f"*/{DECLARATION}")))


def find(role: str) -> Role:
    """The role of that name, or in the folder of that absolute path; raises ValueError."""
    if "/" in role:
        return _read(Path(role))
    if role not in names():
        raise ValueError(
            f"there is no role {role!r}{nearest(role, names())} ({', '.join(names())}, or the path of a role's folder)"
        )
    return _built_in(role)


def model(role: str) -> type[BaseModel]:
    """The pydantic model of a role's options: validation and JSON Schema come from it; raises ValueError."""
    found = find(role)
    fields: dict[str, Any] = {name: _field(option) for name, option in found.about.options.items()}
    try:
        return create_model(
            found.name,
            __config__=ConfigDict(extra="forbid", coerce_numbers_to_str=True),
            __doc__=found.about.description,
            **fields,
        )
    except (SchemaError, re.error) as error:
        raise ValueError(f"role {role}: a pattern in its {DECLARATION} is none: {error}") from None


def validated(role: str, options: dict[str, Any], context: dict[str, Any] | None = None) -> dict[str, Any]:
    """The options as plain JSON, defaults among them; raises ValueError that names the wrong ones, never a secret."""
    declared, options_model = find(role).about.options, model(role)
    secrets = {name for name, option in declared.items() if option.secret}
    try:
        found = options_model.model_validate(options, context=context).model_dump(mode="json")
    except ValidationError as error:
        raise ValueError(explained(error, str, options_model.model_fields, secrets)) from None
    for name, option in declared.items():
        if option.needs and found[name] and not found[option.needs]:
            raise ValueError(f"{name} goes with {option.needs}")
    return found


def prepare(role: str, name: str, options: dict[str, Any]) -> Prepared:
    """The scripts of a role with validated options; raises ValueError when a file that it carries cannot be read."""
    found = find(role)
    declared = found.about.options
    values = {key: _shown(option, options.get(key)) for key, option in declared.items()}
    carried = [
        f"{key}={shlex.quote(_packed(option, str(options[key])))}\n"
        for key, option in declared.items()
        if option.type in ("file", "folder") and options.get(key)
    ]
    scripts = {script: _script(found, script, name=name, **values) for script in found.templates}
    scripts["install"] = "".join(carried) + scripts["install"]
    same = {key: options.get(key) for key, option in declared.items() if option.identity}
    return Prepared(
        name=name,
        digest=pack.digest(json.dumps(scripts, sort_keys=True).encode()),
        identity=pack.digest(json.dumps([found.name, same], sort_keys=True).encode()),
        outside=found.about.outside,
        secrets=_secrets(declared, options),
        **scripts,
    )


def locked(role: str, options: dict[str, Any], pins: dict[str, Any]) -> dict[str, Any]:
    """The options with what a lock says about the role's packages; raises ValueError for a pin that it does not have.

    Without `pins` this tells which of them float: those that are missing or empty in what is returned.
    """
    known = find(role).about.pins
    if unknown := [pin for pin in pins if pin not in known]:
        raise ValueError(f"role {role} cannot be locked by {', '.join(unknown)}")
    return {**dict.fromkeys(known, ""), **options, **pins}


@functools.cache
def _built_in(name: str) -> Role:
    return _read(folder(BUILT_IN) / name)


def _read(place: Path) -> Role:
    try:
        text, *scripts = (
            pack.content(place / file).decode() for file in (DECLARATION, *(f"{script}.sh.j2" for script in SCRIPTS))
        )
    except ValueError as error:
        raise ValueError(f"{place} is not a role's folder: {error}") from None
    try:
        about = Declaration.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError, RecursionError) as error:
        raise ValueError(f"{place / DECLARATION}: {error}") from None
    return Role(place.name, about, dict(zip(SCRIPTS, scripts, strict=True)))


def _script(role: Role, script: str, *, name: str, **values: Any) -> str:
    try:
        return filled(role.templates[script], name=name, state=f"{STATE}/{name}", **values)
    except ValueError as error:
        raise ValueError(f"role {role.name}: {script}.sh.j2: {error}") from None


def _field(option: Option) -> tuple[Any, Any]:
    kind = _kind(option)
    default = ... if option.required else _EMPTY[option.type] if option.default is None else option.default
    about = f"{option.help} ({reference.FORM})" if option.secret else option.help
    declared = option.default is not None and not option.required
    return kind, Field(default, description=about, ge=option.min, le=option.max, validate_default=declared)


def _kind(option: Option) -> Any:
    if option.choices:
        return Literal[option.choices]
    if option.secret:
        return dict[Variable, Secret] if option.type == "map" else Secret
    if option.type == "string" and option.pattern:
        pattern = option.pattern if option.required else f"^$|{option.pattern}"  # it may be left out
        return Annotated[str, StringConstraints(pattern=pattern)]
    return _KINDS[option.type]


_KINDS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "boolean": bool,
    "list": tuple[str, ...],
    "map": dict[Variable, str],
    "file": Local,
    "folder": Local,
}
_EMPTY: dict[str, Any] = {
    "string": "",
    "integer": None,
    "boolean": False,
    "list": (),
    "map": {},
    "file": "",
    "folder": "",
}


def _shown(option: Option, value: Any) -> Any:
    """What a template sees of an option: of a secret, a file or a folder only whether it is there."""
    if option.secret and option.type == "map":
        return sorted(value or {})
    if option.secret or option.type in ("file", "folder"):
        return bool(value)
    return value


def _packed(option: Option, path: str) -> str:
    content = pack.folder(Path(path)) if option.type == "folder" else pack.content(Path(path))
    return base64.b64encode(content).decode()


def _secrets(declared: dict[str, Option], options: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, option in declared.items():
        value = options.get(key) if option.secret else None
        if isinstance(value, dict):
            found |= {f"{key}_{name}": each for name, each in value.items()}
        elif value:
            found[key] = value
    return found
