"""What a machine carries beside its engine, validated: files, private registries, roles.

Paths and contents of this computer's files are looked at when somebody writes a setup, not when a record is read:
`parse_setup`. A relative path counts from the `folder` of the validation's context, where there is one.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from machinekit import pack, reference, roles
from machinekit.errors import StoreError, UsageError
from machinekit.roles import Local, Secret, folder_of, is_stored

STORED = {"stored": True}  # the context of a validation that takes a record's word for everything
# what the engine's part of machinekit and the setup's own keep there
OURS = ("/var/lib/machinekit", "/etc/docker/certs.d", "/etc/docker/.machinekit-before", "/root/.docker/config.json")
ENGINE = ("/etc/docker/daemon.json", "/etc/docker/ca.pem", "/etc/docker/server.pem", "/etc/docker/server-key.pem")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostFile(_Strict):
    """A file on the machine: one of `content`, `source` (a file here) and `secret` (a reference)."""

    path: str = Field(pattern=r"^/[^\x00-\x1f\x7f]+$", description="where it is on the machine, an absolute path")
    content: str | None = Field(default=None, description="its text")
    source: Local = Field(default="", description="the file on this computer that it is a copy of")
    secret: Secret = Field(default="", description=f"where its text comes from: {reference.FORM}")
    mode: str = Field(default="0644", pattern=r"^0[0-7]{3}$", description="its permissions, in quotes")
    owner: str = Field(default="root:root", pattern=r"^[a-z_0-9-]+:[a-z_0-9-]+$", description="user:group")
    digest: SkipJsonSchema[str] = Field(default="", validate_default=True)  # of the source when it was looked at

    @field_validator("path")
    @classmethod
    def _is_free(cls, path: str) -> str:
        plain = posixpath.normpath(f"/{path.lstrip('/')}")  # two slashes at the beginning would stay two
        if plain != path:
            raise ValueError(f"{path!r} is to be written as {plain!r}")
        if path in ENGINE or any(path == own or path.startswith(f"{own}/") for own in OURS):
            raise ValueError(f"{path!r} is machinekit's own to write")
        return path

    @field_validator("digest")
    @classmethod
    def _of_the_source(cls, digest: str, info: ValidationInfo) -> str:
        return digest if is_stored(info) else _digest(info.data.get("source", ""))

    @model_validator(mode="after")
    def _has_one_content(self) -> HostFile:
        if [self.content is not None, bool(self.source), bool(self.secret)].count(True) != 1:
            raise ValueError(f"{self.path} needs one of content, source and secret")
        return self


class Registry(_Strict):
    """A registry that the engine pulls from."""

    host: str = Field(
        pattern=r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?$",
        description="HOST[:PORT], as in the names of its images",
    )
    ca: Local = Field(default="", description="the CA that signed its certificate, a PEM file")
    username: str = Field(default="", pattern=r"^[^:\x00-\x1f]*$", description="who pulls")
    password: Secret = Field(default="", description=f"where the password comes from: {reference.FORM}")
    mirror: bool = Field(default=False, description="whether Docker Hub's images are asked for here first")
    digest: SkipJsonSchema[str] = Field(default="", validate_default=True)  # of the CA's file when it was looked at

    @field_validator("digest")
    @classmethod
    def _of_the_ca(cls, digest: str, info: ValidationInfo) -> str:
        if (
            not is_stored(info)
            and (path := info.data.get("ca"))
            and b"BEGIN CERTIFICATE" not in pack.content(Path(path))
        ):
            raise ValueError(f"{path} is not a certificate in PEM")
        return digest if is_stored(info) else _digest(info.data.get("ca", ""))

    @model_validator(mode="after")
    def _can_log_in(self) -> Registry:
        if bool(self.username) is not bool(self.password):
            raise ValueError("username and password go together")
        return self


class Kept(_Strict):
    """What a record has to know of a role whose folder may be gone by then; see `roles.Prepared`."""

    digest: str = ""
    outside: bool = False
    secrets: dict[str, str] = Field(default_factory=dict)


class RoleUse(_Strict):
    """A role, by name or by the path of its folder, with its options; `name` tells two uses of one role apart.

    The options may be written beside `role` and `name`: {role: compose, project: ./app}.
    """

    role: str = Field(description="a built-in role's name, or the path of a role's folder")
    name: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9-]{0,39})?$",
        validate_default=True,
        description="what it is called on the machine, if not as the role",
    )
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True, description="the role's own options")
    kept: SkipJsonSchema[Kept] = Field(default=Kept(), validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "options" in data:
            return data
        beside = {key: value for key, value in data.items() if key not in cls.model_fields}
        return {key: value for key, value in data.items() if key in cls.model_fields} | {"options": beside}

    @field_validator("role")
    @classmethod
    def _is_one(cls, role: str, info: ValidationInfo) -> str:
        if is_stored(info):
            return role
        role = pack.absolute(role, folder_of(info)) if "/" in role else role
        roles.find(role)
        return role

    @field_validator("name")
    @classmethod
    def _named(cls, name: str, info: ValidationInfo) -> str:
        return name or re.sub(r"[^a-z0-9-]", "-", Path(info.data.get("role", "role")).name.lower())

    @field_validator("options")
    @classmethod
    def _of_the_role(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if is_stored(info) or "role" not in info.data:
            return options
        return roles.validated(info.data["role"], options, info.context)

    @field_validator("kept")
    @classmethod
    def _of_the_whole(cls, kept: Kept, info: ValidationInfo) -> Kept:
        if is_stored(info) or not {"role", "name", "options"} <= info.data.keys():
            return kept
        prepared = roles.prepare(info.data["role"], info.data["name"], info.data["options"])
        return Kept(digest=prepared.digest, outside=prepared.outside, secrets=prepared.secrets)


class Setup(_Strict):
    """Everything beside the engine. Secrets are references (`env:TOKEN`), never values.

    `leaving` are roles that are not in the list and may be on the machine: they were in it, or are about to be.
    """

    files: tuple[HostFile, ...] = ()
    registries: tuple[Registry, ...] = ()
    roles: tuple[RoleUse, ...] = ()
    leaving: SkipJsonSchema[tuple[RoleUse, ...]] = ()

    @model_validator(mode="after")
    def _has_nothing_twice(self) -> Setup:
        for what, names in (
            ("the file", [file.path for file in self.files]),
            ("the registry", [registry.host for registry in self.registries]),
            ("the role", [use.name for use in self.roles]),
        ):
            for name, count in Counter(names).items():
                if count > 1:
                    more = "; give one of the two a name of its own" if what == "the role" else ""
                    raise ValueError(f"{what} {name} is there twice{more}")
        return self

    @property
    def mirrors(self) -> tuple[str, ...]:
        """The registries that Docker Hub's images are asked for at first, as the engine wants them."""
        return tuple(f"https://{registry.host}" for registry in self.registries if registry.mirror)

    def followed_by(self, after: Setup) -> Setup:
        """`after`, which knows of the roles that it does not have any more, and how to take them away."""
        stay = {use.name for use in after.roles}
        leaving = {use.name: use for use in (*self.leaving, *self.roles) if use.name not in stay}
        return after.model_copy(update={"leaving": tuple(leaving.values())})

    def before(self, after: Setup) -> Setup:
        """This one, until `after` is there: it knows of the roles that may be on the machine by then."""
        stay = {use.name for use in self.roles}
        coming = {use.name: use for use in (*self.leaving, *after.roles) if use.name not in stay}
        return self.model_copy(update={"leaving": tuple(coming.values())})


NOTHING = Setup()


def parse_setup(stored: dict[str, Any]) -> Setup:
    """The setup of a record, without a look at this computer's files; raises StoreError when it is none."""
    try:
        return Setup.model_validate(stored, context=STORED)
    except ValidationError as error:
        raise StoreError(
            f"what the machine carries cannot be read from its record: {problems(error)}",
            "a later machinekit may have written it",
        ) from None


def looked_at_again(setup: Setup) -> Setup:
    """The setup with the digests that this computer's files have now; raises UsageError when one is gone."""
    try:
        now = Setup.model_validate(setup.model_dump(exclude={"leaving"}))
    except ValidationError as error:
        raise UsageError(problems(error), "mend it, or change what the machine carries") from None
    return now.model_copy(update={"leaving": setup.leaving})


def problems(error: ValidationError) -> str:
    """What is wrong with a setup, and where in it."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}"
        for each in error.errors(include_url=False, include_input=False)
    )


def _digest(path: str) -> str:
    return pack.digest(pack.content(Path(path))) if path else ""
