"""The account at a cloud that machines are in: how to open it, and what it has of ours."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from machinekit.errors import NotSetUpError, PreCheckError
from machinekit.machine import Machine, Resource
from machinekit.provider import Check, Driver, Level, Options, absolute, option

from .calls import Calls, CloudError

if TYPE_CHECKING:
    from libcloud.compute.base import Node

INSTANCE = "instance"  # journalled, by the machine's uid, from the first time that one is asked for


def own_user_data(variables: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> Any:
    """The option that every cloud has, with the further names that Docker Machine has for it."""
    text = "file with user-data of your own, which is merged with ours"
    return option(text, default="", aliases=variables, flags=flags, check=absolute)


@dataclass
class CloudOptions(Options):
    """What every cloud's driver has."""

    user_data: str = own_user_data()


OptionsT = TypeVar("OptionsT", bound=CloudOptions)


@dataclass(frozen=True)
class Api:
    """libcloud's driver of an account, and the way to call it."""

    driver: Any
    call: Calls


class Account(Driver[OptionsT]):
    """What all machines of an account have in common."""

    account_options: ClassVar[tuple[str, ...]] = ()  # the options that tell accounts and regions apart
    advice: ClassVar[str] = "check the credentials"  # where credentials are looked for

    # --- what the driver of a cloud says

    @classmethod
    @abstractmethod
    def connect(cls, options: Any) -> Any:
        """libcloud's driver of the account; raises PreCheckError where there are no credentials."""

    @classmethod
    @abstractmethod
    def marks_on(cls, node: Node) -> Mapping[str, str]:
        """The marks that an instance carries, or whatever tags it has."""

    @classmethod
    def nodes(cls, api: Api, uid: str = "") -> list[Node]:
        """The account's instances that may be ours, those with the uid at least."""
        found: list[Node] = api.call("list the instances", api.driver.list_nodes)
        return found

    @classmethod
    def beside(cls, api: Api) -> list[tuple[Mapping[str, str], Resource]]:
        """What the account has beside instances, in the order in which it is made, each with its marks."""
        return []

    # --- the contract, by these

    @classmethod
    def account(cls, options: Any) -> tuple[Hashable, ...]:
        """The values of its options."""
        values = [getattr(options, field) for field in cls.account_options]
        return tuple(tuple(value) if isinstance(value, list) else value for value in values)  # as a record has it

    @classmethod
    def is_set_up(cls, options: Any) -> bool:
        """There are credentials, which may be wrong."""
        try:
            cls.connect(options)
        except PreCheckError as error:
            return not isinstance(error, NotSetUpError)
        return True

    @classmethod
    def orphans(cls, options: Any, known: Callable[[Machine], bool]) -> list[Machine]:
        """Instances and what is beside them with our marks whose machine is not known."""
        api, found = cls._open(options), dict[str, Machine]()
        account = {field: getattr(options, field) for field in cls.account_options}
        marked = [cls.marks_on(node) for node in alive(cls.nodes(api))]
        instances = [(marks, Resource(INSTANCE, marks.get("machinekit.uid", ""))) for marks in marked]
        for marks, resource in [*cls.beside(api), *instances]:
            uid, name, store = (marks.get(f"machinekit.{key}", "") for key in ("uid", "name", "store"))
            if not (uid and name and store):
                continue  # somebody else's idea of our tags
            orphan = found.setdefault(uid, Machine(name, uid, cls.name(), store, created="", options=account))
            if resource not in orphan.resources:
                orphan.resources.append(resource)
        return [orphan for orphan in found.values() if not known(orphan)]

    @classmethod
    def requirements(cls, options: Any, subject: str) -> list[Check]:
        """The account answers."""
        if not cls.is_set_up(options):
            return [Check(Level.OK, subject, "not set up: there are no credentials")]
        try:
            api = cls._open(options)
            mine = [node for node in alive(cls.nodes(api)) if "machinekit.uid" in cls.marks_on(node)]
        except (PreCheckError, CloudError) as error:
            return [Check(Level.PROBLEM, subject, error.message, error.hint or cls.advice)]
        return [Check(Level.OK, subject, f"the account answers; instances of ours: {len(mine)}")]

    # --- for the drivers of clouds

    @classmethod
    def name(cls) -> str:
        """The driver's, as records have it."""
        return cls.__name__.lower()

    @functools.cached_property
    def api(self) -> Api:
        """The account's."""
        return self._open(self.options)

    @classmethod
    def _open(cls, options: Any) -> Api:
        return Api(cls.connect(options), Calls(f"{cls.name()} {cls.account(options)}", cls.advice))


def alive(nodes: Sequence[Node]) -> list[Node]:
    """Those that exist: some clouds go on listing what is gone."""
    return [node for node in nodes if str(node.state) != "terminated"]
