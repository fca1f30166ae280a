"""Roles as folders: what they declare becomes a model, what people give becomes scripts."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

import pytest

from machinekit import roles
from tests.samples import HERE, NASTY, SAMPLES

DECLARATION = """
description: Mine
outside: true
pins: [version, checksum]
options:
  version: {help: which, pattern: '^[0-9.]+$', required: true}
  checksum: {help: its checksum}
  count: {type: integer, help: how many, default: 2, min: 1, max: 4}
  loud: {type: boolean, help: whether}
  tags: {type: list, help: tags}
  kind: {help: which kind, choices: [one, two], default: one}
  url: {help: where, identity: true, default: here}
  token: {help: the token, secret: true}
  folder: {type: folder, help: a folder}
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A role of the user's own."""
    folder = tmp_path / "my-role"
    folder.mkdir()
    (folder / "role.yaml").write_text(DECLARATION)
    (folder / "install.sh.j2").write_text("echo {{ url | q }} {{ tags | join(' ') | q }} {{ token }} {{ state }}\n")
    (folder / "check.sh.j2").write_text("true {{ count }}\n")
    (folder / "remove.sh.j2").write_text("true\n")
    return str(folder)


def prepared(role: str, **options: Any) -> roles.Prepared:
    return roles.prepare(role, "mine", roles.validated(role, {"version": "1.0"} | options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "version is required"),
        ({"version": "x"}, "version: 'x' is not a value it takes: which"),
        ({"version": "1", "count": 5}, "count: 5 is not a whole number from 1 to 4"),
        ({"version": "1", "kind": "too"}, "kind: 'too' is none of one, two; did you mean two?"),
        ({"version": "1", "loud": "perhaps"}, "loud: 'perhaps' is neither true nor false"),
        ({"version": "1", "tag": []}, "tag is no option; did you mean tags?"),
        ({"version": "1", "folder": "here"}, "folder: 'here' must be an absolute path"),
        ({"version": "1", "token": 5432167}, "token does not have the right form: the token (env:NAME, "),
        ({"version": "1", "token": "s3cret"}, "token does not have the right form: the token (env:NAME, "),
    ],
)
def test_options_that_are_wrong(mine: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]+") as caught:
        roles.validated(mine, options)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "5432167" not in str(caught.value)


def test_defaults_and_what_yaml_takes_for_a_number(mine: str) -> None:
    found = roles.validated(mine, {"version": 17.5})
    assert found == {
        **{"version": "17.5", "checksum": "", "count": 2, "loud": False, "tags": [], "kind": "one"},
        **{"url": "here", "token": "", "folder": ""},
    }


def test_the_schema_comes_from_the_declaration(mine: str) -> None:
    schema = roles.model(mine).model_json_schema()
    assert schema["required"] == ["version"]
    assert schema["properties"]["count"]["maximum"] == 4
    assert schema["properties"]["kind"]["enum"] == ["one", "two"]
    assert schema["description"] == "Mine"


def test_the_digest_is_of_all_but_secrets(mine: str, tmp_path: Path) -> None:
    first = prepared(mine, token="env:ONE")  # noqa: S106 (a reference)
    assert prepared(mine, token="env:TWO").digest == first.digest  # noqa: S106
    assert first.secrets == {"token": "env:ONE"}
    assert "env:ONE" not in first.install
    assert prepared(mine, count=3).digest != first.digest, "a check that differs is another role"
    assert prepared(mine, count=3).identity == first.identity
    assert prepared(mine, url="there").identity != first.identity
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "file").write_text("one")
    carried = prepared(mine, folder=str(tmp_path / "app"))
    (tmp_path / "app" / "file").write_text("two")
    assert prepared(mine, folder=str(tmp_path / "app")).digest != carried.digest
    assert base64.b64decode(carried.install.split("'")[0].removeprefix("folder=").split("\n")[0])[:2] == b"\x1f\x8b"


def test_values_are_quoted(mine: str) -> None:
    assert prepared(mine, url="it's").install == "echo 'it'\"'\"'s' '' False /var/lib/machinekit/roles/mine\n"


def test_what_a_lock_says_goes_into_the_options(mine: str) -> None:
    assert roles.locked(mine, {"url": "there"}, {}) == {"version": "", "checksum": "", "url": "there"}
    assert roles.locked(mine, {"version": "1"}, {"checksum": "abc"}) == {"version": "1", "checksum": "abc"}
    with pytest.raises(ValueError, match="cannot be locked by url"):
        roles.locked(mine, {}, {"url": "x"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("", "is not a role's folder"),
        ("description: [", "role.yaml: while parsing"),
        ("description: x\noptions: {name: {help: x}}", "no option can be called name"),
        ("description: x\noptions: {a: {help: x, typ: string}}", "typ"),
        ("[" * 3000, "role.yaml: maximum recursion"),
        ("description: x\noptions: {A-b: {help: x}}", "String should match pattern"),
    ],
)
def test_a_folder_that_is_no_role(mine: str, change: str, said: str) -> None:
    (Path(mine) / "role.yaml").write_text(change)
    if not change:
        (Path(mine) / "role.yaml").unlink()
    with pytest.raises(ValueError, match="role") as caught:
        roles.find(mine)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("pattern: '('", "a pattern in its role.yaml is none"),
        ("default: {b: 1}", "a: {'b': 1} is not a value it takes"),
    ],
)
def test_a_declaration_that_cannot_be_meant(mine: str, declared: str, said: str) -> None:
    (Path(mine) / "role.yaml").write_text(f"description: x\noptions: {{a: {{help: what, {declared}}}}}\n")
    with pytest.raises(ValueError, match=r"^[a-z]+") as caught:
        roles.validated(mine, {})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 1 + name }}", "unsupported operand"),
        ("{% for a in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{{ cycler.__init__.__globals__.os.system('touch pwned') }}", "is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "is unsafe"),
        ("{{ tags.append('x') }}", "is unsafe"),
        ("{% include '/etc/passwd' %}", "passwd"),
        ("{% include '../pyproject.toml' %}", "pyproject"),
    ],
)
def test_a_template_touches_nothing_here(
    mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (Path(mine) / "install.sh.j2").write_text(text)
    with pytest.raises(ValueError, match=r"role my-role: install\.sh\.j2: the template cannot be filled in") as caught:
        prepared(mine)
    assert said in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_script_that_is_no_file(mine: str) -> None:
    (Path(mine) / "check.sh.j2").unlink()
    os.mkfifo(Path(mine) / "check.sh.j2")
    with pytest.raises(ValueError, match=r"check\.sh\.j2 is not a file"):
        roles.find(mine)


def test_a_role_of_no_name_that_there_is() -> None:
    with pytest.raises(ValueError, match=r"there is no role 'scrip'; did you mean script\?"):
        roles.find("scrip")


@pytest.mark.parametrize("role", sorted(SAMPLES))
def test_no_script_of_a_built_in_role_has_a_secret(role: str) -> None:
    one = roles.prepare(role, "a", roles.validated(role, SAMPLES[role]))
    assert all(reference.startswith("env:") for reference in one.secrets.values())
    for script in (one.install, one.check, one.remove):
        assert "env:" not in script
    for variable in one.secrets:
        assert f"${{{variable}" not in one.check, "a check gets no secrets"
        assert f"${variable}" not in one.check, "a check gets no secrets"


def test_the_users_own_script_gets_its_variables() -> None:
    text = roles.prepare("script", "a", roles.validated("script", SAMPLES["script"])).install
    assert "it'\"'\"'s" in text
    assert NASTY not in text
    assert base64.b64encode((HERE / "run").read_bytes()).decode() in text


def test_the_page_about_roles_has_all_their_options() -> None:
    page = (Path(__file__).parents[1] / "docs/roles.md").read_text()
    for name in roles.names():
        row = next(line for line in page.splitlines() if re.match(rf"\| `{name}` \| [*`]", line))
        told = re.findall(r"(\*\*)?`([a-z_]+)`", row.split("|")[2])
        fields = roles.model(name).model_fields
        assert {option for _, option in told} == set(fields)
        assert {option for bold, option in told if bold} == {
            key for key, field in fields.items() if field.is_required()
        }
