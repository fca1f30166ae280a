"""Clouds for which libcloud's common calls do: size, image and place by name, a machine told by its node's name.

A node's name is in the request that makes it and in every list, whatever else a cloud has. It carries the machine's
name and uid; a tag, which a cloud may keep for longer than any instance, carries only the store's id.
"""

from __future__ import annotations

import re
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from machinekit.machine import Birth

from .account import OptionsT
from .cloud import Cloud
from .lookup import chosen

if TYPE_CHECKING:
    from libcloud.compute.base import Node

NAMED = re.compile(r"(?P<name>.+)-mk(?P<uid>[0-9a-f]{32})")
TAG = "machinekit:"


class PlainCloud(Cloud[OptionsT]):
    """One machine of such a cloud."""

    place: ClassVar[str] = "region"  # the option that says where, and what people call it

    @abstractmethod
    def request(self, birth: Birth) -> dict[str, Any]:
        """What `create_node` is given beside name, size, image and location: user-data, our tag, more options."""

    @property
    def node_name(self) -> str:
        """What the instance is called."""
        return f"{self.machine.name}-mk{uuid.UUID(self.machine.uid).hex}"

    @property
    def tag(self) -> str:
        """Which store made it, in letters, digits, dashes and a colon."""
        return f"{TAG}{self.machine.store}"

    def survey(self) -> dict[str, Any]:
        """The arguments of `create_node` that are the cloud's own things."""
        api, options, found = self.api, cast(Any, self.options), dict[str, Any]()
        wanted = getattr(options, self.place)
        if wanted:
            places = api.call(f"list the {self.place}s", api.driver.list_locations)
            found["location"] = chosen(self.place, wanted, places)
        sizes = api.call("list the sizes", api.driver.list_sizes, *found.values())
        return {"size": chosen("size", options.size, sizes), "image": self.image_of_choice(), **found}

    def image_of_choice(self) -> Any:
        """The image that was asked for."""
        wanted = cast(Any, self.options).image
        return chosen("image", wanted, self.api.call("list the images", self.api.driver.list_images))

    def remarks(self) -> list[str]:
        """Nobody is kept out."""
        return [f"driver {self.name()} makes no firewall: SSH and the engine's port can be reached from everywhere"]

    def order(self, birth: Birth, token: str) -> None:
        """Ask for it once: nothing tells two requests apart."""
        make = self.api.driver.create_node
        self.api.call.once("make the instance", make, name=self.node_name, **self.choice, **self.request(birth))

    @classmethod
    def marks_on(cls, node: Node) -> Mapping[str, str]:
        """From its name and its tags."""
        named = NAMED.fullmatch(str(node.name))
        tags = [str(tag) for tag in (node.extra or {}).get("tags") or ()]
        store = next((tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)), "")
        if not named:
            return {}
        uid = str(uuid.UUID(named["uid"]))
        return {"machinekit.uid": uid, "machinekit.name": named["name"], "machinekit.store": store}
