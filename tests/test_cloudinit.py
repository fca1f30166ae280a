"""The user-data of a first boot."""

from __future__ import annotations

import json

import pytest

from machinekit import cloudinit


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
