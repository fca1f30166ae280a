"""A droplet of DigitalOcean."""

import json
from dataclasses import dataclass
from typing import Any

from machinekit.machine import Birth
from machinekit.provider import option

from . import calls, credentials
from .account import CloudOptions, own_user_data
from .plain import PlainCloud


@dataclass
class DigitalOceanOptions(CloudOptions):
    """Which account, and the shape of the droplet."""

    user_data: str = own_user_data(("DIGITALOCEAN_USERDATA",), ("--digitalocean-userdata",))
    access_token: str = credentials.given("API token", "DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
    token_command: str = option("command that prints the token", default="")
    image: str = option("image, by slug, id or name", default="debian-13-x64", aliases=("DIGITALOCEAN_IMAGE",))
    region: str = option("region", default="nyc3", aliases=("DIGITALOCEAN_REGION",))
    size: str = option("size", default="s-1vcpu-1gb", aliases=("DIGITALOCEAN_SIZE",))
    tags: tuple[str, ...] = option("tag", default=(), aliases=("DIGITALOCEAN_TAGS",))
    backups: bool = option("make backups", default=False, aliases=("DIGITALOCEAN_BACKUPS",))
    ipv6: bool = option("have an IPv6 address too", default=False, aliases=("DIGITALOCEAN_IPV6",))
    monitoring: bool = option("have DigitalOcean's agent", default=False, aliases=("DIGITALOCEAN_MONITORING",))
    private_networking: bool = option("have a private one", default=False, aliases=("DIGITALOCEAN_PRIVATE_NETWORKING",))
    endpoint: str = option("URL of the API", default="", aliases=("DIGITALOCEAN_API_URL",), **calls.ENDPOINT_RULES)


class DigitalOcean(PlainCloud[DigitalOceanOptions]):
    """A droplet of DigitalOcean."""

    Options = DigitalOceanOptions
    account_options = ("token_command", "endpoint")
    advice = "looked for in $DIGITALOCEAN_TOKEN, --digitalocean-token-command and the config.yaml of doctl"

    @classmethod
    def connect(cls, options: Any) -> Any:
        """The token's account; the token may be doctl's."""
        doctl = credentials.own_file("doctl/config.yaml")
        tokens = {**doctl.get("auth-contexts", {}), "default": doctl.get("access-token")}
        kept = tokens.get(doctl.get("context", "default"))
        token = credentials.secret("token", options.access_token, options.token_command, kept, advice=cls.advice)
        driver = calls.opened("digitalocean", options.endpoint, token)
        driver.EX_CREATE_ATTRIBUTES = [*driver.EX_CREATE_ATTRIBUTES, "monitoring"]
        return driver

    def request(self, birth: Birth) -> dict[str, Any]:
        """User-data, our tag and theirs, and the switches."""
        switches = {key: getattr(self.options, key) for key in ("backups", "ipv6", "monitoring", "private_networking")}
        return {"ex_user_data": birth.user_data, "ex_create_attr": {"tags": [self.tag, *self.options.tags], **switches}}

    def switch(self, verb: str, node: Any) -> None:
        """As an action of the droplet."""
        action = json.dumps({"type": {"start": "power_on", "stop": "shutdown", "kill": "power_off"}[verb]})
        self.api.driver.connection.request(f"/v2/droplets/{node.id}/actions", data=action, method="POST")
