"""A cloud's secret: from a variable, from a command, or from the file of the cloud's own program; never stored."""

from __future__ import annotations

import functools
import os
import subprocess
from typing import Any

from machinekit import programs
from machinekit.errors import NotSetUpError, PreCheckError
from machinekit.provider import option

PATIENCE = 120.0  # seconds for a command, which may itself ask a person


def given(what: str, *variables: str) -> Any:
    """The option that takes a secret as it is, from these variables too."""
    return option(what, default="", aliases=variables, secret=True)


def secret(what: str, given: str, command: str, kept: str | None = None, *, advice: str) -> str:
    """The secret as it was `given`, else as the `command` prints it, else as the cloud's own program has `kept` it.

    Raises PreCheckError with the `advice`, which names these places, where none has it.
    """
    if found := given or (printed(command) if command else kept):
        return found
    raise NotSetUpError(f"there is no {what}", advice)


@functools.cache
def printed(command: str) -> str:
    """The first line that a command of the user's prints, once in a process; raises PreCheckError."""
    try:
        # in the user's whole environment: what knows secrets needs to know where its agent or server is
        result = programs.run(["sh", "-c", command], patience=PATIENCE)
    except subprocess.TimeoutExpired:
        raise PreCheckError(f"{command!r} does not end within {PATIENCE:.0f} s", "try it alone") from None
    if result.returncode or not result.stdout.strip():
        said = result.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
        raise PreCheckError(f"{command!r} printed no secret: {said[0]}", "try it alone")
    return os.fsdecode(result.stdout.splitlines()[0]).strip()


def own_file(name: str) -> dict[str, Any]:
    """What a cloud's own program keeps in YAML, by its path in the user's configuration; nothing without the file."""
    import platformdirs
    import yaml

    path = platformdirs.user_config_path() / name
    try:
        kept = yaml.safe_load(path.read_text()) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PreCheckError(f"cannot read {path}: {error}", "see whether its own program still can") from None
    return kept if isinstance(kept, dict) else {}
