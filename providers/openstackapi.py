"""OpenStack's APIs through libcloud: its connections and nodes, with logins and requests of our own."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from libcloud.common.openstack import OpenStackBaseConnection
from libcloud.compute.base import Node
from libcloud.compute.drivers.openstack import (
    OpenStack_1_1_Response,
    OpenStack_2_Connection,
    OpenStack_2_ImageConnection,
    OpenStack_2_NetworkConnection,
    OpenStack_2_NodeDriver,
)
from libcloud.compute.types import NodeState

from .calls import CloudError, kind_of
from .openstacklogin import Login

TIMEOUT = 60.0  # seconds for a call: Nova asks other services before it answers, and there may be a queue
UNAUTHORIZED = 401
VERSIONS = {"image": "/v2", "network": "/v2.0"}


class TokenRefusedError(CloudError):
    """It has expired earlier than it said, or was revoked; nothing was carried out."""


class Response(OpenStack_1_1_Response):
    """An answer; a refusal in the service's own words."""

    def parse_error(self) -> Any:
        """Raise CloudError."""
        text = _words(str(self.body or "")) or f"HTTP status {self.status}"
        after = str(self.headers.get("retry-after") or "")
        kind = TokenRefusedError if int(self.status) == UNAUTHORIZED else CloudError
        raise kind(kind_of(int(self.status), text), text, after=float(after) if after.isdigit() else 0.0)


class Connection(OpenStackBaseConnection):
    """A connection to one service, with the token and the catalog of the driver's login."""

    responseCls = Response  # noqa: N815 (libcloud's name)
    driver: Any

    def request(self, *args: Any, **more: Any) -> Any:
        """One request; once again when only the token was refused."""
        try:
            return super().request(*args, **more)
        except TokenRefusedError:
            self.driver.login.renew()
            return super().request(*args, **more)

    def connect(self, *args: Any, **more: Any) -> None:
        """Trust whom the configuration trusts."""
        super().connect(*args, **more)
        login, connection = self.driver.login, cast(Any, self.connection)
        connection.verify = bool(login.verify)
        connection.ca_cert = login.verify if isinstance(login.verify, str) else None
        connection.session.cert = login.certificate

    def _populate_hosts_and_request_paths(self) -> None:
        login: Login = self.driver.login
        service = str(self.service_type)
        self.auth_token = login.token
        self._set_up_connection_info(_versioned(service, login.endpoint(service)))


class Compute(Connection, OpenStack_2_Connection):
    """To Nova."""


class Images(Connection, OpenStack_2_ImageConnection):
    """To Glance."""


class Network(Connection, OpenStack_2_NetworkConnection):
    """To Neutron."""


class OpenStackApi(OpenStack_2_NodeDriver):
    """One region of one account."""

    connectionCls = Compute  # noqa: N815 (libcloud's names)
    image_connectionCls = Images  # noqa: N815
    network_connectionCls = Network  # noqa: N815
    NODE_STATE_MAP = {  # noqa: RUF012 (libcloud's)
        **OpenStack_2_NodeDriver.NODE_STATE_MAP,
        "PAUSED": NodeState.PAUSED,
        "SHELVED": NodeState.STOPPED,
        "SHELVED_OFFLOADED": NodeState.STOPPED,
        "SOFT_DELETED": NodeState.TERMINATED,
    }

    def __init__(self, login: Login) -> None:
        self.login = login
        super().__init__("", "", ex_force_auth_url=login.url, timeout=TIMEOUT)

    def ask(self, service: str, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One request; the answer's content, or None."""
        return self._connection(service).request(path, params=query, data=body or "", method=method).object

    def all(self, service: str, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        """A list, in as many pages as there are."""
        found: list[dict[str, Any]] = self._paginated_request(path, key, self._connection(service), query)[key]
        return found

    def node(self, server: str) -> Node:
        """One server, as it is now; one that is gone is an error."""
        found: Node = self._to_node(self.ask("compute", "GET", f"/servers/{server}")["server"])
        return found

    def act(self, node: Node, action: str) -> None:
        """Have a server do something; no error when it is at it, or has done it already."""
        try:
            self.ask("compute", "POST", f"/servers/{node.id}/action", {action: None})
        except CloudError as error:
            if not re.search("while it is in (task|vm)_state", error.message):
                raise

    def _connection(self, service: str) -> Any:
        return {"compute": self.connection, "network": self.network_connection, "image": self.image_connection}[service]


def _versioned(service: str, url: str) -> str:
    """The root of an API that we speak; catalogs name it with or without its version, Nova's also with the project."""
    if service == "compute":
        return url if re.search(r"/v2(\.\d+)?(/|$)", url) else f"{url.rstrip('/')}/v2.1"
    return re.sub(r"(/v[\d.]+)?/*$", VERSIONS[service], url)


def _words(body: str) -> str:
    """What a refusal says: each service wraps it in another way, and a balancer sends a page."""
    try:
        said = json.loads(body)
    except ValueError:
        return " ".join(re.sub(r"<(title|style).*?</\1>|<[^>]*>", " ", body, flags=re.DOTALL).split())[:200]
    while isinstance(said, dict) and said:
        said = said.get("message") or next((each for each in said.values() if isinstance(each, dict)), "")
    return str(said)
