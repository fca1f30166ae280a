"""An instance of Amazon EC2, in a security group of its own."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from machinekit.errors import PreCheckError
from machinekit.machine import Birth, Resource

from . import awsimages, awslaunch, awsplaces, firewall
from .account import Api
from .awsoptions import ALLOW, AwsOptions
from .calls import TIMEOUT, CloudError, Kind
from .cloud import Cloud
from .userdata import packed

if TYPE_CHECKING:
    from libcloud.compute.base import Node

KEY_PAIR = "key pair"
GROUP = "security group"


@dataclass(frozen=True)
class Choice:
    """What was looked up. `architectures` are by instance type, `images` by architecture.

    `groups` are the user's own; without any, a group is made that lets in who is `allowed`.
    """

    architectures: Mapping[str, str]
    images: Mapping[str, awsimages.Ami]
    subnets: tuple[awsplaces.Subnet, ...]
    groups: tuple[str, ...]
    allowed: tuple[str, ...]


class Aws(Cloud[AwsOptions]):
    """An instance of Amazon EC2."""

    Options = AwsOptions
    not_taken: ClassVar[dict[str, str]] = {
        "--amazonec2-access-key": "AWS_ACCESS_KEY_ID",
        "--amazonec2-secret-key": "AWS_SECRET_ACCESS_KEY",
        "--amazonec2-session-token": "AWS_SESSION_TOKEN",
    }
    account_options: ClassVar[tuple[str, ...]] = ("region", "profile", "endpoint")
    advice = awsplaces.ADVICE
    floating = ("image", "region", "instance_type")

    @classmethod
    def connect(cls, options: Any) -> Any:
        """EC2 in one region, with what AWS's own chain of credentials has."""
        from .ec2 import Ec2

        key, secret, token = awsplaces.credentials(options.profile)
        url = urlsplit(options.endpoint)
        where = {"host": url.hostname, "port": url.port, "secure": url.scheme == "https"} if options.endpoint else {}
        return Ec2(options.region, key, secret, token=token, timeout=TIMEOUT, **where)

    def survey(self) -> Choice:
        """Types, images, subnets and groups, each one call."""
        options, api = self.options, self.api
        awsplaces.check_region(api, options.region)
        architectures = awsplaces.architectures(api, options.instance_type)
        images = awsimages.find(api, options.image, options.region, sorted(set(architectures.values())))
        subnets = awsplaces.subnets(api, options.vpc, options.subnet, options.zone, options.region)
        groups = awsplaces.groups(api, options.security_group, subnets[0].vpc)
        allowed = () if groups else options.allow or (self._caller(subnets[0]),)
        return Choice(architectures, images, subnets, groups, allowed)

    @classmethod
    def pinned(cls, options: Any) -> dict[str, str]:
        """The AMI that the family means now."""
        api = cls._open(options)
        needed = sorted(set(awsplaces.architectures(api, tuple(options.instance_type)).values()))
        images = awsimages.find(api, options.image, options.region, needed)
        if len(needed) > 1:
            raise PreCheckError(
                f"instance types of {' and '.join(needed)} have no image in common, so that none can be locked",
                "give instance types of one architecture",
            )
        return {"image": images[needed[0]].id}

    def remarks(self) -> list[str]:
        """Who gets in."""
        return firewall.remarks(self.choice.allowed, self.options.allow, ALLOW, self.options.peers)

    @classmethod
    def option_for_peers(cls, options: Any) -> str:
        """Our group keeps them out; one of the user's own is the user's to open."""
        return "" if options.peers or options.security_group else "peers"

    @classmethod
    def nodes(cls, api: Api, uid: str = "") -> list[Node]:
        """By tag, so that an account's other instances are never listed."""
        wanted = {"tag:machinekit.uid": [uid]} if uid else {"tag-key": ["machinekit.uid"]}
        found: list[Node] = api.call("list the instances", api.driver.instances, wanted)
        return found

    @classmethod
    def marks_on(cls, node: Node) -> Mapping[str, str]:
        """Its tags."""
        tags: dict[str, str] = node.extra["tags"]
        return tags

    def prepare(self, birth: Birth) -> None:
        """A key pair, and a group that lets in who may."""
        packed(birth.user_data, awslaunch.USER_DATA, "EC2")  # or it is too long, and nothing needs to be made
        self._made(
            "make the key pair",
            "ImportKeyPair",
            KeyName=self.plan(KEY_PAIR, self.label),
            PublicKeyMaterial=base64.b64encode(birth.authorized_key.encode()).decode(),
            TagSpecification=awslaunch.tagged(self._tags, "key-pair"),
        )
        self._use = self.choice.groups or (self._make_group(),)

    def order(self, birth: Birth, token: str) -> None:
        """Each type in each zone, spot before on demand, until there is capacity."""
        data, refused = packed(birth.user_data, awslaunch.USER_DATA, "EC2"), []
        for number, offer in enumerate(self._offers()):
            request = awslaunch.request(
                self.options, offer, key_pair=self.label, groups=self._use, tags=self._tags, data=data
            )
            try:
                self._ask("run the instance", "RunInstances", ClientToken=f"{token}-{number}", **request)
            except CloudError as error:
                if error.kind is not Kind.CAPACITY:
                    raise
                refused.append(f"{offer}: {error.message.removeprefix('cannot run the instance: ')}")
            else:
                return
        hint = "give more types with --aws-instance-type, or another --aws-region"
        raise CloudError(Kind.CAPACITY, "no capacity: " + "; ".join(refused), hint)

    def address(self, node: Node) -> str:
        """The public one, unless the private one is wanted or the only one."""
        return next(iter(node.private_ips if self._inside else node.public_ips), "")

    def switch(self, verb: str, node: Node) -> None:
        """Start, stop, or stop by force."""
        action = "StartInstances" if verb == "start" else "StopInstances"
        self.api.driver.ask(action, InstanceId=[node.id], Force=True if verb == "kill" else None)

    def screen(self, node: Node) -> str:
        """As EC2 has kept it, which may be some minutes old."""
        from .ec2 import text

        answer = self.api.driver.ask("GetConsoleOutput", InstanceId=node.id)
        encoded = text(answer, "output")
        return base64.b64decode(encoded).decode(errors="replace")

    def release(self, resource: Resource) -> None:
        """Remove the key pair or the group, as soon as no instance uses it."""
        if resource.kind == KEY_PAIR:
            self.removed("remove the key pair", self.api.driver.ask, "DeleteKeyPair", KeyName=resource.name)
        elif resource.kind == GROUP:
            for group in self.until_listed(GROUP, self._groups):
                self.removed("remove the security group", self.api.driver.ask, "DeleteSecurityGroup", GroupId=group)

    @classmethod
    def beside(cls, api: Api) -> list[tuple[Mapping[str, str], Resource]]:
        """Key pairs and security groups."""
        from .ec2 import filtered, items, tags, text

        found: list[tuple[Mapping[str, str], Resource]] = []
        for kind, action, path, name in (
            (KEY_PAIR, "DescribeKeyPairs", "keySet/item", "keyName"),
            (GROUP, "DescribeSecurityGroups", "securityGroupInfo/item", "groupName"),
        ):
            ours = filtered({"tag-key": ["machinekit.uid"]})
            answer = api.call(f"list the {kind}s", api.driver.ask, action, Filter=ours)
            found += [(tags(item), Resource(kind, text(item, name))) for item in items(answer, path)]
        return found

    @property
    def _inside(self) -> bool:
        return self.options.private_address or self.options.no_public_address

    @property
    def _tags(self) -> dict[str, str]:
        own = dict(word.split("=", 1) for word in self.options.tags)
        return {"Name": self.machine.name} | own | self.marks()

    def _offers(self) -> Iterator[awslaunch.Offer]:
        markets = (True, False) if self.options.spot and not self.options.spot_only else (self.options.spot,)
        for spot in markets:
            for kind in self.options.instance_type:
                image = self.choice.images[self.choice.architectures[kind]]
                for subnet in self.choice.subnets:
                    yield awslaunch.Offer(kind, image, subnet.id, subnet.zone, spot)

    def _make_group(self) -> str:
        from .ec2 import text

        answer = self._made(
            "make the security group",
            "CreateSecurityGroup",
            GroupName=self.plan(GROUP, self.label),
            GroupDescription=f"SSH and Docker engine of {self.machine.name}, made by machinekit",
            VpcId=self.choice.subnets[0].vpc,
            TagSpecification=awslaunch.tagged(self._tags, "security-group"),
        )
        group = text(answer, "groupId") if answer is not None else self._group_made_before()
        self._open_group(group)
        return group

    def _open_group(self, group: str) -> None:
        """Add the rules; where some are there already EC2 takes none, and each is added by itself."""
        rules = awslaunch.ingress(firewall.doors(self.choice.allowed, self.options.peers))
        what, action = "open the security group", "AuthorizeSecurityGroupIngress"
        if self._made(what, action, GroupId=group, IpPermissions=rules) is None:
            for rule in rules:
                self._made(what, action, GroupId=group, IpPermissions=[rule])

    def _group_made_before(self) -> str:
        if found := self.until_listed(GROUP, self._groups):
            return found[0]
        raise CloudError(Kind.TRANSIENT, f"the security group {self.label} exists and is not listed")

    def _groups(self) -> list[str]:
        """The ids of our group; there is one or none."""
        from .ec2 import filtered, items, text

        wanted = filtered({"tag:machinekit.uid": [self.machine.uid]})
        answer = self._ask("find the security group", "DescribeSecurityGroups", Filter=wanted)
        return [text(item, "groupId") for item in items(answer, "securityGroupInfo/item")]

    def _ask(self, what: str, action: str, **params: Any) -> Any:
        return self.api.call(what, self.api.driver.ask, action, **params)

    def _made(self, what: str, action: str, **params: Any) -> Any:
        """The answer, or None when it is there already: its name is this machine's alone."""
        try:
            return self._ask(what, action, **params)
        except CloudError as error:
            if error.kind is not Kind.CONFLICT:
                raise
            return None

    def _caller(self, subnet: awsplaces.Subnet) -> str:
        towards = str(ipaddress.ip_network(subnet.cidr)[1]) if self._inside else ""
        return firewall.caller(towards, ALLOW)
