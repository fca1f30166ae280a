"""A server of an OpenStack, in a security group of its own."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Instance, Resource

from . import firewall, openstacklogin, openstackplaces, openstackserver
from .account import Api, alive
from .calls import HINTS, CloudError, Kind
from .cloud import Cloud, labelled
from .openstackoptions import ALLOW, OpenStackOptions
from .userdata import packed

if TYPE_CHECKING:
    from libcloud.compute.base import Node

GROUP = "security group"
FLOATING_IP = "floating IP"
GROUPS = ("/security-groups", "security_groups")  # where Neutron has them, and under which key
CONSOLE = 50  # lines of it that are worth reading
FLOATING_IPS = ("/floatingips", "floatingips")


class OpenStack(Cloud[OpenStackOptions]):
    """A server of an OpenStack."""

    Options = OpenStackOptions
    not_taken: ClassVar[dict[str, str]] = {
        "--openstack-password": "OS_PASSWORD",
        "--openstack-application-credential-secret": "OS_APPLICATION_CREDENTIAL_SECRET",
    }
    account_options: ClassVar[tuple[str, ...]] = ("cloud", "region", "auth_url", "project")
    advice = openstacklogin.ADVICE
    floating = ("image", "cloud", "region", "auth_url", "project")
    _server = ""  # the id, once this process was given it

    @classmethod
    def connect(cls, options: Any) -> Any:
        """One region of one project, with what OpenStack's own files and variables have."""
        from .openstackapi import OpenStackApi

        return OpenStackApi(openstacklogin.find(options.cloud, options.region, options.auth_url, options.project))

    def survey(self) -> openstackserver.Choice:
        """What was asked for, looked up once for all machines of a process that want the same, and the quota."""
        choice, flavor = self.api.driver.login.kept(repr(self.options), self._looked_up)
        openstackplaces.check_quota(self.api, flavor)
        found: openstackserver.Choice = choice
        return found

    def _looked_up(self) -> tuple[openstackserver.Choice, openstackplaces.Thing]:
        """Image, flavor and networks, each one call; groups and zones where they were asked for."""
        options, api = self.options, self.api
        image = openstackplaces.image(api, options.image)
        flavor = openstackplaces.flavor(api, options.flavor, image, options.volume_size)
        network, pool = openstackplaces.networks(api, options.network, options.floating_ip_pool)
        groups = openstackplaces.groups(api, options.security_group)
        zone = openstackplaces.zone(api, options.availability_zone)
        server_group = openstackplaces.server_group(api, options.server_group)
        choice = openstackserver.Choice(
            image=image["id"],
            flavor=flavor["id"],
            network=network["id"],
            pool=pool["id"] if pool else "",
            groups=groups,
            allowed=() if groups else options.allow or (self._caller((pool or network)["id"]),),
            zone=zone,
            server_group=server_group,
        )
        return choice, flavor

    @classmethod
    def pinned(cls, options: Any) -> dict[str, str]:
        """The id of the image: its name may be another's tomorrow."""
        return {"image": str(openstackplaces.image(cls._open(options), options.image)["id"])}

    def remarks(self) -> list[str]:
        """Who gets in."""
        return firewall.remarks(self.choice.allowed, self.options.allow, ALLOW, self.options.peers)

    @classmethod
    def option_for_peers(cls, options: Any) -> str:
        """Our group keeps them out; one of the user's own is the user's to open."""
        return "" if options.peers or options.security_group else "peers"

    @classmethod
    def marks_on(cls, node: Node) -> Mapping[str, str]:
        """Its metadata."""
        marks: dict[str, str] = node.extra["metadata"]
        return marks

    def create(self, birth: Birth) -> None:
        """Ask for the server, unless there is one, and wait until it is built: only then it can have a floating IP."""
        if self.machine.resources and any(str(node.state) == "error" for node in self._mine()):
            self.destroy()  # of an attempt before, which was cut off: the cloud may have room by now
        super().create(birth)
        node = self._built()
        if str(node.state) == "error":
            fault = (node.extra.get("fault") or {}).get("message") or "it tells no reason"
            self.destroy()
            refusal = CloudError(Kind.CAPACITY, f"the cloud could not build the server: {fault}")
            self._withdraw(refusal)
            raise PreCheckError(refusal.message, HINTS[refusal.kind])
        if self.options.floating_ip_pool and not self.address(node):
            self._attach(node)

    def prepare(self, birth: Birth) -> None:
        """A group that lets in who may, and a floating IP; our public key is in the user-data."""
        packed(birth.user_data, openstackserver.USER_DATA, "Nova")  # or it is too long, and nothing needs to be made
        self._use = self.choice.groups or (self._made(GROUP, GROUPS, self._make_group),)
        if not self.choice.groups:
            self._open_group(self._use[0])
        if self.choice.pool:
            self._made(FLOATING_IP, FLOATING_IPS, self._make_floating_ip)

    def order(self, birth: Birth, token: str) -> None:
        """Ask once: there is no token that tells a second request from a repeated one."""
        body = openstackserver.request(
            self.options,
            self.choice,
            name=self.machine.name,
            groups=self._use,
            marks=self.marks(),
            data=packed(birth.user_data, openstackserver.USER_DATA, "Nova"),
        )
        made = self.api.call.once("make the server", self.api.driver.ask, "compute", "POST", "/servers", body)
        self._server = str(made["server"]["id"])

    def find(self) -> Instance | None:
        """By the id that this process was just given, in one small call; else, and when that is gone, by uid."""
        try:
            if self._server and alive([node := self._look()]):
                return self._instance(node)
        except CloudError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        return super().find()

    def address(self, node: Node) -> str:
        """The floating one where one was asked for; else the one that the cloud prefers, or the first."""
        addresses = self._addresses(node)
        if self.options.floating_ip_pool:
            addresses = [each for each in addresses if each[0]]
        preferred = node.extra.get("access_ip" if self.options.ip_version == "4" else "access_ipv6")
        return str(preferred or max(addresses, default=(False, ""))[1])

    def peer_address(self, node: Node) -> str:
        """The first that is its own: a floating one leads to it, and it does not know of that."""
        return next((address for floats, address in self._addresses(node) if not floats), "")

    def switch(self, verb: str, node: Node) -> None:
        """Start or stop it. There is no way to cut the power: Nova does so itself when the system does not stop."""
        resumed = {"paused": "unpause", "suspended": "resume"}
        action = resumed.get(str(node.state), "os-start") if verb == "start" else "os-stop"
        self.api.driver.act(node, action)

    def screen(self, node: Node) -> str:
        """Its last lines, as Nova has them."""
        action = {"os-getConsoleOutput": {"length": CONSOLE}}
        return str(self.api.driver.ask("compute", "POST", f"/servers/{node.id}/action", action)["output"])

    def release(self, resource: Resource) -> None:
        """Remove the group as soon as no server uses it, or the floating IP."""
        path, key = {GROUP: GROUPS, FLOATING_IP: FLOATING_IPS}.get(resource.kind, ("", ""))
        ask = self.api.driver.ask
        for found in self._ours(resource.kind, path, key) if path else []:
            self.removed(f"remove the {resource.kind}", ask, "network", "DELETE", f"{path}/{found['id']}")

    @classmethod
    def beside(cls, api: Api) -> list[tuple[Mapping[str, str], Resource]]:
        """Security groups and floating IPs by their descriptions."""
        found = list[tuple[str, str]]()
        for kind, (path, key) in ((GROUP, GROUPS), (FLOATING_IP, FLOATING_IPS)):
            query = {"project_id": api.driver.login.project, "fields": "description"}
            listed = api.call(f"list the {kind}s", api.driver.all, "network", path, key, **query)
            found += [(kind, each["description"]) for each in listed]
        marks = [(kind, openstackserver.marks_in(text)) for kind, text in found]
        return [(each, Resource(kind, labelled(each))) for kind, each in marks if "machinekit.uid" in each]

    def _made(self, kind: str, where: tuple[str, str], make: Callable[[], str]) -> str:
        """The id of what an earlier attempt has made, or of what is made now: a name may be given twice there."""
        begun = any(resource.kind == kind for resource in self.machine.resources)
        if begun and (found := self._ours(kind, *where)):
            return str(found[0]["id"])
        self.plan(kind, self.label)
        try:
            return make()
        except CloudError as error:
            if error.kind is not Kind.TRANSIENT:  # certainly not made
                self.forget(Resource(kind, self.label))
            raise

    def _ours(self, kind: str, path: str, key: str) -> list[dict[str, Any]]:
        """What carries our marks of what Neutron has."""
        query = {"description": openstackserver.described(self.marks()), "fields": "id"}
        look = self.api.driver.all
        return self.until_listed(kind, lambda: self.api.call(f"find the {kind}", look, "network", path, key, **query))

    def _make_group(self) -> str:
        marks = openstackserver.described(self.marks())
        return self._make(GROUP, GROUPS[0], "security_group", {"name": self.label, "description": marks})

    def _make_floating_ip(self) -> str:
        marks = openstackserver.described(self.marks())
        wanted = {"floating_network_id": self.choice.pool, "description": marks}
        return self._make(FLOATING_IP, FLOATING_IPS[0], "floatingip", wanted)

    def _make(self, kind: str, path: str, key: str, wanted: dict[str, str]) -> str:
        ask = self.api.driver.ask
        return str(self.api.call.once(f"make the {kind}", ask, "network", "POST", path, {key: wanted})[key]["id"])

    def _open_group(self, group: str) -> None:
        """Add the rules; where some are there already Neutron takes none, and those that are missing are added."""
        wanted = openstackserver.rules(group, firewall.doors(self.choice.allowed, self.options.peers))
        path, key, what = "/security-group-rules", "security_group_rules", "open the security group"
        try:
            self.api.call(what, self.api.driver.ask, "network", "POST", path, {key: wanted})
        except CloudError as error:
            if error.kind is not Kind.CONFLICT:
                raise
            there = self.api.call(what, self.api.driver.all, "network", path, key, security_group_id=group)
            have = [openstackserver.told(rule) for rule in there]
            for rule in wanted:
                if openstackserver.told(rule) not in have:
                    self._there(what, "network", path, {"security_group_rule": rule})

    def _addresses(self, node: Node) -> list[tuple[bool, str]]:
        """Whether it is a floating one, and the address, of those that count."""
        return [
            (each.get("OS-EXT-IPS:type") == "floating", str(each["addr"]))
            for network in node.extra["addresses"].values()
            for each in network
            if str(each["version"]) == self.options.ip_version
        ]

    def _built(self) -> Node:
        """The server, when the cloud has built it or has failed to."""
        if not self._server:
            if not (mine := self._mine()):
                raise CloudError(Kind.TRANSIENT, "the server was asked for, and is not listed", HINTS[Kind.TRANSIENT])
            self._server = str(mine[0].id)
        node = self._look()

        def built() -> bool:
            nonlocal node
            node = self._look()
            return str(node.state) != "pending"

        if str(node.state) == "pending":
            self._wait("built", built, pause=1.0)
        return node

    def _look(self) -> Node:
        """The server that this process has made or found, as it is now."""
        node: Node = self.api.call("look at the server", self.api.driver.node, self._server)
        return node

    def _attach(self, node: Node) -> None:
        """Lead the floating IP to the server's port."""
        query = {"device_id": node.id, "network_id": self.choice.network, "fields": "id"}
        look, ask = self.api.driver.all, self.api.driver.ask
        ports = self.until_listed(
            FLOATING_IP, lambda: self.api.call("find the port", look, "network", "/ports", "ports", **query)
        )
        if not ports:
            raise CloudError(Kind.TRANSIENT, "the server's port is not listed", HINTS[Kind.TRANSIENT])
        address = self._made(FLOATING_IP, FLOATING_IPS, self._make_floating_ip)
        port = {"floatingip": {"port_id": ports[0]["id"]}}
        self.api.call("attach the floating IP", ask, "network", "PUT", f"{FLOATING_IPS[0]}/{address}", port)

    def _there(self, what: str, service: str, path: str, body: Any) -> None:
        """Make something; what is there already is as good as made."""
        try:
            self.api.call(what, self.api.driver.ask, service, "POST", path, body)
        except CloudError as error:
            if error.kind is not Kind.CONFLICT:
                raise

    def _caller(self, network: str) -> str:
        """This computer's address as the machine's network sees it; where its range is a secret, as the API does."""
        if cidr := openstackplaces.subnet(self.api, network, self.options.ip_version):
            return firewall.caller(str(ipaddress.ip_network(cidr)[1]), ALLOW)
        try:
            endpoint = socket.gethostbyname(urlsplit(self.api.driver.login.url).hostname or "")
        except OSError:
            endpoint = ""
        return firewall.caller("" if endpoint.startswith("127.") else endpoint, ALLOW)
