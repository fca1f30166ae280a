"""What a machine carries beside its engine, validated: files, private registries, roles."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HostFile(_Strict):
    """A file on the machine: one of `content`, `source` (a file here) and `secret` (a reference)."""

    path: str = Field(pattern=r"^/[^\x00]+$", description="where it is on the machine, an absolute path")
    content: str = Field(default="", description="its text")
    source: str = Field(default="", description="the file on this computer that it is a copy of")
    secret: str = Field(default="", description="where its text comes from: env:, file:, command: or keyring:")
    mode: str = Field(default="0644", pattern=r"^0[0-7]{3}$", description="its permissions, in quotes")
    owner: str = Field(default="root:root", pattern=r"^[a-z_0-9-]+:[a-z_0-9-]+$", description="user:group")


class Registry(_Strict):
    """A registry that the engine pulls from."""

    host: str = Field(description="HOST[:PORT], as in the names of its images")
    ca: str = Field(default="", description="the CA that signed its certificate, a PEM file")
    username: str = Field(default="", description="who pulls")
    password: str = Field(default="", description="where the password comes from: env:, file:, command: or keyring:")
    mirror: bool = Field(default=False, description="whether Docker Hub's images are asked for here first")


class RoleUse(_Strict):
    """A role, by name or by the path of its folder, with its options."""

    role: str
    options: dict[str, Any] = Field(default_factory=dict)


class Setup(_Strict):
    """Everything beside the engine. Secrets are references (`env:TOKEN`), never values."""

    files: tuple[HostFile, ...] = ()
    registries: tuple[Registry, ...] = ()
    roles: tuple[RoleUse, ...] = ()


NOTHING = Setup()
