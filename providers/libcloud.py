"""An instance of any provider that libcloud has a driver for, and what cannot be had there."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from machinekit.errors import PreCheckError, nearest
from machinekit.machine import Birth
from machinekit.provider import option

from . import calls, credentials
from .account import CloudOptions
from .calls import CloudError, Kind
from .plain import PlainCloud

if TYPE_CHECKING:
    from libcloud.compute.base import Node

USER_DATA = ("ex_userdata", "ex_user_data")  # what create_node calls it
METADATA = "ex_metadata"  # keys with values that a node is made with
SSH_KEY = "auth"
WAYS = {  # libcloud has no word of its own for it in most drivers
    "start": ("start_node", "ex_start_node", "ex_start", "ex_power_on_node"),
    "stop": ("stop_node", "ex_stop_node", "ex_stop", "ex_shutdown_node"),
}


def known(provider: str) -> str:
    """An option's check: a name of libcloud's; raises ValueError with the nearest one, and all."""
    from libcloud.compute.providers import DRIVERS

    names = sorted(str(name) for name in DRIVERS if name != "dummy")
    if provider not in DRIVERS:
        raise ValueError(f"libcloud has no {provider!r}{nearest(provider, names)} (it has {', '.join(names)})")
    return provider


def assigned(words: tuple[str, ...]) -> tuple[str, ...]:
    """An option's check: NAME=VALUE each; raises ValueError."""
    for word in words:
        name, equals, _ = word.partition("=")
        if not (name.isidentifier() and equals):
            raise ValueError(f"{word!r} is not of the form NAME=VALUE")
    return words


def values(words: tuple[str, ...]) -> dict[str, Any]:
    """The values by name: JSON where it is JSON, else the text as it is."""
    return {name: _value(text) for name, _, text in (word.partition("=") for word in words)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(kw_only=True)
class LibcloudOptions(CloudOptions):
    """Which provider and account, and the shape of the instance."""

    provider: str = option("provider, as libcloud calls it", check=known)
    key: str = credentials.given("the account's key, or user", "LIBCLOUD_KEY")
    secret: str = credentials.given("its secret, or password", "LIBCLOUD_SECRET")
    key_command: str = option("command that prints the key", default="")
    secret_command: str = option("command that prints the secret", default="")
    argument: tuple[str, ...] = option("NAME=VALUE for libcloud's driver, not secret", default=(), check=assigned)
    endpoint: str = option("URL of the API", default="", **calls.ENDPOINT_RULES)
    image: str = option("image, by id or name", default="")
    size: str = option("size, by id or name", default="")
    location: str = option("location, by id or name", default="")
    ssh_user: str = option("user to log in as; root where the provider takes no user-data", default="")
    extra: tuple[str, ...] = option("NAME=VALUE for libcloud's create_node", default=(), check=assigned)


class Libcloud(PlainCloud[LibcloudOptions]):
    """An instance of any provider of libcloud's."""

    Options = LibcloudOptions
    place = "location"
    account_options = ("provider", "endpoint", "argument", "key_command", "secret_command")
    advice = "looked for in $LIBCLOUD_KEY and $LIBCLOUD_SECRET, --libcloud-key-command and --libcloud-secret-command"

    @classmethod
    def connect(cls, options: Any) -> Any:
        """Whatever libcloud has for the provider."""
        from libcloud.compute.providers import get_driver

        key = credentials.secret("key", options.key, options.key_command, advice=cls.advice)
        secret = options.secret or (credentials.printed(options.secret_command) if options.secret_command else "")
        given = {"key": key, "secret": secret} if secret else {"key": key}
        try:
            named = "key" in inspect.signature(get_driver(options.provider).__init__).parameters
            words, more = ((), given) if named else (given.values(), {})
            return calls.opened(options.provider, options.endpoint, *words, **more, **values(options.argument))
        except Exception as error:  # some log in already, and each says in its own way what it lacks
            told = calls.classified(error)
            raise PreCheckError(
                f"libcloud's driver of {options.provider} cannot be made: {told.message if told else error}",
                f"the credentials are {cls.advice}; give what else it wants with --libcloud-argument NAME=VALUE",
            ) from None

    @property
    def ssh_user(self) -> str:
        """Ours where user-data can make it."""
        return self.options.ssh_user or (super().ssh_user if self._user_data else "root")

    @property
    def carries_host_key(self) -> bool:
        """Where user-data can bring it."""
        return bool(self._user_data)

    def survey(self) -> dict[str, Any]:
        """What the provider can do, and what it has of what was asked for."""
        if not self._user_data and not self._takes_ssh_key:
            raise PreCheckError(
                f"no machine of ours can be made at {self.options.provider}: libcloud can give it neither user-data "
                "nor an SSH key there",
                "make one by hand, and adopt it with driver generic",
            )
        if self.options.user_data and not self._user_data:
            raise PreCheckError(f"libcloud can give no user-data to {self.options.provider}")
        choice = super().survey()
        birth = dict.fromkeys(self.request(Birth("", "", "", "", "", None)))
        try:
            inspect.signature(self.api.driver.create_node).bind(name="", **choice, **birth)
        except TypeError as error:
            raise PreCheckError(
                f"libcloud's create_node of {self.options.provider}: {error}",
                "--libcloud-location says where; all else goes with --libcloud-extra NAME=VALUE",
            ) from None
        return choice

    def image_of_choice(self) -> Any:
        """By its id at once, where that is possible: some providers have too many to list."""
        if self.options.image:
            try:
                return self.api.call("find the image", self.api.driver.get_image, self.options.image)
            except Exception:  # the list will tell what is wrong with it
                return super().image_of_choice()
        return super().image_of_choice()

    def remarks(self) -> list[str]:
        """What cannot be had there."""
        provider = self.options.provider
        said = [f"who may reach it is as {provider} has it: no firewall is made"]
        if not self._user_data:
            said.append(f"{provider} takes no user-data through libcloud: the SSH host key is pinned when first seen")
        if METADATA not in self._takes:
            said.append(f"libcloud gives no metadata to {provider}: gc finds nothing that is forgotten there")
        if lacking := [verb for verb in WAYS if not self._way(verb)]:
            said.append(f"libcloud cannot {' or '.join(lacking)} instances of {provider}")
        return said

    def request(self, birth: Birth) -> dict[str, Any]:
        """User-data or an SSH key, our marks, and what the user wants beside."""
        from libcloud.compute.base import NodeAuthSSHKey

        asked = values(self.options.extra)
        if METADATA in self._takes:
            asked[METADATA] = asked.get(METADATA, {}) | self.marks()
        if self._user_data:
            return asked | {self._user_data: birth.user_data}
        return asked | {SSH_KEY: NodeAuthSSHKey(birth.authorized_key)}

    @classmethod
    def marks_on(cls, node: Node) -> Mapping[str, str]:
        """From its metadata, which some call tags, or its name."""
        extra = node.extra or {}
        kept: Mapping[str, str] = next(
            (extra[field] for field in ("metadata", "tags") if isinstance(extra.get(field), dict)), {}
        )
        return kept if "machinekit.uid" in kept else super().marks_on(node)

    def switch(self, verb: str, node: Node) -> None:
        """By whatever libcloud has for it; to kill is to stop."""
        verb = "stop" if verb == "kill" else verb
        if not (way := self._way(verb)):
            raise CloudError(Kind.REFUSED, f"libcloud cannot {verb} instances of {self.options.provider}")
        way(node)

    def _way(self, verb: str) -> Callable[[Node], Any] | None:
        from libcloud.compute.base import NodeDriver

        driver = self.api.driver
        for name in WAYS[verb]:
            if getattr(type(driver), name, None) not in (None, getattr(NodeDriver, name, None)):
                way: Callable[[Node], Any] = getattr(driver, name)
                return way
        return None

    @property
    def _takes(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.api.driver.create_node).parameters

    @property
    def _user_data(self) -> str:
        """What create_node calls it; empty where there is none."""
        return next((name for name in USER_DATA if name in self._takes), "")

    @property
    def _takes_ssh_key(self) -> bool:
        features = (self.api.driver.features or {}).get("create_node", [])
        kinds = [parameter.kind for parameter in self._takes.values()]
        return "ssh_key" in features and (SSH_KEY in self._takes or inspect.Parameter.VAR_KEYWORD in kinds)
