"""The images on this computer: built, listed, in use, removed."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.lab import Cli, Lab


def here(cli: Cli) -> list[dict[str, Any]]:
    """The images that are on this computer."""
    return [about for about in json.loads(cli("image", "ls", "--json")) if about["here"]]


def test_build_use_and_remove(lab: Lab, cli: Cli) -> None:
    """debian-11 is the image that no other test keeps using when this one is done with it."""
    (cli.home / "images").unlink()  # images of its own
    assert "no image" in cli.fail("image", "build", "debian-7", code=2)
    said = cli("image", "build", "debian-11", "--driver", "container", "--engine")
    assert "built debian-11+engine in " in said
    (listed,) = here(cli)
    assert (listed["kind"], listed["name"]) == ("rootfs", "debian-11+engine")
    assert listed["bytes"] > 50e6
    assert cli("image", "ls").splitlines()[1].split()[:2] == ["rootfs", "debian-11+engine"]

    create = ["create", "-d", "container", "--container-image", "debian-11+engine", "node1"]
    cli(*create)
    refused = cli.fail("image", "rm", "-y", "-d", "container", "debian-11+engine")
    assert 'image "debian-11+engine" is in use by node1' in refused
    cli("rm", "-y", "node1")
    build = listed["build"]
    assert build in lab.docker("image", "ls", "--format", "{{.Tag}}")
    cli("image", "rm", "-y", "-d", "container", "debian-11+engine")
    assert build not in lab.docker("image", "ls", "--format", "{{.Tag}}")
    assert here(cli) == []
    assert "there is no rootfs image" in cli.fail("image", "rm", "-y", "-d", "container", "debian-11+engine")
