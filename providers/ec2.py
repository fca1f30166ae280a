"""EC2's API through libcloud: its signing and its nodes, with requests of our own where libcloud has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

from libcloud.compute.base import Node
from libcloud.compute.drivers.ec2 import NAMESPACE, EC2Connection, EC2NodeDriver, EC2Response
from libcloud.compute.types import NodeState
from libcloud.utils.xml import findall, findtext

from .calls import CloudError, kind_of

PAGE = 1000  # instances in one answer, the most there can be


class Response(EC2Response):
    """An answer; a refusal keeps its code, and a balancer's page its status."""

    def parse_error(self) -> Any:
        """Raise CloudError."""
        try:
            codes = [
                (each.findtext("Code"), each.findtext("Message"))
                for each in ElementTree.XML(str(self.body)).iter("Error")
            ]
        except ElementTree.ParseError:
            codes = []
        text = "; ".join(f"{code}: {message}" for code, message in codes) or f"HTTP status {self.status}"
        raise CloudError(kind_of(self.status, text), text)


class Connection(EC2Connection):
    """A signed connection. Requests are forms: user-data does not fit into an address."""

    responseCls = Response  # noqa: N815 (libcloud's name)

    def request(self, action: str, params: Mapping[str, str] | None = None, **more: Any) -> Any:  # type: ignore[override]
        """One request."""
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        form = urlencode({"Version": self.version, **(params or {})})
        return super().request(action, data=form, headers=headers, method="POST")

    def add_default_params(self, params: dict[str, str]) -> dict[str, str]:
        """None in the address."""
        return params


class Ec2(EC2NodeDriver):
    """One region of one account; regions that libcloud does not know are as good."""

    connectionCls = Connection  # noqa: N815 (libcloud's name)
    # what is being shut down for good is gone: nothing brings it back
    NODE_STATE_MAP = {  # noqa: RUF012 (libcloud's)
        "pending": NodeState.PENDING,
        "running": NodeState.RUNNING,
        "shutting-down": NodeState.TERMINATED,
        "terminated": NodeState.TERMINATED,
        "stopping": NodeState.STOPPING,
        "stopped": NodeState.STOPPED,
    }

    def __init__(self, region: str, key: str, secret: str, **more: Any) -> None:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        host = more.get("host") or f"ec2.{region}.{suffix}"
        known = region if region in regions() else "us-east-1"  # it has no way to name another
        super().__init__(key, secret, region=known, signature_version="4", **{**more, "host": host})
        self.region_name = region
        self._more = more

    def elsewhere(self, region: str) -> Ec2:
        """The same account in another region, at the same endpoint if one was given."""
        return Ec2(region, self.key, self.secret, **self._more)

    def ask(self, action: str, **params: Any) -> ElementTree.Element:
        """One request; dicts, lists, numbers and switches are written as EC2 wants them."""
        answer: ElementTree.Element = self.connection.request(
            "/", params={"Action": action, **flattened(params)}
        ).object
        return answer

    def instances(self, filters: Mapping[str, Iterable[str]]) -> list[Node]:
        """The instances that a filter lets through, in as many pages as there are."""
        nodes: list[Node] = []
        token: dict[str, str] = {}
        while True:
            answer = self.ask("DescribeInstances", Filter=filtered(filters), MaxResults=PAGE, **token)
            for reservation in items(answer, "reservationSet/item"):
                nodes += self._to_nodes(reservation, "instancesSet/item")
            if not (more := text(answer, "nextToken")):
                return nodes
            token = {"NextToken": more}


def regions() -> list[str]:
    """The regions that libcloud knows, which may not be all."""
    return list(EC2NodeDriver.list_regions())


def flattened(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested parameters as EC2's query API names them: NetworkInterface.1.SubnetId. None is left out.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html
    """
    if isinstance(value, Mapping):
        pairs = [(key, inner) for key, inner in value.items() if inner is not None]
    elif isinstance(value, list | tuple):
        pairs = [(str(number), inner) for number, inner in enumerate(value, 1)]
    else:
        return {prefix: str(value).lower() if isinstance(value, bool) else str(value)}
    flat: dict[str, str] = {}
    for key, inner in pairs:
        flat |= flattened(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def filtered(filters: Mapping[str, Iterable[str]]) -> list[dict[str, Any]]:
    """Filters as a parameter."""
    return [{"Name": name, "Value": list(values)} for name, values in filters.items()]


def items(element: ElementTree.Element, path: str) -> list[ElementTree.Element]:
    """The elements at a path of an answer."""
    found: list[ElementTree.Element] = findall(element=element, xpath=path, namespace=NAMESPACE)
    return found


def text(element: ElementTree.Element, path: str) -> str:
    """The text at a path of an answer; empty for none."""
    return str(findtext(element=element, xpath=path, namespace=NAMESPACE) or "")


def tags(element: ElementTree.Element) -> dict[str, str]:
    """The tags of a thing in an answer."""
    return {text(item, "key"): text(item, "value") for item in items(element, "tagSet/item")}
