"""What people ask for: accepted, or refused with the flag that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_field_without_a_name_is_no_option() -> None:
    with pytest.raises(UsageError, match="is no option"):
        parse_spec({"": None})


def test_what_is_stored_is_json_without_secrets() -> None:
    assert storable(FakeOptions("s3cret", 7, ("a", "b"), True)) == {
        "size": 7,
        "tags": ["a", "b"],
        "spot": True,
        "image": "newest",
    }


@pytest.mark.parametrize("name", drivers.names())
def test_every_driver_has_a_json_schema(name: str) -> None:
    driver = drivers.load(name)
    schema = model(driver.Options).model_json_schema()
    assert list(schema["properties"]) == list(driver.Options.infos())
    assert all(each["description"] for each in schema["properties"].values())
    assert json.loads(json.dumps(schema)) == schema


PUBLISH = st.text(st.sampled_from("0123456789.:/tcpud,-٣ \n"), max_size=24) | st.from_regex(
    r"([0-9.]+:)?[0-9]{1,5}:[0-9]{1,5}(/udp)?", fullmatch=True
)


@given(text=PUBLISH)
def test_publish_is_right_or_a_usage_error(text: str) -> None:
    accepted = 0
    for name in ("qemu", "container"):
        try:
            parse_options(name, drivers.load(name), {"publish": [text]})
        except UsageError as error:
            assert error.message.startswith(f"--{name}-publish: {text!r}")
        else:
            accepted += 1
    assert accepted in (0, 2)
    assert accepted == 0 or not set(text) & set(",- \n٣")


@given(url=st.from_regex(r"tcp://.+:\d+", fullmatch=True) | st.just("unix:///run/docker.sock"))
def test_any_url_is_right_or_a_usage_error(url: str) -> None:
    try:
        parse_options("none", drivers.load("none"), {"url": url})
    except UsageError as error:
        assert error.message.startswith("--none-url: ")
    else:
        assert url.startswith("unix") or int(url.rpartition(":")[2]) <= 65535
