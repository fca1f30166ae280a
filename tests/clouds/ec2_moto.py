"""moto's EC2, asked directly, and what of its answers is mended to be what EC2 says on the wire."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from botocore.model import OperationNotFoundError
from moto.core.request import Request
from moto.ec2.models import EC2Backend, ec2_backends, elastic_ip_addresses, elastic_network_interfaces
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.responses import EC2Response
from moto.iam.models import iam_backends

ACCOUNT = "123456789012"
PROFILE = "machines"  # the account's one instance profile
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_ITS_NAMESPACE = f' xmlns="{NAMESPACE.rstrip("/")}"'
_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error>'
    "</Errors><RequestID>{}</RequestID></Response>"
)

Parameters = dict[str, str]


@dataclass
class Answer:
    """What goes back to the caller."""

    status: int
    body: str


class Refusal(Exception):  # noqa: N818
    """An error that EC2 answers with."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.answer = error(code, message, status)


def error(code: str, message: str, status: int) -> Answer:
    """An error in EC2's words. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html"""
    return Answer(status, _ERROR.format(escape(code), escape(message), uuid.uuid4()))


def prepare(vpc: str, public: str) -> None:
    """Let the default networks and the public addresses be in these ranges, in every region."""
    os.environ |= {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false", "MOTO_ACCOUNT_ID": ACCOUNT}
    iam_backends[ACCOUNT]["aws"].create_instance_profile(PROFILE, "/", [])
    network = ipaddress.ip_network(public)
    # one after the other; moto's own are addresses of strangers
    numbers = itertools.cycle(range(1, network.num_addresses - 1))

    def next_public() -> str:
        return str(network[next(numbers)])

    def create_default_vpc(backend: Any) -> Any:
        made = backend.create_vpc(cidr_block=vpc, is_default=True)
        for zone in backend.describe_availability_zones():
            backend.create_default_subnet(zone.name)
        return made

    for owner, name, ours in (
        (EC2Backend, "create_default_vpc", create_default_vpc),
        (elastic_network_interfaces, "random_public_ip", next_public),
        (elastic_ip_addresses, "random_ip", next_public),
        (TaggedEC2Resource, "get_tags", _tags),  # its own looks through the tags of everything for those of one
    ):
        setattr(owner, name, ours)


def _tags(resource: Any) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags_of(resource.ec2_backend, resource.id).items()]


def tags_of(backend: Any, identity: str) -> dict[str, str]:
    """The tags of one resource."""
    return dict(backend.tags.get(identity, {}))


def backend_of(region: str) -> Any:
    """Everything that there is in a region."""
    return ec2_backends[ACCOUNT][region]


def reset() -> None:
    """Forget everything, in every region."""
    for region in ec2_backends[ACCOUNT].values():
        region.reset()


def ask(region: str, parameters: Parameters) -> Answer:
    """Moto's answer, mended."""
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=AKIA/20250101/{region}/ec2/aws4_request",  # to say which region
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = urlencode(_counted_from_one(parameters) | {"Version": "2016-11-15"}).encode()
    try:
        request = Request.from_primitives("POST", f"https://ec2.{region}.amazonaws.com/", headers, body)
        status, _, text = EC2Response.dispatch(request)
    except (NotImplementedError, OperationNotFoundError):
        return error("InvalidAction", f"The action {parameters['Action']} is not valid for this web service.", 400)
    return Answer(int(status), _mended(text if isinstance(text, str) else text.decode(), refused=int(status) != 200))


def _counted_from_one(parameters: Parameters) -> Parameters:
    """EC2 takes lists that are counted from 0, as libcloud does for tags; moto does not."""
    if "ResourceId.0" not in parameters:
        return parameters
    number = re.compile(r"(?<=^ResourceId\.)\d+|(?<=^Tag\.)\d+")
    return {number.sub(lambda found: str(int(found[0]) + 1), key): value for key, value in parameters.items()}


def _mended(text: str, *, refused: bool) -> str:
    text = text.replace("request-id</", f"{uuid.uuid4()}</", 1)
    if refused:
        return text.replace(_ITS_NAMESPACE, "", 1)
    text = text.replace(_ITS_NAMESPACE, f' xmlns="{NAMESPACE}"', 1)
    # of what has nothing else to say, and of a new group
    return re.sub(r"(<\w+Response [^>]*>(?:<groupId>.*)?)(<requestId>)", r"\1<return>true</return>\2", text, count=1)
