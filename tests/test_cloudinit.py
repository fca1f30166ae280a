"""The user-data of a first boot."""

from __future__ import annotations

import gzip
import json
from email import message_from_string

import pytest

from machinekit import cloudinit
from machinekit.errors import PreCheckError


@pytest.mark.parametrize("host_key", ["FIRST LINE\nSECOND LINE\n"])
def test_user_data_is_a_cloud_config_with_our_keys(host_key: str) -> None:
    text = cloudinit.user_data("node1", "machinekit", "ssh-ed25519 AAAA me", host_key, "ssh-ed25519 BBBB host")
    head, _, body = text.partition("\n")
    config = json.loads(body)
    (user,) = config["users"]
    assert head == "#cloud-config"
    assert config["hostname"] == "node1"
    assert user["name"] == "machinekit"
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me"]
    assert user["lock_passwd"]
    assert config["ssh_keys"] == {"ed25519_private": host_key, "ed25519_public": "ssh-ed25519 BBBB host"}
    assert not config["ssh_pwauth"]
    assert config["disable_root"]


@pytest.mark.parametrize("name", ['a"b', "a\nb: c", "é", "{{ x }}", "#"])
def test_no_value_can_leave_its_place(name: str) -> None:
    text = cloudinit.user_data(name, name, name, name, name)
    config = json.loads(text.partition("\n")[2])
    assert (config["hostname"], config["users"][0]["name"]) == (name, name)
    assert len(config["users"]) == 1


def merged(own: bytes) -> list[tuple[str, str]]:
    text = cloudinit.user_data(
        "node1", "machinekit", "ssh-ed25519 AAAA me", "PRIVATE\n", "ssh-ed25519 BBBB host", own=own
    )
    message = message_from_string(text)
    parts = [part for part in message.walk() if not part.is_multipart()]
    return [(part.get_content_type(), bytes(part.get_payload(decode=True)).decode()) for part in parts]


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        (b"#cloud-config\npackages: [jq]\n", "text/cloud-config"),
        (b"#!/bin/sh\necho hello\n", "text/x-shellscript"),
        (b"#cloud-boothook\n#!/bin/sh\n", "text/cloud-boothook"),
        (b"#include\nhttps://example.com/more\n", "text/x-include-url"),
        ("#!/bin/sh\necho Grüße\n".encode(), "text/x-shellscript"),
    ],
)
def test_the_users_own_comes_after_ours(own: bytes, kind: str) -> None:
    (first, ours), (second, theirs) = merged(own)
    assert first == "text/cloud-config"
    assert json.loads(ours.partition("\n")[2])["users"][0]["name"] == "machinekit"
    assert (second, theirs) == (kind, own.decode())


def test_a_message_of_several_parts_and_a_packed_one_are_taken_apart() -> None:
    one = cloudinit.user_data("a", "b", "c", "d\n", "e", own=b"#!/bin/sh\ntrue\n")
    assert [kind for kind, _ in merged(gzip.compress(one.encode()))] == [
        "text/cloud-config",
        "text/cloud-config",
        "text/x-shellscript",
    ]


def test_the_same_parts_make_the_same_message() -> None:
    """A cloud takes a repeated request for the same only when it is the same to the byte."""
    words, own = ("a", "b", "c", "d\n", "e"), b"#!/bin/sh\ntrue\n"
    assert cloudinit.user_data(*words, own=own) == cloudinit.user_data(*words, own=own)


@pytest.mark.parametrize("own", [b"packages: [jq]\n", b"\x1f\x8bno gzip", b"\xff\xfe"])
def test_what_cloud_init_does_not_know_is_refused(own: bytes) -> None:
    with pytest.raises(PreCheckError, match="user-data"):
        cloudinit.parts(own)


def test_without_a_host_key_cloud_init_makes_one() -> None:
    text = cloudinit.user_data("node1", "machinekit", "ssh-ed25519 AAAA me", "\n", "\n")
    assert "ssh_keys" not in json.loads(text.partition("\n")[2])
