"""The texts that go to a machine: as they were when somebody last looked at them, and right for every shell.

After a wanted change: UPDATE_GOLDEN=1 pytest tests/test_render.py, then read the difference.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import machinekit
from machinekit import cloudinit, engine, packages, roles, service
from machinekit.engine import Facts, File
from machinekit.render import render, static
from machinekit.spec import Spec
from tests import samples

GOLDEN = Path(__file__).with_name("golden")
TEMPLATES = Path(machinekit.__path__[-1]) / "templates"
DEBIAN = Facts(os_id="debian", os_version="12", dockerd="/usr/sbin/dockerd")
ALPINE = Facts(os_id="alpine", os_version="3.22.1", init="openrc")
SLES = Facts(os_id="sles", os_like="suse", os_version="15.7")
NASTY = 'it\'s "$(id)" `id` {{ 7 }} {% raw %} \\ end'
FILES = [
    File(engine.KEY, b"a key\n", "0600"),
    File(engine.DAEMON_JSON, b'{"debug": true}\n'),
    File(f"/etc/a place/{NASTY}", b"\x00\xff"),
]
# a quoted value may look like something to expand; not every script needs every function of what it is built on
SHELLCHECK = ["shellcheck", "-s", "sh", "-S", "style", "-e", "SC2016,SC2317"]

SCRIPTS: dict[str, Callable[[], str]] = {
    "probe.sh": engine.probe_script,
    "start.sh": engine.start_script,
    "install-script.sh": lambda: packages.install_script(
        Spec(engine="script", install_url="https://x.test/i.sh"), DEBIAN
    ),
    "install-script-nasty.sh": lambda: packages.install_script(  # quoted, even if it had not been checked before
        Spec.model_construct(engine="script", install_url=NASTY), DEBIAN
    ),
    "install-distro-debian.sh": lambda: packages.install_script(Spec(), DEBIAN),
    "install-distro-fedora.sh": lambda: packages.install_script(Spec(), Facts(os_id="fedora")),
    "install-distro-sles.sh": lambda: packages.install_script(Spec(), SLES, "28.3.3_ce-150000.230.1", held=True),
    "install-distro-alpine.sh": lambda: packages.install_script(Spec(), ALPINE, "28.3.3-r2", held=True),
    "install-docker-debian.sh": lambda: packages.install_script(Spec(engine="docker"), DEBIAN),
    "install-docker-rocky.sh": lambda: packages.install_script(
        Spec(engine="docker"), Facts(os_id="rocky"), "28.0.1-1.el9", held=True
    ),
    "install-docker-nasty.sh": lambda: packages.install_script(
        Spec.model_construct(engine="docker", repository=NASTY, key_fingerprint=NASTY), DEBIAN, NASTY, held=True
    ),
    "offers-docker-debian.sh": lambda: packages.offers_script(Spec(engine="docker"), DEBIAN),
    "offers-distro-alpine.sh": lambda: packages.offers_script(Spec(), ALPINE),
    "hold-docker-rocky.sh": lambda: packages.hold_script(Spec(engine="docker"), Facts(os_id="rocky")),
    "configure-upgrade.sh": lambda: engine.configure_script([], DEBIAN, "uid", "echo new\n", "echo old\n"),
    "configure.sh": lambda: engine.configure_script(FILES, DEBIAN, "uid"),
    "replace-host-key.sh": lambda: render("ssh/replace-host-key.sh.j2", private="QUJD", public=f"AA {NASTY}"),
    "configure-nothing.sh": lambda: engine.configure_script([], DEBIAN, "uid"),
    "carried.sh": lambda: engine.probe_script() + samples.probe(),
    "carry.sh": samples.change,
    "manifest.sh": lambda: static("manifest/probe.sh"),
    **samples.scripts(samples.SAMPLES),
}
READ = SCRIPTS | samples.scripts(samples.PLAIN, "-plain")
TEXTS: dict[str, Callable[[], str]] = {
    "user-data": lambda: cloudinit.user_data("node1", "machinekit", "ssh-ed25519 AA me", "PRIVATE\n", "ssh-ed25519 BB"),
    "drop-in.conf": lambda: service.drop_in(Spec(env=("A=b", f"N={NASTY}")), "/usr/bin/dockerd -H fd:// --init"),
}


@pytest.mark.parametrize("name", [*SCRIPTS, *TEXTS])
def test_as_last_seen(name: str) -> None:
    text = (SCRIPTS | TEXTS)[name]()
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def test_every_golden_file_is_of_something() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted([*SCRIPTS, *TEXTS])


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("command", [["sh", "-n"], ["bash", "-n"], SHELLCHECK], ids=lambda words: words[0])
def test_shells_and_shellcheck_read_the_scripts(name: str, command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(READ[name]())
    result = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_script_template_is_rendered_here() -> None:
    said = "".join(make() for make in SCRIPTS.values())
    assert set(samples.SAMPLES) == set(roles.names()), "every role has its sample"
    for path in TEMPLATES.rglob("*.sh*"):
        assert path.read_text().splitlines()[0] in said, f"{path.name} is missing in SCRIPTS"


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.sh*")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_a_script_stops_at_its_first_error(path: Path) -> None:
    about, first = path.read_text().splitlines()[:2]
    assert about.startswith("# ")
    assert first == "set -eu"


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("engine/script.sh.j2")


@pytest.mark.parametrize("name", ["engine/nothing.sh", "../pyproject.tomlx"])
def test_a_file_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        static(name)


@given(url=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
def test_a_shell_reads_back_what_was_quoted(url: str) -> None:
    line = next(line for line in render("engine/script.sh.j2", url=url).split("set -eu\n")[1:] if line)
    assignment = line.partition("\nscript=$(mktemp)")[0]
    script = f'{assignment}\nprintf %s "$url"'
    result = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert result.stdout.decode() == url
