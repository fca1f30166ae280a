"""Which keys are shown to a real SSH server, with a real agent, and what is wrong with those that are not."""

from __future__ import annotations

import base64
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinekit import keys, login, ssh
from machinekit.errors import LoginError
from machinekit.provider import Access, Source
from machinekit.secret import nobody
from tests.servers import SshServer

PASSPHRASE = "it's secret"  # noqa: S105 (of keys made for a test)
Generate = Callable[..., Path]


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as server:
        yield server


@pytest.fixture
def host(server: SshServer, environment: pytest.MonkeyPatch, tmp_path: Path) -> ssh.Host:
    """The server, for a user without keys."""
    environment.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir(mode=0o700)
    return replace(server.host(tmp_path), key_file=None)


@pytest.fixture
def generate(server: SshServer, tmp_path: Path) -> Generate:
    """Makes the key that the server accepts, with ssh-keygen's own options."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("OpenSSH's client is not installed")

    def made(*options: str, name: str = "made", accepted: bool = True) -> Path:
        path = tmp_path / ".ssh" / name
        subprocess.run(["ssh-keygen", "-q", "-f", path, *options], check=True, stdin=subprocess.DEVNULL)
        if accepted:
            server.public = path.with_name(f"{name}.pub").read_text()
        return path

    return made


@pytest.fixture
def agent(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """An agent, and how to put a key into it."""
    if not shutil.which("ssh-agent"):
        pytest.skip("OpenSSH's client is not installed")
    socket = tmp_path / "agent"

    def add(path: Path) -> None:
        subprocess.run(["ssh-add", "-q", path], check=True)

    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            assert process.poll() is None
        environment.setenv("SSH_AUTH_SOCK", str(socket))
        yield add
        process.terminate()


def gets_in(host: ssh.Host, **secrets: str) -> None:
    with closing(ssh.connect(host, lambda question: secrets.get(question.rpartition("/")[2]))) as connection:
        assert connection.run("echo in", patience=10) == ["in"]


def refusal(host: ssh.Host, access: Access | None = None) -> LoginError:
    with pytest.raises(LoginError) as caught:
        ssh.connect(replace(host, access=access or host.access))
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("form", [[], ["-m", "PEM"]], ids=["openssh", "pem"])
@pytest.mark.parametrize("passphrase", ["", PASSPHRASE], ids=["plain", "encrypted"])
def test_every_kind_of_key(host: ssh.Host, generate: Generate, kind: str, form: list[str], passphrase: str) -> None:
    path = generate("-t", kind, *form, "-N", passphrase)
    if passphrase:
        error = refusal(replace(host, key_file=path))
        assert error.message == f"{path} has a passphrase, and nobody tells the right one"
        assert f"ssh-add {path}" in error.hint
    gets_in(replace(host, key_file=path), **({"made": PASSPHRASE} if passphrase else {}))


def test_the_passphrase_comes_once_for_all_machines(host: ssh.Host, generate: Generate, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    source = Source("NONE", f'echo x >>{asked}; echo "{PASSPHRASE}"', "--flag")
    encrypted = replace(host, key_file=generate("-t", "ed25519", "-N", PASSPHRASE), access=Access(passphrase=source))
    for _ in range(3):
        gets_in(encrypted)
    assert asked.read_text() == "x\n"


def test_a_wrong_passphrase_is_told_apart(host: ssh.Host, generate: Generate) -> None:
    path = generate("-t", "ed25519", "-N", PASSPHRASE)
    wrong = Access(passphrase=Source("NONE", "echo wrong", "--flag"))
    assert "nobody tells the right one" in refusal(replace(host, key_file=path), wrong).message
    gets_in(replace(host, key_file=path), made="wrong", **{"made (the last one was wrong)": PASSPHRASE})


def test_the_agent_spares_the_passphrase(host: ssh.Host, generate: Generate, agent: Callable[[Path], None]) -> None:
    path = generate("-t", "ed25519", "-N", "")
    agent(path)
    subprocess.run(["ssh-keygen", "-q", "-p", "-f", path, "-N", PASSPHRASE], check=True)
    gets_in(replace(host, key_file=path))  # the key that was named, by the agent
    path.with_name("made.pub").unlink()
    gets_in(replace(host, key_file=path))
    gets_in(host)  # whatever the agent has
    refusal(replace(host, access=Access(agent="none")))


def test_an_agent_of_ones_choice(
    host: ssh.Host, generate: Generate, agent: Callable[[Path], None], environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent(generate("-t", "ecdsa", "-N", ""))
    environment.delenv("SSH_AUTH_SOCK")
    assert "there is no key to log in" in refusal(host).message
    gets_in(replace(host, access=Access(agent="~/agent")))
    environment.setenv("MY_AGENT", str(tmp_path / "agent"))
    gets_in(replace(host, access=Access(agent="$MY_AGENT")))


def test_only_the_named_keys_of_the_agent(host: ssh.Host, generate: Generate, agent: Callable[[Path], None]) -> None:
    """Servers end a login after a few keys that they do not know."""
    right = generate("-t", "ed25519", "-N", "", name="right")
    agent(right)
    named = generate("-t", "ed25519", "-N", "", name="named", accepted=False)
    agent(named)
    message = refusal(host, Access(keys=(named,), only_keys=True)).message
    assert message.count("the agent's") == 1
    gets_in(replace(host, access=Access(keys=(right,), only_keys=True)))


def test_default_keys_are_tried_without_asking_in_vain(host: ssh.Host, generate: Generate) -> None:
    generate("-t", "rsa", "-N", PASSPHRASE, name="id_rsa", accepted=False)
    generate("-t", "ecdsa", "-N", "", name="id_ecdsa", accepted=False)
    generate("-t", "ed25519", "-N", "", name="id_ed25519")
    gets_in(host)
    generate("-t", "ed25519", "-N", "", name="other")
    message = refusal(host).message
    assert "id_ed25519" in message
    assert "id_rsa has a passphrase" in message


@pytest.mark.parametrize(
    ("content", "mode", "said", "hint"),
    [
        (None, 0, "there is no SSH key at", "private key"),
        (b"garbage", 0o600, "is not a private key", "private key"),
        (b"", 0o600, "is not a private key", "private key"),
        (b"ssh-ed25519 AAAA me", 0o644, "is a public key", "give the private one"),
        (b"sk-ssh-ed25519@openssh.com AAAA me", 0o644, "is a public key", "give the private one"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", 0o600, "is a key of PuTTY's", "puttygen"),
        (keys.ssh_key("me")[0], 0o640, "others may read", "chmod 600"),
        (keys.ssh_key("me")[0], 0o604, "others may read", "chmod 600"),
    ],
)
def test_what_is_wrong_with_a_key_file(
    host: ssh.Host, tmp_path: Path, content: bytes | None, mode: int, said: str, hint: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    elsewhere = replace(host, key_file=path, port=1)  # said before anybody is asked
    error = refusal(elsewhere)
    assert said in error.message
    assert str(path) in error.message
    assert hint in error.hint


def test_a_key_file_that_is_a_folder(host: ssh.Host, tmp_path: Path) -> None:
    assert "Is a directory" in refusal(replace(host, key_file=tmp_path)).message


def test_a_kind_of_key_that_we_cannot_use(host: ssh.Host, generate: Generate) -> None:
    for form in ([], ["-m", "PEM"]):
        path = generate("-t", "dsa", "-N", "", *form, name=f"dsa{len(form)}")
        assert "of a kind that we cannot sign with" in refusal(replace(host, key_file=path)).message


def test_a_key_of_a_device(host: ssh.Host, tmp_path: Path) -> None:
    """Its file alone signs nothing; the agent asks the device."""
    public, content = paramiko.Message(), paramiko.Message()
    for text in ("sk-ssh-ed25519@openssh.com", "x" * 32, "ssh:"):
        public.add_string(text)
    content.add_bytes(b"openssh-key-v1\0")
    for text in ("none", "none", ""):
        content.add_string(text)
    content.add_int(1)
    content.add_string(public.asbytes())
    content.add_string("what only the device understands")
    path = tmp_path / "id_ed25519_sk"
    begin, end = (f"-----{word} OPENSSH PRIVATE KEY-----" for word in ("BEGIN", "END"))
    path.write_text(f"{begin}\n{base64.b64encode(content.asbytes()).decode()}\n{end}\n")
    path.chmod(0o600)
    error = refusal(replace(host, key_file=path))
    assert "cannot sign with, sk-ssh-ed25519@openssh.com" in error.message
    assert f"ssh-add {path}" in error.hint


def test_an_agent_that_is_gone(host: ssh.Host, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("SSH_AUTH_SOCK", str(tmp_path / "nothing"))
    assert "there is no key to log in" in refusal(host).message
    (tmp_path / "nothing").write_text("")
    assert "there is no key to log in" in refusal(host).message


WHOLE = keys.ssh_key("me")[0]


@given(
    start=st.integers(0, len(WHOLE)),
    cut=st.integers(0, 40),
    junk=st.binary(max_size=40) | st.text("aA0=+/").map(str.encode),
)
def test_no_damage_to_a_key_is_a_surprise(start: int, cut: int, junk: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key"
        path.write_bytes(WHOLE[:start] + junk + WHOLE[start + cut :])
        path.chmod(0o600)
        login.public_part(path)
        with contextlib.suppress(LoginError):
            login.load(path, Access(), nobody)
