"""Docker contexts, written as the docker client stores them, and read back by it where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from machinekit import dockercontext
from machinekit.errors import MachinekitError, StoreError
from tests.servers import Certificates

URL = "tcp://192.0.2.7:2376"


@pytest.fixture
def folder(environment: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "docker"
    environment.setenv("DOCKER_CONFIG", str(folder))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def config(folder: Path) -> object:
    return json.loads((folder / "config.json").read_text())


def test_use_and_remove(folder: Path, certificates: Certificates) -> None:
    dockercontext.use("node1", "uid", URL, certificates.directory)
    assert files(folder) == ["ca.pem", "cert.pem", "config.json", "key.pem", "meta.json"]
    assert config(folder) == {"currentContext": "node1"}
    key = next(folder.rglob("key.pem"))
    assert key.stat().st_mode & 0o777 == 0o600
    dockercontext.remove("node1", "uid")
    assert files(folder) == ["config.json"]
    assert config(folder) == {}
    dockercontext.remove("node1", "uid")


def test_the_home_is_the_default(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dockercontext.use("node1", "uid", URL, None)
    assert files(tmp_path / ".docker") == ["config.json", "meta.json"]


def test_the_docker_client_reads_it(folder: Path, certificates: Certificates) -> None:
    docker = shutil.which("docker")
    if not docker:
        pytest.skip("the docker client is not installed")
    dockercontext.use("node1", "uid", URL, certificates.directory)
    said = subprocess.run([docker, "context", "inspect", "node1"], capture_output=True, text=True, check=True).stdout
    (context,) = json.loads(said)
    assert context["Endpoints"]["docker"] == {"Host": URL, "SkipTLSVerify": False}
    assert sorted(context["TLSMaterial"]["docker"]) == ["ca.pem", "cert.pem", "key.pem"]
    shown = subprocess.run([docker, "context", "show"], capture_output=True, text=True, check=True)
    assert shown.stdout == "node1\n"


def test_what_else_is_configured_stays(folder: Path) -> None:
    folder.mkdir()
    before = {"auths": {"r.test": {"auth": "x"}}, "currentContext": "other", "ä": [1]}
    (folder / "config.json").write_text(json.dumps(before))
    (folder / "config.json").chmod(0o640)
    dockercontext.use("node1", "uid", URL, None)
    assert config(folder) == before | {"currentContext": "node1"}
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o640
    (folder / "config.json").write_text(json.dumps(before))
    dockercontext.remove("node1", "uid")
    assert config(folder) == before, "another context is current"


def test_a_link_into_somebodys_dotfiles_stays_one(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "dotfiles.json").write_text('{"a": 1}')
    (folder / "config.json").symlink_to(tmp_path / "dotfiles.json")
    dockercontext.use("node1", "uid", URL, None)
    assert (folder / "config.json").is_symlink()
    assert json.loads((tmp_path / "dotfiles.json").read_text()) == {"a": 1, "currentContext": "node1"}


@pytest.mark.parametrize("meta", ['{"Metadata": {}}', '{"Metadata": {"machinekit": "other"}}', "{", "[]", "{}"])
def test_a_context_that_is_not_ours_is_never_touched(folder: Path, meta: str) -> None:
    dockercontext.use("node1", "uid", URL, None)
    file = next(folder.rglob("meta.json"))
    file.write_text(meta)
    with pytest.raises(MachinekitError, match='there is a docker context "node1" already'):
        dockercontext.use("node1", "uid", URL, None)
    dockercontext.remove("node1", "uid")
    assert file.read_text() == meta


def test_a_configuration_that_cannot_be_read_is_not_overwritten(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{")
    with pytest.raises(StoreError, match="is not valid JSON"):
        dockercontext.use("node1", "uid", URL, None)
    assert (folder / "config.json").read_text() == "{"


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(StoreError, match="cannot read the docker context"):
        dockercontext.use("node1", "uid", URL, None)
    dockercontext.remove("node1", "uid")
    folder.unlink()
    folder.mkdir()
    (folder / "config.json").mkdir()
    with pytest.raises(StoreError, match="cannot write the docker context"):
        dockercontext.use("node1", "uid", URL, None)


def test_the_name_that_means_the_local_engine_is_refused(folder: Path) -> None:
    with pytest.raises(MachinekitError, match="own word for the local engine"):
        dockercontext.use("default", "uid", URL, None)
    assert not folder.exists()


def test_refresh_makes_no_context_and_no_other_current(folder: Path) -> None:
    dockercontext.refresh("node1", "uid", URL, None)
    assert not folder.exists()
    dockercontext.use("node1", "uid", "tcp://192.0.2.1:1", None)
    dockercontext.use("node2", "uid2", URL, None)
    dockercontext.refresh("node1", "uid", URL, None)
    assert URL in next(folder.rglob("meta.json")).read_text()
    assert config(folder) == {"currentContext": "node2"}


def test_every_context_of_ours_with_its_store(folder: Path) -> None:
    assert dockercontext.ours() == []
    dockercontext.use("node1", "uid", URL, None, "a-store")
    dockercontext.use("node2", "uid2", URL, None)
    meta = folder / "contexts" / "meta"
    for name, content in {"theirs": '{"Name": "theirs", "Metadata": {}}', "broken": "{", "list": "[]"}.items():
        (meta / name).mkdir()
        (meta / name / "meta.json").write_text(content)
    (meta / "copy").mkdir()  # under another name's folder
    (meta / "copy" / "meta.json").write_bytes(next(folder.rglob("meta.json")).read_bytes())
    assert sorted(dockercontext.ours()) == [("node1", "uid", "a-store"), ("node2", "uid2", "")]
