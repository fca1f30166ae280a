"""Calls of an EC2 endpoint through libcloud's connection, as tests want to make them."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import InvalidCredsError, LibcloudError

from tests.clouds.ec2 import Ec2

DEBIAN, UBUNTU, AMAZON = "136693071363", "099720109477", "137112412989"
ERRORS = (LibcloudError, BaseHTTPError, InvalidCredsError)


def ask(driver: Any, action: str, parameters: dict[str, str] | None = None) -> Any:
    """One call; the answer's XML."""
    return driver.connection.request("/", params={"Action": action, **(parameters or {})}).object


def image(driver: Any, owner: str = DEBIAN, name: str = "debian-12-amd64-2025*") -> str:
    """The newest one."""
    found = driver.list_images(ex_owner=owner, ex_filters={"name": name, "state": "available"})
    newest: str = max(found, key=lambda image: image.extra["creation_date"]).id
    return newest


def launch(driver: Any, token: str = "", **more: str) -> str:
    """An instance's id."""
    given = {"ImageId": image(driver), "InstanceType": "t3.micro", "MinCount": "1", "MaxCount": "1"}
    given |= {"ClientToken": token} if token else {}
    return one(ask(driver, "RunInstances", given | more), "instanceId")


def one(answer: Any, name: str) -> str:
    """The text of the one element of this name."""
    (found,) = texts(answer, name)
    return found


def texts(answer: Any, name: str) -> list[str]:
    """The texts of all elements of this name."""
    return [element.text or "" for element in answer.iter() if element.tag.endswith(f"}}{name}")]


def states(ec2: Ec2) -> list[str]:
    """How the instances are."""
    return [instance["state"] for instance in ec2.state("instances")]


def until(look: Callable[[], object], wanted: object) -> float:
    """Wait until this is what one sees; how many seconds it took."""
    started = time.monotonic()
    while look() != wanted:
        assert time.monotonic() < started + 20, "it never comes"
        time.sleep(0.05)
    return time.monotonic() - started


def tagged(number: int, kind: str) -> dict[str, str]:
    """A tag in a create request."""
    tag = f"TagSpecification.{number}"
    return {f"{tag}.ResourceType": kind, f"{tag}.Tag.1.Key": "uid", f"{tag}.Tag.1.Value": f"of a {kind}"}


def b64(text: str) -> str:
    """As the API takes it."""
    return base64.b64encode(text.encode()).decode()
