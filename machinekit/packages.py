"""Where an engine's packages come from, by system and source, in which version. Builders only."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from machinekit.engine import Facts
from machinekit.errors import EngineError, UsageError
from machinekit.render import render, static
from machinekit.spec import Spec

# Docker's repository, and the fingerprint of the key that signs it, by package manager:
# https://docs.docker.com/engine/install/debian/ and https://docs.docker.com/engine/install/centos/
REPOSITORY = "https://download.docker.com/linux"
FINGERPRINTS = {
    "apt": "9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
    "dnf": "060A61C51B558A7F742B77AAC52FEB6B621E9F35",
}
DOCKER = ("docker-ce", "docker-ce-cli")
DOCKER_COMPANIONS = ("containerd.io", "docker-buildx-plugin")


@dataclass(frozen=True)
class System:
    """A family of systems: how its packages are called, and where Docker's own repository has it.

    `manager` is a file of templates/engine/packages; `pinned` is how it wants to be told a version. `distro` are
    the distribution's packages, the engine's first, all of one version; none where it has no engine. `docker` is
    the folder of Docker's repository; none where there is none.
    """

    manager: str
    distro: tuple[str, ...]
    docker: str = ""
    pinned: str = "{}={}"


_RHEL = System("dnf", (), "centos", "{}-{}")
_SUSE = System("zypper", ("docker",))

# By os-release ID, then by each word of ID_LIKE.
SYSTEMS = {
    "debian": System("apt", ("docker.io",), "debian"),
    "ubuntu": System("apt", ("docker.io",), "ubuntu"),
    "rhel": System("dnf", (), "rhel", "{}-{}"),
    "centos": _RHEL,
    "rocky": _RHEL,
    "almalinux": _RHEL,
    "ol": _RHEL,
    "fedora": System("dnf", ("moby-engine",), "fedora", "{}-{}"),
    "amzn": System("dnf", ("docker",), "", "{}-{}"),
    "opensuse": _SUSE,
    "suse": _SUSE,
    "alpine": System("apk", ("docker", "docker-engine", "docker-cli")),
}
ROOM = 300  # MB that an engine's packages take in /usr, and in /var before they are unpacked
LATEST = "latest"  # instead of a version: whatever is newest, now and later
NEAREST = 5  # versions that an error names


def install_script(
    spec: Spec,
    facts: Facts,
    version: str = "",
    *,
    held: bool = False,
    released: Iterable[str] = (),
    companions: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The script that installs the engine, in `version` as `choose` found it, with these versions of `companions`.

    With `held` the package manager is told to leave alone what the spec has versions of; `released` are packages that
    it has been told so of before. Raises UsageError when the system is not one that we know how to serve.
    """
    if spec.engine == "script":
        script = render("engine/script.sh.j2", url=spec.install_url)
    else:
        system, names, settings = _source(spec, facts)
        pinned = companions_of(spec)
        companions = {**pinned, **companions}
        words = [system.pinned.format(name, version) for name in names] if version else list(names)
        words += [system.pinned.format(*package) for package in companions.items()]
        if spec.engine == "docker":
            words += [name for name in DOCKER_COMPANIONS if name not in companions]
        kept = [*names, *pinned] if held else []
        released = dict.fromkeys([*names, *companions, *released])
        install = render("engine/install.sh.j2", words=words, kept=kept, released=released, **settings)
        script = _prelude(system) + install
    script = proxies(spec) + script
    # the marker outlives an installation that is cut off, whose half-unpacked dockerd is no engine
    marker = "mkdir -p /var/lib/machinekit\n: >/var/lib/machinekit/installing\n"
    return f"set -e\n{marker}( {script})\nrm /var/lib/machinekit/installing\n"


def hold_script(spec: Spec, facts: Facts, released: Iterable[str] = ()) -> str:
    """The script that tells the package manager to leave alone the versions that are there, but not the `released`."""
    system, names, _ = _source(spec, facts)
    names = (*names, *companions_of(spec))
    release = shlex.join(["packages_release", *dict.fromkeys([*names, *released])])
    return f"( {_prelude(system)}{release}\npackages_hold {shlex.join(names)} )\n"


def offers_script(spec: Spec, facts: Facts) -> str:
    """The script whose output `parse_offers` reads: it installs no engine and leaves no repository behind."""
    system, names, settings = _source(spec, facts)
    return f"( {proxies(spec)}{_prelude(system)}{render('engine/offers.sh.j2', name=names[0], **settings)})"


@dataclass(frozen=True)
class Offers:
    """The versions that can be had, newest first, and the one that the package manager would take by itself."""

    versions: tuple[str, ...]
    candidate: str


def parse_offers(lines: list[str]) -> Offers:
    """The versions in the output of `offers_script`."""
    said = {
        key: [line.removeprefix(f"machinekit:{key}=") for line in lines if line.startswith(f"machinekit:{key}=")]
        for key in ("offer", "candidate")
    }
    return Offers(tuple(said["offer"]), next(iter(said["candidate"]), ""))


def choose(wanted: str, offers: Offers, what: str) -> str:
    """The newest of the versions that is the `wanted` one; raises UsageError that names the nearest."""
    if not offers.versions:
        raise UsageError(f"{what} is in no repository of the host", "look at the host's package sources")
    if wanted in ("", LATEST):
        return offers.candidate or offers.versions[0]
    for version in offers.versions:
        if is_version(wanted, version):
            return version
    near = sorted(offers.versions, key=lambda version: _distance(wanted, version))
    names = list(dict.fromkeys(map(short, near)))[:NEAREST]
    raise UsageError(f"there is no version {wanted} of {what}; the nearest there are: {', '.join(names)}")


def is_version(wanted: str, version: str) -> bool:
    """Whether a package's version is the one that was asked for: "29.1.2" is 5:29.1.2-1~debian.12~bookworm."""
    wanted, version = _without_epoch(wanted), _without_epoch(version)
    return version == wanted or short(version) == wanted


def newest(versions: Iterable[str]) -> str:
    """The newest of one package's versions, by their numbers."""
    return max(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)])


def short(version: str) -> str:
    """The engine's version in a package's."""
    return re.split(r"[-~+_]", _without_epoch(version), maxsplit=1)[0]


def check_room(facts: Facts) -> None:
    """Raise EngineError when the packages certainly find no room on the host."""
    for folder, free in facts.free.items():
        if free < ROOM:
            raise EngineError(
                f"there are {free} MB free in {folder} on the host, and the engine takes about {ROOM} MB to install",
                "make room there, and run the same command again",
            )


def installed(spec: Spec, facts: Facts) -> bool:
    """Whether the engine is there; raises EngineError when it should be and is not."""
    if spec.engine == "none" and not facts.dockerd:
        raise EngineError("there is no dockerd on the host, and --engine none installs none", "install one first")
    return bool(facts.dockerd)


def companions_of(spec: Spec) -> dict[str, str]:
    """The exact versions of the engine's companions, as far as they were asked for."""
    return dict(package.split("=", 1) for package in spec.packages)


def other_companions(spec: Spec, facts: Facts) -> list[str]:
    """Those that are there in another version, each as NAME=VERSION; of one that is missing the version is "none"."""
    there = {name: facts.companions.get(name, "none") for name in companions_of(spec)}
    return [f"{name}={there[name]}" for name, version in companions_of(spec).items() if there[name] != version]


def is_of_another_version(spec: Spec, facts: Facts) -> bool:
    """Whether the engine is from the source that was asked for, and not in the version."""
    package, _, version = facts.package.partition(" ")
    if not spec.version or not facts.dockerd or package not in _source(spec, facts)[1]:
        return False
    return not is_version(spec.version, version) or bool(other_companions(spec, facts))


def departure(spec: Spec, facts: Facts) -> str:
    """How the engine that is there differs from source and version that were asked for; empty when it does not."""
    if spec.engine not in ("docker", "distro"):
        return ""
    package, _, version = facts.package.partition(" ")
    if spec.version and not is_version(spec.version, version):
        return f"the engine on the host is {_engine(facts)}, not {spec.version}"
    if (spec.engine == "docker") is not (package == DOCKER[0]):
        return f"the engine on the host is {_engine(facts)}, which is not from --engine {spec.engine}"
    return ""


def departure_of_companions(spec: Spec, facts: Facts) -> str:
    """The same of the engine's companions."""
    others = other_companions(spec, facts)
    return f"beside the engine on the host is {', '.join(others)}, not {', '.join(spec.packages)}" if others else ""


def version_there(spec: Spec, facts: Facts) -> str:
    """The installed version of the engine's package; raises UsageError when it is not from the spec's source."""
    _, names, _ = _source(spec, facts)
    package, _, version = facts.package.partition(" ")
    if package not in names:
        raise UsageError(
            f"the engine on the host is {_engine(facts)}, which is not from --engine {spec.engine}",
            "upgrade it the way it was installed",
        )
    return version


def what(spec: Spec, facts: Facts) -> str:
    """The engine's package and the system, in words."""
    _, names, _ = _source(spec, facts)
    return f"{names[0]} for {facts.system}"


def _source(spec: Spec, facts: Facts) -> tuple[System, tuple[str, ...], dict[str, str]]:
    system = next((SYSTEMS[name] for name in (facts.os_id, *facts.os_like.split()) if name in SYSTEMS), None)
    if system is None:
        raise UsageError(
            f"no engine packages are known for {facts.system} (os-release: ID={facts.os_id!r}, "
            f"ID_LIKE={facts.os_like!r})",
            "install the engine yourself and use --engine none, or give --engine script with a URL",
        )
    if spec.engine == "distro":
        if not system.distro:
            raise UsageError(
                f"{facts.system} has no engine among its own packages",
                "add --engine docker: Docker's own repository has one for it",
            )
        return system, system.distro, {"repository": "", "fingerprint": ""}
    if not system.docker:
        raise UsageError(f"Docker's repository has nothing for {facts.system}", "use --engine distro")
    settings = {
        "repository": f"{(spec.repository or REPOSITORY).rstrip('/')}/{system.docker}",
        "fingerprint": spec.key_fingerprint or FINGERPRINTS[system.manager],
    }
    return system, DOCKER, settings


def proxies(spec: Spec) -> str:
    """Shell lines that export the proxy, in both spellings: curl does not read HTTP_PROXY."""
    return "".join(
        f"export {key}={shlex.quote(value)}\n" for name, value in spec.proxies.items() for key in (name, name.lower())
    )


def _prelude(system: System) -> str:
    return static("engine/packages.sh") + static(f"engine/packages/{system.manager}.sh")


def _engine(facts: Facts) -> str:
    return facts.package or f"{facts.dockerd} from no package that we know"


def _without_epoch(version: str) -> str:
    return re.sub(r"^\d+:", "", version)


def _distance(wanted: str, version: str) -> list[int]:
    ours, theirs = ([int(number) for number in re.findall(r"\d+", short(text))] for text in (wanted, version))
    return [abs(a - b) for a, b in zip(ours + [0] * 4, theirs + [0] * 4, strict=False)]
