"""What a machine may carry, as people write it and as a record keeps it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from machinekit import setup
from machinekit.errors import StoreError, UsageError
from machinekit.setup import NOTHING, RoleUse, Setup, parse_setup
from tests.samples import HERE

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def problem(**data: Any) -> str:
    """What is said of a setup that is wrong."""
    with pytest.raises(ValidationError) as caught:
        Setup.model_validate(data)
    return setup.problems(caught.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"path": "etc/motd", "content": ""}, "files.0.path: String should match pattern"),
        ({"path": "/etc/../motd", "content": ""}, "'/etc/../motd' is to be written as '/motd'"),
        ({"path": "/etc/motd/", "content": ""}, "is to be written as '/etc/motd'"),
        ({"path": "//etc/docker/daemon.json", "content": ""}, "is to be written as '/etc/docker/daemon.json'"),
        ({"path": "/etc/docker/daemon.json", "content": ""}, "is machinekit's own to write"),
        ({"path": "/var/lib/machinekit/x", "content": ""}, "is machinekit's own to write"),
        ({"path": "/etc/motd"}, "/etc/motd needs one of content, source and secret"),
        ({"path": "/etc/motd", "content": "", "secret": "env:A"}, "needs one of content, source and secret"),
        ({"path": "/etc/motd", "secret": "s3cret"}, "a secret is given by reference, never as its value"),
        ({"path": "/etc/motd", "secret": 5432167}, "a secret is given by reference, never as its value"),
        ({"path": "/etc/motd", "source": "motd"}, "'motd' must be an absolute path"),
        ({"path": "/etc/motd", "source": "/nowhere"}, "cannot read /nowhere: No such file"),
        ({"path": "/etc/motd", "content": "", "mode": "644"}, "files.0.mode: String should match pattern"),
        ({"path": "/etc/motd", "content": "", "owner": "root"}, "files.0.owner: String should match pattern"),
        ({"path": "/etc/motd", "contents": ""}, "files.0.contents: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_wrong(file: dict[str, Any], said: str) -> None:
    assert said in problem(files=[file])
    assert "s3cret" not in problem(files=[file])
    assert "5432167" not in problem(files=[file])


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ({"host": "https://r.test"}, "registries.0.host: String should match pattern"),
        ({"host": "../r"}, "registries.0.host: String should match pattern"),
        ({"host": "r.test", "username": "ci"}, "username and password go together"),
        ({"host": "r.test", "username": "c:i", "password": "env:A"}, "registries.0.username"),
        ({"host": "r.test", "ca": str(HERE / "run")}, "is not a certificate in PEM"),
    ],
)
def test_a_registry_that_is_wrong(registry: dict[str, Any], said: str) -> None:
    assert said in problem(registries=[registry])


def test_nothing_is_there_twice() -> None:
    file, role = {"path": "/a", "content": ""}, {"role": "script", "run": str(HERE / "run")}
    assert "the file /a is there twice" in problem(files=[file, file])
    assert "the registry r is there twice" in problem(registries=[{"host": "r"}, {"host": "r"}])
    assert "the role script is there twice; give one of the two a name of its own" in problem(roles=[role, role])
    assert len(Setup.model_validate({"roles": [role, role | {"name": "other"}]}).roles) == 2


def test_a_role_says_what_is_wrong_with_its_options() -> None:
    assert "there is no role 'scrpt'; did you mean script?" in problem(roles=[{"role": "scrpt"}])
    assert "run is required" in problem(roles=[{"role": "script"}])
    said = problem(roles=[{"role": "script", "run": str(HERE / "run"), "enviroment": {}, "secrets": {"A": "s3cret"}}])
    assert "enviroment is no option; did you mean environment?" in said
    assert "secrets does not have the right form" in said
    assert "s3cret" not in said


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    (tmp_path / "run").write_text("true")
    (tmp_path / "ca.pem").write_text(CA)
    data = {
        "files": [{"path": "/etc/motd", "source": "./motd"}, {"path": "/etc/key", "secret": "file:key"}],
        "registries": [{"host": "r.test:5000", "ca": "ca.pem", "mirror": True}],
        "roles": [{"role": "script", "run": "run", "secrets": {"TOKEN": "file:token"}}],
    }
    made = Setup.model_validate(data, context={"folder": tmp_path})
    assert made.files[0].source == str(tmp_path / "motd")
    assert made.files[0].digest == hashlib.sha256(b"hello").hexdigest()
    assert made.files[1].secret == f"file:{tmp_path}/key"
    assert made.registries[0].digest == hashlib.sha256(CA.encode()).hexdigest()
    assert made.mirrors == ("https://r.test:5000",)
    (use,) = made.roles
    assert (use.name, use.options["run"]) == ("script", str(tmp_path / "run"))
    assert use.kept.secrets == {"secrets_TOKEN": f"file:{tmp_path}/token"}


def test_a_record_knows_what_files_were_like(tmp_path: Path) -> None:
    source, run = tmp_path / "motd", tmp_path / "run"
    source.write_text("one")
    run.write_text("one")
    data = {"files": [{"path": "/a", "source": str(source)}], "roles": [{"role": "script", "run": str(run)}]}
    first = Setup.model_validate(data)
    record = json.loads(json.dumps(first.model_dump(mode="json")))
    assert parse_setup(record) == first
    assert Setup.model_validate(data) == first
    run.write_text("two")
    second = Setup.model_validate(data)
    assert second.roles[0].kept.digest != first.roles[0].kept.digest
    source.write_text("two")
    assert Setup.model_validate(data).files[0].digest != first.files[0].digest
    assert setup.looked_at_again(first) == Setup.model_validate(data)
    source.unlink()
    assert parse_setup(record) == first, "a record can be read whatever became of the files"
    with pytest.raises(UsageError, match=r"cannot read .*motd"):
        setup.looked_at_again(first)


def test_a_record_that_cannot_be_read_is_an_error_of_ours() -> None:
    with pytest.raises(StoreError, match="cannot be read from its record: networks: Extra inputs"):
        parse_setup({"networks": []})


def test_a_role_that_is_taken_from_the_list_is_remembered() -> None:
    def use(name: str) -> RoleUse:
        return RoleUse.model_validate({"role": "script", "name": name, "run": str(HERE / "run")})

    one = Setup(roles=(use("a"), use("b")))
    two = one.followed_by(Setup(roles=(use("b"),)))
    assert [role.name for role in two.leaving] == ["a"]
    three = two.followed_by(NOTHING)
    assert [role.name for role in three.leaving] == ["a", "b"]
    assert [role.name for role in three.followed_by(one).leaving] == []
    assert NOTHING.followed_by(NOTHING) == NOTHING
    coming = Setup(roles=(use("c"),)).before(two)
    assert ([role.name for role in coming.roles], [role.name for role in coming.leaving]) == (["c"], ["b"])


def test_the_schema_has_what_people_may_write() -> None:
    schema = Setup.model_json_schema()
    assert set(schema["properties"]) == {"files", "registries", "roles"}
    assert "digest" not in schema["$defs"]["HostFile"]["properties"]
    assert "kept" not in schema["$defs"]["RoleUse"]["properties"]
