"""What people ask for: accepted, or refused with the flag that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machinekit.providers.container import ContainerOptions
from machinekit.providers.none import NoneOptions
from machinekit.providers.qemu import QemuOptions

from machinekit import drivers
from machinekit.errors import UsageError
from machinekit.spec import Spec, check_name, engine_flag, model, parse_options, parse_spec, storable
from machinekit.store import NAME
from tests.providers.fake import Fake, FakeOptions


@pytest.mark.parametrize("name", ["a", "0", "node1", "Node-1.example.org", "a" * 63, "a.", "a--b"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a_b", "a b", "a/b", "..", "ä", "a\n", "a" * 64, "a;id", "$HOME"])
def test_no_names(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.exit_code == 2
    assert repr(name) in caught.value.message


@given(name=st.from_regex(NAME, fullmatch=True))
def test_a_name_is_safe_in_paths_hosts_and_shells(name: str) -> None:
    assert check_name(name) == name
    assert name.isascii()
    assert not set(name) & set("/\\ \n\t\"'`$&;|<>*?()[]{}~#!%_=")
    assert name[0].isalnum()


@given(text=st.text(max_size=70))
def test_any_text_is_a_name_or_a_usage_error(text: str) -> None:
    try:
        assert check_name(text) == text
    except UsageError:
        assert not NAME.fullmatch(text)


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("engine", "--engine"),
        ("install_url", "--engine-install-url"),
        ("opts", "--engine-opt"),
        ("labels", "--engine-label"),
        ("env", "--engine-env"),
        ("insecure_registries", "--engine-insecure-registry"),
        ("registry_mirrors", "--engine-registry-mirror"),
        ("storage_driver", "--engine-storage-driver"),
        ("version", "--engine-version"),
        ("repository", "--engine-repository"),
        ("key_fingerprint", "--engine-key-fingerprint"),
        ("tls_sans", "--tls-san"),
    ],
)
def test_engine_flags_are_docker_machines(field: str, flag: str) -> None:
    assert engine_flag(field) == flag
    assert field in Spec.model_fields


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"labels": ["novalue"]}, "--engine-label: 'novalue' is not of the form name=value"),
        ({"labels": ["=x"]}, "--engine-label: '=x' is not of the form name=value"),
        ({"opts": ["a b=x"]}, "--engine-opt: 'a b=x' is not of the form name=value"),
        ({"env": ["A=x\ry"]}, "--engine-env: 'A=x\\ry' has a control character"),
        ({"opts": ["default-ulimit=nofile=1:2"]}, "--engine-opt: default-ulimit is called default-ulimits"),
        ({"opts": ["hosts=[]"]}, "--engine-opt: hosts is machinekit's own to set"),
        ({"opts": ["tlsverify=false"]}, "--engine-opt: tlsverify is machinekit's own to set"),
        ({"tls_sans": ["a b"]}, "--tls-san: 'a b' is neither a host name nor an address"),
        ({"tls_sans": [""]}, "--tls-san: '' is neither"),
        ({"env": ["A=x\ny"]}, "--engine-env: 'A=x\\ny' has a control character"),
        ({"engine": "podman"}, "--engine: Input should be 'distro', 'docker', 'script' or 'none' (given: 'podman')"),
        ({"engine": "script"}, "--engine script needs --engine-install-url"),
        ({"install_url": "https://x.test"}, "an install URL goes with --engine script"),
        ({"engine": "docker", "install_url": "https://x.test"}, "an install URL goes with --engine script"),
        ({"proxy": "proxy:3128"}, "--proxy: 'proxy:3128' is not of the form http://HOST:PORT"),
        ({"proxy": "http://me:word@p.test:1"}, "--proxy: a proxy with a password would have to be kept in the record"),
        ({"proxy": "http://p.test:1", "no_proxy": ["a b"]}, "--no-proxy: 'a b' is neither a host"),
        ({"no_proxy": ["a"]}, "--no-proxy goes with --proxy"),
        ({"tls_ca_cert": "ca.pem"}, "--tls-ca-cert and --tls-ca-key go together"),
        ({"engine": "none", "version": "1"}, "--engine-version goes with --engine distro or docker"),
        ({"version": "-1"}, "--engine-version: '-1' is not a value it takes"),
        ({"version": "1 $(id)"}, "--engine-version: '1 $(id)' is not a value it takes"),
        ({"repository": "https://x.test"}, "--engine-repository and --engine-key-fingerprint go with --engine docker"),
        ({"engine": "docker", "repository": "x.test"}, "--engine-repository: 'x.test' is not a value it takes"),
        ({"engine": "docker", "key_fingerprint": "AB"}, "--engine-key-fingerprint: 'AB' is not the 40 hexadecimal"),
        ({"storage_drive": "x"}, "--engine-storage-drive: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_names_its_flag(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(values)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"labels": ["a=b", "c=", "d=e=f", "m=line\nline"], "opts": ["log-opt=max-size=1m"], "env": ["A=b c"]},
        {"engine": "script", "install_url": "https://x.test/install"},
    ],
)
def test_a_spec_survives_the_record(values: dict[str, Any]) -> None:
    spec = parse_spec(values)
    assert Spec(**json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({"token": "t"}, FakeOptions("t")),
        ({"token": "t", "size": "7"}, FakeOptions("t", 7)),
        ({"token": "t", "tags": ["a", "b"], "spot": True}, FakeOptions("t", 1, ("a", "b"), True)),
        ({"token": "t", "spot": "yes"}, FakeOptions("t", spot=True)),
    ],
)
def test_driver_options_from_texts(values: dict[str, Any], options: FakeOptions) -> None:
    assert parse_options("fake", Fake, values) == options


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "--fake-token is required"),
        ({"token": ""}, "--fake-token does not have the right form"),
        ({"token": "t", "size": "x"}, "--fake-size: Input should be a valid integer"),
        ({"token": "t", "size": 65}, "--fake-size: Input should be less than or equal to 64 (given: 65)"),
        ({"token": "t", "spot": "perhaps"}, "--fake-spot: Input should be a valid boolean"),
        ({"token": "t", "colour": "red"}, "--fake-colour: Extra inputs are not permitted"),
        ({"token": "t", "size": 33, "spot": True}, "driver fake: no spot instance is larger than 32"),
    ],
)
def test_a_wrong_driver_option_names_its_flag(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options("fake", Fake, values)
    assert said in caught.value.message


def test_what_is_stored_is_json_without_secrets() -> None:
    assert storable(FakeOptions("s3cret", 7, ("a", "b"), True)) == {"size": 7, "tags": ["a", "b"], "spot": True}


@pytest.mark.parametrize("name", drivers.names())
def test_every_driver_has_a_json_schema(name: str) -> None:
    driver = drivers.load(name)
    schema = model(driver.Options).model_json_schema()
    assert list(schema["properties"]) == list(driver.Options.infos())
    assert all(each["description"] for each in schema["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("driver", "values", "said"),
    [
        ("generic", {}, "--generic-ip-address is required"),
        ("generic", {"ip_address": "h", "ssh_port": -1}, "--generic-ssh-port: Input should be greater than or equal"),
        ("generic", {"ip_address": "h", "ssh_user": "a b"}, "--generic-ssh-user: "),
        ("generic", {"ip_address": "h", "ssh_user": "-oProxyCommand=id"}, "--generic-ssh-user: "),
        ("generic", {"ip_address": "h", "host_key": "MD5:00"}, "--generic-host-key: "),
        ("qemu", {"memory": "0G"}, "--qemu-memory: "),
        ("qemu", {"publish": ("80",)}, "--qemu-publish '80' is not"),
        ("qemu", {"publish": ("65536:80",)}, "--qemu-publish '65536:80' is not"),
        ("qemu", {"publish": ("8080:80,hostfwd=tcp::1-:1",)}, "is not [ADDRESS:]PORT:MACHINE-PORT"),
        ("container", {"engine": "tcp://h:1"}, "--container-engine: "),
        ("container", {"publish": ("a:b",)}, "--container-publish 'a:b' is not"),
        ("none", {"url": "http://h"}, "--none-url: "),
        ("none", {"url": "tcp://h:65536"}, "65536 is not a port"),
        ("none", {"url": "tcp://h:1", "tls_ca": "x"}, "needs all of --none-tls-ca, --none-tls-cert and --none-tls-key"),
        (
            "none",
            {"url": "unix:///s", "tls_ca": "x", "tls_cert": "x", "tls_key": "x"},
            "a unix socket takes no certificates",
        ),
    ],
)
def test_what_the_drivers_refuse(driver: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(driver, drivers.load(driver), values)
    assert said in caught.value.message


PUBLISH = st.text(st.sampled_from("0123456789.:/tcpud,-٣ \n"), max_size=24) | st.from_regex(
    r"([0-9.]+:)?[0-9]{1,5}:[0-9]{1,5}(/udp)?", fullmatch=True
)


@given(text=PUBLISH)
def test_publish_is_right_or_a_value_error(text: str) -> None:
    accepted = 0
    for options in (QemuOptions(publish=(text,)), ContainerOptions(publish=(text,))):
        try:
            options.check()
        except ValueError as error:
            assert repr(text) in str(error)
        else:
            accepted += 1
    assert accepted == 0 or not set(text) & set(",- \n٣")


@given(url=st.from_regex(r"tcp://.+:\d+", fullmatch=True) | st.just("unix:///run/docker.sock"))
def test_any_url_is_right_or_a_value_error(url: str) -> None:
    try:
        NoneOptions(url=url).check()
    except ValueError as error:
        assert "is not a port" in str(error)
    else:
        assert url.startswith("unix") or int(url.rpartition(":")[2]) <= 65535
