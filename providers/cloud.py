"""What all clouds have in common: find or create by our marks, never lose an instance, never make two.

A driver of a cloud says how to connect, what it looks up before anything is made, how it asks for an instance and
where an instance carries our marks. An instance is asked for after that was journalled, so that whoever comes
after a crash looks for it, for as long as the cloud may not list it yet.
"""

from __future__ import annotations

import functools
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import tenacity

from machinekit.errors import DeadlineError, PreCheckError
from machinekit.machine import Birth, Instance, State
from machinekit.provider import Capabilities, Driver

from .account import INSTANCE, Account, OptionsT, alive
from .calls import PASSING, CloudError, Kind

if TYPE_CHECKING:
    from libcloud.compute.base import Node

TRIES = 3  # how often one is asked for when no answer tells whether it was made
POWER = 300.0  # seconds for an instance to be on, off or gone
STATES = {
    "running": State.RUNNING,
    "starting": State.STARTING,
    "rebooting": State.STARTING,
    "pending": State.STARTING,
    "reconfiguring": State.STARTING,
    "migrating": State.STARTING,
    "updating": State.STARTING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
    "suspended": State.SAVED,
    "paused": State.PAUSED,
    "error": State.ERROR,
    "unknown": State.NONE,
}

T = TypeVar("T")


class Cloud(Account[OptionsT]):
    """One machine of a cloud."""

    capabilities = Capabilities(exposed_birth=True)
    settle: ClassVar[float] = 15.0  # seconds until what was made is listed for certain

    # --- what the driver of a cloud says

    @abstractmethod
    def survey(self) -> Any:
        """Look up what was asked for, before anything is made; raises PreCheckError for what the cloud has not."""

    @abstractmethod
    def order(self, birth: Birth, token: str) -> None:
        """Ask for the instance, with our marks; with the same token nothing is made twice, where the cloud can that."""

    def prepare(self, birth: Birth) -> None:
        """Make what the instance needs beside it, each journalled with `plan` first."""

    def address(self, node: Node) -> str:
        """Where the instance is reached."""
        return next(iter([*node.public_ips, *node.private_ips]), "")

    def peer_address(self, node: Node) -> str:
        """Where the machines of its network reach it."""
        return next(filter(None, node.private_ips), "")

    def switch(self, verb: str, node: Node) -> None:
        """Have the cloud start, stop or kill it."""
        {"start": node.start, "stop": node.stop_node, "kill": node.stop_node}[verb]()

    def screen(self, node: Node) -> str:
        """What its console has shown, as far as the cloud keeps it."""
        return ""

    # --- the contract, by these

    @functools.cached_property
    def choice(self) -> Any:
        """What `survey` has found."""
        return self.survey()

    @property
    def user_data(self) -> bytes:
        """From the file that was given."""
        try:
            return Path(self.options.user_data).read_bytes() if self.options.user_data else b""
        except OSError as error:
            raise PreCheckError(f"cannot read {self.options.user_data}: {error.strerror}") from None

    def check(self) -> None:
        """The credentials are accepted, and the cloud has what was asked for."""
        try:
            _ = self.choice
        except CloudError as error:
            raise PreCheckError(error.message, error.hint) from None

    def create(self, birth: Birth) -> None:
        """Ask for the instance, unless there is one; a refusal leaves nothing behind."""
        for _ in range(TRIES):
            if self.machine.resources and (mine := self._mine()):
                for twin in mine[1:]:  # made by a request that nobody heard the answer of
                    self.removed("remove an instance", twin.destroy)
                return
            try:
                self.prepare(birth)
                self.plan(INSTANCE, self.machine.uid)
                self.order(birth, uuid.uuid4().hex)
            except CloudError as error:
                if error.kind in PASSING - {Kind.TRANSIENT}:
                    raise
                if error.kind is not Kind.TRANSIENT:
                    self._withdraw(error)
                    raise PreCheckError(error.message, error.hint) from None
                last = error
            else:
                return
        raise last

    def find(self) -> Instance | None:
        """By uid."""
        mine = self._mine()
        return self._instance(mine[0]) if mine else None

    @classmethod
    def find_all(cls, drivers: Sequence[Driver[Any]]) -> dict[str, Instance | None]:
        """One list for each account."""
        found: dict[str, Instance | None] = {driver.machine.uid: None for driver in drivers}
        accounts: dict[Hashable, list[Cloud[Any]]] = {}
        for driver in drivers:
            assert isinstance(driver, Cloud)  # noqa: S101 (they are all of this class)
            accounts.setdefault(cls.account(driver.options), []).append(driver)
        for mine in accounts.values():
            by_uid = {driver.machine.uid: driver for driver in mine}
            uid = next(iter(by_uid)) if len(by_uid) == 1 else ""
            for node in alive(cls.nodes(mine[0].api, uid)):
                if owner := by_uid.get(cls.marks_on(node).get("machinekit.uid", "")):
                    found[owner.machine.uid] = owner._instance(node)
        return found

    def start(self) -> None:
        """Power on; nothing when it runs."""
        self._power("start", State.RUNNING)

    def stop(self) -> None:
        """Ask the system to power off and wait until it has."""
        self._power("stop", State.STOPPED)

    def kill(self) -> None:
        """Cut the power."""
        self._power("kill", State.STOPPED)

    def console(self) -> str:
        """Of the instance that `find` finds."""
        mine = self._mine()
        return self.api.call("read the console", self.screen, mine[0]) if mine else ""

    def destroy(self) -> None:
        """Remove every instance with our uid, and wait until none is listed."""
        mine = self._mine()
        for node in mine:
            self.removed("remove the instance", node.destroy)
        if mine:
            self._wait("gone", lambda: not self._listed())
        for resource in [resource for resource in self.machine.resources if resource.kind == INSTANCE]:
            self.forget(resource)

    # --- for the drivers of clouds

    @property
    def label(self) -> str:
        """A name for what is made beside the instance, which no other machine has."""
        return labelled(self.marks())

    def removed(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Have the cloud remove something, as soon as it can; what is gone is as good as removed."""
        try:
            self.api.call.freed(what, function, *args, **kwargs)
        except CloudError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise

    def until_listed(self, kind: str, look: Callable[[], list[T]]) -> list[T]:
        """What `look` finds; again and again while what was just asked for may not be listed yet."""
        planned = max((each.planned for each in self.machine.resources if each.kind == kind), default=0)
        left = min(planned + self.settle - time.time(), self.settle)  # a clock may have been set back
        looking = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda found: not found),
            wait=tenacity.wait_exponential(multiplier=0.2, max=3),
            stop=tenacity.stop_after_delay(max(left, 0)),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else [],
        )
        return looking(look)

    def _mine(self) -> list[Node]:
        """The instances with our uid, the oldest first."""
        return self.until_listed(INSTANCE, self._listed)

    def _listed(self) -> list[Node]:
        uid = self.machine.uid
        nodes = alive(self.nodes(self.api, uid))
        mine = [node for node in nodes if self.marks_on(node).get("machinekit.uid") == uid]
        return sorted(mine, key=lambda node: (str(node.created_at or ""), node.id))

    def _instance(self, node: Node) -> Instance:
        address, peer = self.address(node), self.peer_address(node)
        state = STATES.get(str(node.state), State.ERROR)
        return Instance(state, address, peer_address="" if peer == address else peer)

    def _power(self, verb: str, wanted: State) -> None:
        found = self._mine()
        if not found:
            raise CloudError(Kind.NOT_FOUND, f"cannot {verb} the instance: it does not exist any more")
        if STATES.get(str(found[0].state)) is not wanted:
            self.api.call.freed(f"{verb} the instance", self.switch, verb, found[0])
            self._wait(str(wanted).lower(), lambda: self._has(wanted))

    def _has(self, wanted: State) -> bool:
        found = self.find()
        return found is not None and found.state is wanted

    def _wait(self, what: str, done: Callable[[], bool], pause: float = 0.2) -> None:
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda is_done: not is_done),
            wait=tenacity.wait_exponential(multiplier=pause, max=5, exp_base=1.5),
            stop=tenacity.stop_after_delay(POWER),
        )
        try:
            waiting(done)
        except tenacity.RetryError:
            raise DeadlineError(
                f"the instance is not {what} within {POWER:.0f} s", "look at the cloud's console"
            ) from None

    def _withdraw(self, refusal: CloudError) -> None:
        """No instance was made: take away what was made for it."""
        try:
            for resource in reversed(list(self.machine.resources)):
                if resource.kind != INSTANCE:
                    self.release(resource)
                self.forget(resource)
        except CloudError as error:
            hint = f"machinekit rm {self.machine.name} tries again"
            raise CloudError(error.kind, f"{refusal.message}; and then {error.message}", hint) from None


def labelled(marks: Mapping[str, str]) -> str:
    """The label of the machine with these marks."""
    return f"machinekit-{marks['machinekit.name']}-{marks['machinekit.uid'][:8]}"
