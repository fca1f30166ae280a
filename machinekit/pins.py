"""What a lock says of a machine: which of the things that its file only names they are, exactly."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from machinekit import packages, roles
from machinekit.errors import StoreError, UntrustedError, UsageError
from machinekit.machine import Image
from machinekit.provider import Options
from machinekit.settings import VersionByPackage
from machinekit.setup import RoleUse, Setup, problems
from machinekit.spec import VERSION, Spec

AGAIN = "have that here again, or lock what there is: machinekit lock --update"


class PinnedImage(BaseModel):
    """A system image: `digest` is what its publisher says of it, `build` tells apart those that were built here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    digest: str = ""
    build: str = ""

    @classmethod
    def of(cls, image: Image) -> PinnedImage:
        """What tells an image of this computer from every other one."""
        return cls(name=image.name, digest=image.digest, build="" if image.digest else image.build)

    def check(self, digest: str, build: str) -> None:
        """Raise UntrustedError when the image that can be had is another one; empty is one that is not made yet."""
        if (digest, build) != (self.digest, self.build):
            found = f"the one here is {digest or f'build {build}'}" if digest or build else "there is none here"
            raise UntrustedError(f"the lock has image {self}, and {found}", AGAIN)

    def __str__(self) -> str:
        return f"{self.name} ({self.digest or f'build {self.build}'})"


class Pins(BaseModel):
    """What is exact: options of the driver, the image, versions of the engine's packages, options of roles.

    The first two count for a machine that is born, the others for one that is there, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    options: dict[str, str] = {}
    image: PinnedImage | None = None
    engine: str = Field(default="", pattern=VERSION, description="the version of the engine's package")
    packages: VersionByPackage = {}
    roles: dict[str, dict[str, str]] = {}

    def to_json(self) -> dict[str, Any]:
        """Plain data; empty for no pins."""
        return self.model_dump(mode="json", include={*Pins.model_fields}, exclude_defaults=True)

    def of_options(self, options: Options) -> Options:
        """The driver's options for a machine that is born."""
        return dataclasses.replace(options, **self.options)

    def of_spec(self, spec: Spec) -> Spec:
        """The engine's settings with the versions, unless the file has come to want another one."""
        fits = self.engine and (not spec.version or packages.is_version(spec.version, self.engine))
        companions = spec.packages or tuple(f"{name}={version}" for name, version in self.packages.items())
        return spec.model_copy(update={"version": self.engine, "packages": companions}) if fits else spec

    def of_setup(self, setup: Setup) -> Setup:
        """The setup with the versions of its roles, where the file leaves them open."""
        return setup.model_copy(update={"roles": tuple(map(self._of_role, setup.roles))})

    def of_birth(self) -> tuple[dict[str, Any], PinnedImage | None]:
        """What only a new machine can have."""
        return self.options, self.image

    def on(self, before: Pins) -> Pins:
        """The pins of a machine that was born with those `before` and has been changed to these."""
        return self.model_copy(update={"options": before.options, "image": before.image})

    def _of_role(self, use: RoleUse) -> RoleUse:
        pins = self.roles.get(use.name, {})
        open_ends = {key: pins[key] for key, value in use.options.items() if key in pins and not value}
        if not open_ends:
            return use
        try:
            return RoleUse(role=use.role, name=use.name, options=roles.locked(use.role, use.options, open_ends))
        except ValueError as error:
            text = problems(error) if isinstance(error, ValidationError) else str(error)
            raise UsageError(f"role {use.name} cannot be as it was locked: {text}", AGAIN) from None


NO_PINS = Pins()


def parse_pins(stored: dict[str, Any]) -> Pins:
    """The pins of a record; raises StoreError when they are none."""
    try:
        return Pins(**stored)
    except (ValidationError, TypeError):
        raise StoreError(
            "what a lock has made exact cannot be read from the record", "a later machinekit may have written it"
        ) from None
