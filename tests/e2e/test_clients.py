"""Unmodified clients: docker, Compose and bare TLS against two machines, and against those who may not."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import DETACH, Client, Terminal, fetch, ping, pointed
from tests.e2e.lab import Cli, Lab, run

WAYS = ("env", "use", "config")


@pytest.fixture(scope="module")
def machines(lab: Lab, busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The machines "a" and "b", each with the image busybox."""
    lab.rootfs("debian-12+engine")
    with lab.user(tmp_path_factory.mktemp("clients")) as cli:
        cli("create", "-d", "container", "a", "b")
        for name in ("a", "b"):
            pointed(cli, "env", name)("build", "-q", "-t", "busybox", str(busybox))
        yield cli


@pytest.fixture
def user(machines: Cli) -> Iterator[Cli]:
    """The user of both machines; what a test leaves on them is removed, and the client goes back to its default."""
    try:
        yield machines
    finally:
        run("docker", "context", "use", "default", env=machines.environment)
        for name in ("a", "b"):
            _tidy(pointed(machines, "env", name))


def _tidy(docker: Client) -> None:
    for listing, remove in (("ps -aq", "rm -f -v"), ("volume ls -q", "volume rm -f")):
        if left := docker(*listing.split()).split():
            docker(*remove.split(), *left)
    images = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    if made := [image for image in images if image != "busybox:latest"]:
        docker("rmi", "-f", *made)
    docker("network", "prune", "-f")


@pytest.fixture
def docker(user: Cli) -> Client:
    """The client pointed at machine "a"."""
    return pointed(user, "env", "a")


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_pointing_reaches_the_machine(user: Cli, tmp_path: Path, way: str) -> None:
    docker = pointed(user, way, "a")
    version = json.loads(docker("version", "--format", "{{json .}}"))
    assert f"version {version['Client']['Version']}," in run("docker", "--version")
    assert f"version {version['Server']['Version']}" in user("ssh", "a", "dockerd --version")
    assert docker("info", "--format", "{{.Name}}") == "a\n"

    (tmp_path / "note").write_text(f"built by {way}\n")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY note /note\nRUN sed -i s/built/really-built/ /note\n")
    docker("build", "-t", "noted", str(tmp_path))
    assert docker("run", "--rm", "noted", "cat", "/note") == f"really-built by {way}\n"
    assert docker("ps", "-aq") == ""

    docker("run", "-d", "--name", "web", "-p", "8080:8080", "busybox", "httpd", "-f", "-p", "8080", "-h", "/www")
    assert docker("ps", "--format", "{{.Names}} {{.Image}}") == "web busybox\n"
    assert fetch(user("ip", "a").strip(), 8080) == "served from a container\n"


def test_run_with_ports_volumes_environment_and_limits(user: Cli, docker: Client, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('FROM_FILE=it\'s "quoted" $HOME\n')
    assert (
        docker(
            *["run", "--rm", "-e", "GIVEN=a b  c", "-e", "TAKEN", "--env-file", str(file), "-v", "kept:/kept"],
            *["busybox", "sh", "-c", 'echo "$GIVEN|$FROM_FILE|${TAKEN-unset}"; echo written >/kept/page'],
        )
        == 'a b  c|it\'s "quoted" $HOME|unset\n'
    )
    assert docker("volume", "ls", "-q") == "kept\n"
    assert docker("run", "--rm", "-v", "kept:/data:ro", "busybox", "cat", "/data/page") == "written\n"
    assert "Read-only" in docker.fail(*"run --rm -v kept:/data:ro busybox touch /data/page".split(), code=1)

    docker(
        *"run -d --name limited --memory 64m --cpus 0.5 --pids-limit 50 -p 8080 -p 8088:8080/tcp -v kept:/www".split(),
        *"busybox httpd -f -p 8080 -h /www".split(),
    )
    host = json.loads(docker("inspect", "-f", "{{json .HostConfig}}", "limited"))
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    version_1 = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
    version_2 = "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"
    limits = docker(
        "exec", "limited", "sh", "-c", f"if [ -e /sys/fs/cgroup/memory ]; then {version_1}; else {version_2}; fi"
    )
    assert [limit.split()[0] for limit in limits.splitlines()] == [str(64 << 20), "50000", "50"]

    address = user("ip", "a").strip()
    published = docker("port", "limited", "8080").splitlines()
    ports = {int(line.rpartition(":")[2]) for line in published if line.startswith("0.0.0.0:")}
    assert 8088 in ports
    assert len(ports) == 2  # the other one is the engine's choice
    assert [fetch(address, port, "/page") for port in ports] == ["written\n", "written\n"]


def test_a_terminal_inside_a_container(docker: Client) -> None:
    with docker.terminal("run", "--rm", "-it", "--name", "shell", "busybox", "sh") as terminal:
        _talk(terminal)
        terminal.type("exit 3\r")
        assert terminal.end() == 3
    assert docker("ps", "-aq") == ""

    docker("run", "-dit", "--name", "waiting", "busybox", "sh")
    with docker.terminal("attach", "waiting") as terminal:
        _talk(terminal)
        terminal.type(DETACH)
        terminal.end()
    assert docker("ps", "--format", "{{.Names}}") == "waiting\n"
    with docker.terminal("exec", "-it", "waiting", "sh") as terminal:
        _talk(terminal)
        terminal.type("exit 4\r")
        assert terminal.end() == 4
    assert "sum 42" in docker("logs", "waiting")


def _talk(terminal: Terminal) -> None:
    terminal.type("echo sum $((6*7)) on $(tty)\r")
    terminal.read("sum 42 on /dev/pts/")
    # the client tells the container the terminal's size a moment after it has connected
    terminal.type('until [ "$(stty size)" = "33 99" ]; do sleep 0.1; done; echo now $(stty size)\r')
    terminal.read("now 33 99")


def test_the_verbs_of_containers_and_images(docker: Client, tmp_path: Path) -> None:
    program = 'echo started; trap "echo stopping; exit 7" TERM; while :; do sleep 0.1; done'
    container = docker("run", "-d", "--name", "job", "--label", "kind=test", "busybox", "sh", "-c", program).strip()
    assert docker("ps", "-q", "--no-trunc", "--filter", "label=kind=test").strip() == container

    docker("exec", "-e", "TEXT=a note", "job", "sh", "-c", 'echo "$TEXT" >/note')
    docker.fail("exec", "job", "sh", "-c", "exit 5", code=5)
    assert docker("diff", "job") == "A /note\n"
    docker("cp", "job:/note", str(tmp_path / "note"))
    assert (tmp_path / "note").read_text() == "a note\n"
    (tmp_path / "note").write_text("from here\n")
    docker("cp", str(tmp_path / "note"), "job:/www/note")
    assert docker("exec", "job", "cat", "/www/note") == "from here\n"
    assert sorted(docker("diff", "job").splitlines()) == ["A /note", "A /www/note", "C /www"]

    docker("stop", "job")
    assert docker("ps", "-q") == ""
    assert docker("logs", "job") == "started\nstopping\n"
    assert json.loads(docker("inspect", "-f", "{{json .State}}", "job"))["ExitCode"] == 7
    assert docker("ps", "-a", "--format", "{{.Names}} {{.Status}}").startswith("job Exited (7)")
    docker("start", "job")
    assert docker("ps", "--format", "{{.Names}}") == "job\n"
    assert docker("inspect", "-f", "{{.Id}} {{.State.Status}}", "job") == f"{container} running\n"

    docker("commit", "-m", "with a note", "-c", 'CMD ["cat", "/note"]', "job", "noted:1")
    assert "noted:1" in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert docker("run", "--rm", "noted:1") == "a note\n"
    layers = docker("history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "noted:1").splitlines()
    assert layers[0].startswith("with a note|")
    assert len(layers) == 1 + len(docker("history", "-q", "busybox").splitlines())

    assert "running" in docker.fail("rm", "job", code=1)
    docker("rm", "-f", "job")
    assert docker("ps", "-aq") == ""
    docker("rmi", "noted:1")
    assert docker("images", "--format", "{{.Repository}}:{{.Tag}}") == "busybox:latest\n"


def test_one_client_drives_two_machines(user: Cli, tmp_path: Path) -> None:
    user("use", "b")
    by_context, by_flags, by_environment = (pointed(user, way, "a") for way in ("use", "config", "env"))
    pointed(user, "use", "b")
    # the context is now b's; flags and variables come before it
    names = [docker("info", "--format", "{{.Name}}").strip() for docker in (by_context, by_flags, by_environment)]
    assert names == ["b", "a", "a"]
    docker = Client(("docker",), user.environment)
    assert [docker("-c", name, "info", "--format", "{{.Name}}") for name in ("a", "b")] == ["a\n", "b\n"]

    (tmp_path / "note").write_text("from a\n")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY note /note\n")
    a, b = (pointed(user, "env", name) for name in ("a", "b"))
    a("build", "-t", "traveller", str(tmp_path))
    a("save", "-o", str(tmp_path / "image.tar"), "traveller")
    a("rmi", "traveller")
    assert "Loaded image: traveller" in b("load", "-i", str(tmp_path / "image.tar"))
    assert b("run", "--name", "guest", "traveller", "cat", "/note") == "from a\n"
    assert "No such" in a.fail("inspect", "traveller", code=1)
    assert (a("ps", "-aq"), b("ps", "-a", "--format", "{{.Names}}")) == ("", "guest\n")


COMPOSE = """
version: "3.7"
services:
  origin:
    build: .
    image: shop-origin
    command: sh -c 'echo origin starts; date >/kept/start; exec httpd -f -p 8080 -h /www'
    volumes: ["kept:/kept"]
  mirror:
    image: busybox
    environment: {SOURCE: "http://origin:8080/index.html"}
    command: sh -c 'until wget -O /www/index.html $$SOURCE; do sleep 0.2; done; exec httpd -f -p 8080 -h /www'
    ports: ["8081:8080"]
    depends_on: [origin]
volumes: {kept: {}}
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_compose_project(user: Cli, tmp_path: Path, way: str) -> None:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY index.html /www/index.html\n")
    (tmp_path / "index.html").write_text(f"composed by {way}\n")
    address = user("ip", "a").strip()
    docker = pointed(user, way, "a")
    compose = pointed(user, way, "a", "docker-compose")
    if way == "config":  # by default Compose 1 builds with a docker client that it does not hand its own flags
        compose.environment["COMPOSE_DOCKER_CLI_BUILD"] = "0"

    compose("-p", "shop", "up", "-d", cwd=tmp_path)
    assert fetch(address, 8081) == f"composed by {way}\n"
    assert sorted(compose(*"-p shop ps --services --filter status=running".split(), cwd=tmp_path).split()) == [
        "mirror",
        "origin",
    ]
    assert "0.0.0.0:8081->8080/tcp" in compose("-p", "shop", "ps", cwd=tmp_path)
    assert compose("-p", "shop", "port", "mirror", "8080", cwd=tmp_path) == "0.0.0.0:8081\n"
    assert compose("-p", "shop", "exec", "-T", "mirror", "cat", "/www/index.html", cwd=tmp_path) == (
        f"composed by {way}\n"
    )
    assert "origin starts" in compose("-p", "shop", "logs", "--no-color", "origin", cwd=tmp_path)
    assert docker("volume", "ls", "-q") == "shop_kept\n"

    compose("-p", "shop", "down", "-v", "-t", "0", cwd=tmp_path)
    assert docker("ps", "-aq") == ""
    assert docker("volume", "ls", "-q") == ""
    assert "shop" not in docker("network", "ls", "--format", "{{.Name}}")


def _context(user: Cli, certificate_of: str = "") -> ssl.SSLContext:
    """A client of machine "a" that shows the client certificate of this machine, or none."""
    machines = user.home / "machines"
    context = ssl.create_default_context(cafile=machines / "a" / "ca.pem")
    if certificate_of:
        context.load_cert_chain(machines / certificate_of / "cert.pem", machines / certificate_of / "key.pem")
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_only_the_machines_own_client_certificate_is_let_in(user: Cli, version: ssl.TLSVersion) -> None:
    address = user("ip", "a").strip()

    def asked(certificate_of: str) -> tuple[str, str]:
        context = _context(user, certificate_of)
        context.minimum_version = context.maximum_version = version
        return ping(address, context)

    spoken, answer = asked("a")
    assert spoken == version.name.replace("_", ".")
    assert answer.startswith("HTTP/1.0 200 OK\r\n")
    assert answer.endswith("\r\n\r\nOK")
    # engines built with an older Go name every such reason "bad certificate"
    with pytest.raises(ssl.SSLError, match=r"(?i)alert (bad certificate|unknown ca)"):
        asked("b")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert (bad certificate|certificate required|handshake failure)"):
        asked("")


def test_old_tls_is_refused_by_the_engine(user: Cli) -> None:
    address = user("ip", "a").strip()

    def asked(version: ssl.TLSVersion) -> tuple[str, str]:
        context = _context(user, "a")
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # or our own side would not offer it
        context.minimum_version = context.maximum_version = version
        return ping(address, context)

    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError) as refused:
        asked(ssl.TLSVersion.TLSv1_1)
    assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    spoken, answer = asked(ssl.TLSVersion.TLSv1_2)
    assert spoken == "TLSv1.2"
    assert answer.startswith("HTTP/1.0 200 OK\r\n")


def test_the_docker_client_is_refused_without_the_right_certificate(user: Cli) -> None:
    machines = user.home / "machines"
    docker = Client(("docker",), user.environment)

    def flags(to: str, authority: str, certificate_of: str) -> list[str]:
        pair = [f"--tls{kind}={machines}/{certificate_of}/{kind}.pem" for kind in ("cert", "key")]
        return ["-H", user("url", to).strip(), "--tlsverify", f"--tlscacert={machines}/{authority}/ca.pem", *pair]

    assert docker(*flags("a", "a", "a"), "info", "--format", "{{.Name}}") == "a\n"
    assert "bad certificate" in docker.fail(*flags("a", "a", "b"), "ps", code=1)
    assert "unknown authority" in docker.fail(*flags("b", "a", "a"), "ps", code=1)
    assert "HTTP request to an HTTPS server" in docker.fail("-H", user("url", "a").strip(), "ps", code=1)


def test_a_removed_machines_context_goes_with_it(lab: Lab, cli: Cli) -> None:
    lab.rootfs("debian-12+engine")
    cli("create", "-d", "container", "brief")
    cli("use", "brief")
    docker = Client(("docker",), cli.environment)
    listing = ("context", "ls", "--format", "{{.Name}} {{.Current}}")
    assert docker(*listing).splitlines() == ["brief true", "default false"]
    assert docker("info", "--format", "{{.Name}}") == "brief\n"
    cli("rm", "-y", "brief")
    assert docker(*listing) == "default true\n"
    assert docker("context", "inspect", "--format", "{{.Name}}") == "default\n"
    assert not list((cli.home / "docker-config").rglob("*.pem"))
