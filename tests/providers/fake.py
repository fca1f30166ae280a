"""A driver whose provider is an object in memory that counts, and fails or dies when told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from machinekit.errors import DriverError, PreCheckError
from machinekit.machine import Birth, Instance, Machine, Resource, State
from machinekit.provider import Capabilities, Driver, Options, option

DISK = "disk"
TOKEN = "s3cret"  # noqa: S105 (of a provider in memory)


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing catches it."""


@dataclass
class FakeInstance:
    """An instance, with the marks that it carries."""

    marks: dict[str, str]
    state: State = State.RUNNING
    address: str = "127.0.0.1"
    image: str = ""


@dataclass
class FakeCloud:
    """Everything at the provider.

    `failing` requests have no effect; `lost` ones have it and fail, once; `dying` ones have it and kill their caller,
    once.

    Instances are by uid, disks by name with their marks; `images` has the id that a name means now.
    """

    engine_port: int
    certificates: tuple[Path, Path, Path]
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    disks: dict[str, dict[str, str]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=lambda: {"newest": "image-1"})
    calls: Counter[str] = field(default_factory=Counter)
    failing: set[str] = field(default_factory=set)
    failing_once: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)

    @contextmanager
    def request(self, name: str, token: str) -> Iterator[None]:
        """One call of the API."""
        self.calls[name] += 1
        if token != TOKEN:
            raise DriverError("the provider refuses the token", "look at FAKE_TOKEN")
        if name in self.failing or name in self.failing_once:
            self.failing_once.discard(name)
            raise DriverError(f"the provider refuses to {name}")
        yield
        if name in self.lost:
            self.lost.discard(name)
            raise DriverError(f"the answer to {name} was lost")
        if name in self.dying:
            self.dying.discard(name)
            raise Killed(name)


@dataclass
class FakeOptions(Options):
    """One option of each kind."""

    token: str = option("API token", aliases=("FAKE_TOKEN",), secret=True, min_length=1)
    size: int = option("size in GB, 100 % of which is yours", default=1, ge=1, le=64)
    tags: tuple[str, ...] = option("tag", default=(), aliases=("FAKE_TAGS",))
    spot: bool = option("take a cheap one that may vanish", default=False)
    image: str = option("image", default="newest")

    def check(self) -> None:
        """What no single option can see."""
        if self.spot and self.size > 32:
            raise ValueError("no spot instance is larger than 32")


class Fake(Driver[FakeOptions]):
    """Instances in memory, with an engine that has TLS already."""

    Options = FakeOptions
    capabilities = Capabilities(ssh=False)
    floating = ("image",)
    cloud: ClassVar[FakeCloud]

    @property
    def engine_url(self) -> str:
        """All instances share one engine."""
        return f"tcp://127.0.0.1:{self.cloud.engine_port}"

    @property
    def certificates(self) -> tuple[Path, Path, Path] | None:
        """The engine's."""
        return self.cloud.certificates

    def check(self) -> None:
        """The token is right and the provider has room."""
        try:
            with self._request("check"):
                pass
        except DriverError as error:
            raise PreCheckError(error.message, error.hint) from None

    def create(self, birth: Birth) -> None:
        """A disk, then an instance on it."""
        disk = self.plan(DISK, f"{self.machine.name}-{self.machine.uid[:8]}")
        with self._request("create disk"):
            self.cloud.disks.setdefault(disk, self.marks())
        with self._request("create"):
            image = self.cloud.images.get(self.options.image, self.options.image)
            self.cloud.instances.setdefault(self.machine.uid, FakeInstance(self.marks(), image=image))

    @classmethod
    def pinned(cls, options: Any) -> dict[str, str]:
        """What the name means now."""
        with cls.cloud.request("find image", options.token):
            return {"image": cls.cloud.images.get(options.image, options.image)}

    def find(self) -> Instance | None:
        """By uid."""
        return self.find_all([self])[self.machine.uid]

    @classmethod
    def find_all(cls, drivers: Sequence[Driver[Any]]) -> dict[str, Instance | None]:
        """One call for all."""
        with cls.cloud.request("find", drivers[0].options.token):
            found = {driver.machine.uid: cls.cloud.instances.get(driver.machine.uid) for driver in drivers}
            port = cls.cloud.engine_port
            return {uid: Instance(i.state, i.address, engine_port=port) if i else None for uid, i in found.items()}

    def start(self) -> None:
        """Power on."""
        self._switch("start", State.RUNNING)

    def stop(self) -> None:
        """Power off."""
        self._switch("stop", State.STOPPED)

    def kill(self) -> None:
        """Power off at once."""
        self._switch("kill", State.STOPPED)

    def destroy(self) -> None:
        """Forget the instance."""
        with self._request("destroy"):
            self.cloud.instances.pop(self.machine.uid, None)

    def release(self, resource: Resource) -> None:
        """Forget a disk."""
        with self._request("release"):
            self.cloud.disks.pop(resource.name, None)

    @classmethod
    def orphans(cls, options: Any, known: Callable[[Machine], bool]) -> list[Machine]:
        """By marks, instances and disks alike."""
        found: dict[str, Machine] = {}
        with cls.cloud.request("list", options.token):
            things = [(i.marks, "") for i in cls.cloud.instances.values()]
            for marks, disk in things + [(marks, disk) for disk, marks in cls.cloud.disks.items()]:
                uid, name, store = (marks[f"machinekit.{key}"] for key in ("uid", "name", "store"))
                orphan = found.setdefault(uid, Machine(name, uid, "fake", store, created=""))
                if disk:
                    orphan.resources.append(Resource(DISK, disk))
        return [orphan for orphan in found.values() if not known(orphan)]

    def _request(self, name: str) -> Any:
        return self.cloud.request(name, self.options.token)

    def _switch(self, how: str, state: State) -> None:
        with self._request(how):
            self.cloud.instances[self.machine.uid].state = state
