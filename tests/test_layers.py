"""The house: imports go down only, drivers know only the contract, and the core knows no driver."""

from __future__ import annotations

import ast
import graphlib
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "machinekit"
PROVIDERS = ROOT / "providers"

# From the top: a module imports from its own layer or from below. docs/architecture.md has the reasons.
LAYERS = (
    ("cli", "__main__"),
    (
        *(
            "savedplan",
            "pinning",
            "manifest",
            "swarm",
            "swarming",
            "swarmwork",
            "outfit",
            "fleet",
            "drift",
            "create",
            "lifecycle",
            "upgrade",
            "collect",
            "converge",
            "reach",
            "certificates",
        ),
        *("doctor", "checkup", "gc", "hostkey", "images", "work"),
    ),
    (
        *(
            "plan",
            "lockfile",
            "pins",
            "swarmplan",
            "swarmstate",
            "fleetwriter",
            "fleetfile",
            "wanted",
            "fleetform",
            "fileerrors",
            "yamlfile",
            "spec",
            "setup",
            "roles",
            "carry",
            "settings",
            "engine",
            "daemonjson",
            "packages",
            "service",
        ),
        *("keys", "client", "render", "cloudinit", "catalogue"),
    ),
    (
        *(
            "drivers",
            "ssh",
            "remote",
            "login",
            "dial",
            "host",
            "secret",
            "record",
            "store",
            "files",
            "dockerapi",
            "dockercontext",
            "swarmapi",
        ),
        *("reference", "pack", "imagestore", "bootstrap", "diskfile", "download", "web", "signature"),
    ),
    ("provider", "machine", "programs", "locks", "errors", "__init__"),
)
DEPTH = {module: depth for depth, layer in enumerate(LAYERS) for module in layer}
CONTRACT = {f"machinekit.{module}" for module in ("provider", "machine", "programs", "locks", "errors")}
DRIVER = re.compile(r"(Driver|\w*Cloud)\[(?!OptionsT)")  # what a driver inherits from
MODULES = sorted(CORE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; names from a package count as modules where they are."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            inside = {f"{module}.{alias.name}" for alias in node.names if _is_module(f"{module}.{alias.name}")}
            found |= inside or {module}
    return found


def _is_module(dotted: str) -> bool:
    path = ROOT / dotted.replace(".", "/")
    return path.with_suffix(".py").is_file() or path.is_dir()


def part(path: Path) -> str:
    """The module or package of the core that a file belongs to."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in MODULES} == set(DEPTH), "put the new module into its layer"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_imports_go_down(path: Path) -> None:
    own = part(path)
    for module in imports(path):
        if module in ("machinekit", "machinekit.providers") or not module.startswith("machinekit."):
            continue  # the package itself holds the version, the drivers' package the name of the default one
        name = module.split(".")[1]
        assert DEPTH[name] >= DEPTH[own], f"{own} imports {name}, which is above it"


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        below = {module.split(".")[1] for module in imports(path) if module.startswith("machinekit.")}
        graph.setdefault(part(path), set()).update(below - {part(path)})
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", sorted(PROVIDERS.glob("*.py")), ids=lambda path: path.name)
def test_a_driver_knows_only_the_contract(path: Path) -> None:
    ours = {module for module in imports(path) if module.split(".")[0] in ("machinekit", "providers", "tests")}
    assert ours <= CONTRACT


def declared() -> dict[str, str]:
    """The drivers of pyproject.toml: name to "module:Class"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = project["entry-points"]["machinekit.providers"]
    return found


def test_every_driver_is_registered() -> None:
    written = {
        f"machinekit.providers.{path.stem}:{node.name}"
        for path in PROVIDERS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(DRIVER.match(ast.unparse(base)) for base in node.bases)
    }
    assert written == set(declared().values())


def test_what_is_registered_is_installed() -> None:
    installed = {entry.name: entry.value for entry in entry_points(group="machinekit.providers")}
    assert declared().items() <= installed.items(), "entry points are frozen at install: pip install -e . again"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_never_says_a_drivers_name(path: Path) -> None:
    names = set(declared()) - {"none"}  # which is also a source of engines
    said = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    assert not names & {text for text in said if isinstance(text, str)}
