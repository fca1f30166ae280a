"""What the commands on a fleet file share: its options, and how a plan is shown."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from machinekit import pinning
from machinekit.cli.command import harmless
from machinekit.errors import UsageError
from machinekit.fleet import FILE, load
from machinekit.plan import Action, Difference, Plan

if TYPE_CHECKING:
    from machinekit.wanted import Fleet

SIGNS = {Action.CREATE: "+", Action.CHANGE: "~", Action.REPLACE: "±", Action.REMOVE: "-"}
COLOURS = {Action.CREATE: "green", Action.CHANGE: "yellow", Action.REPLACE: "magenta", Action.REMOVE: "red"}
LONG = 60  # characters of a value that are shown


def file_options(parser: argparse.ArgumentParser) -> None:
    """Which file, and the variables in it."""
    parser.add_argument(
        "-f",
        "--file",
        default=file_by_default(),
        help=f"the fleet file ({FILE}) [$MACHINEKIT_FILE]",
    )
    parser.add_argument(
        "--var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a variable of the file, before the environment's",
    )


def file_by_default() -> str:
    """The file where none is named."""
    return os.environ.get("MACHINEKIT_FILE") or FILE


def plan_options(parser: argparse.ArgumentParser) -> None:
    """What narrows a plan down or widens it."""
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="only this machine or group, repeatable"
    )
    parser.add_argument(
        "--replace", action="append", default=[], metavar="NAME", help="make this machine or group anew, repeatable"
    )
    parser.add_argument("--locked", action="store_true", help="exactly what the lock beside the file says, or nothing")
    parser.add_argument("--no-refresh", action="store_true", help="believe the records, do not look at the machines")


def fleet_of(args: argparse.Namespace) -> Fleet:
    """The fleet of the file that the options name; raises UsageError."""
    variables: dict[str, str] = {}
    for each in args.var:
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise UsageError(f"--var: {each!r} is not of the form NAME=VALUE")
        variables[name] = value
    return load(Path(args.file), variables)


def planned_fleet_of(args: argparse.Namespace) -> Fleet:
    """The same for a plan: with --locked as its lock has it."""
    found = fleet_of(args)
    return pinning.locked(found, Path(args.file)) if args.locked else found


def print_plan(plan: Plan, stream: TextIO | None = None) -> None:
    """The plan for people: a line for each machine that something happens to, and one for each difference."""
    from rich.console import Console
    from rich.text import Text

    lines: list[Text] = []
    for change in plan.actions:
        line = f"{SIGNS[change.action]} {change.action.value:<8} {change.name} ({change.driver})"
        lines.append(Text(line, style=COLOURS[change.action]))
        lines += [Text(f"    {harmless(_difference(each))}") for each in change.differences]
    for broken in plan.unreadable:
        lines.append(Text(f"! unreadable {broken.name}: {harmless(broken.message)}", style="red"))
        lines.append(Text(f"    {broken.hint}"))
    lines += [Text(f"! {harmless(remark)}", style="yellow") for remark in plan.remarks]
    lines.append(Text(f"{plan.fleet}: {summary(plan)}"))
    # at once: a thousand lines one by one take most of a second
    Console(file=stream or sys.stdout, highlight=False, soft_wrap=True).print(Text("\n").join(lines))


def summary(plan: Plan) -> str:
    """How many machines there is what to do with."""
    words = {Action.CREATE: "to create", Action.CHANGE: "to change", Action.REPLACE: "to replace"}
    words |= {Action.REMOVE: "to remove", Action.KEEP: "unchanged"}
    counts = {action: sum(change.action is action for change in plan.changes) for action in Action}
    said = [f"{count} {words[action]}" for action, count in counts.items() if count]
    said += [f"{len(plan.unreadable)} unreadable"] if plan.unreadable else []
    return ", ".join(said) or "no machines"


def _difference(each: Difference) -> str:
    forces = " (only a new machine can have it)" if each.replaces else ""
    if each.before is None:
        return f"+ {each.what}{forces}"
    if each.after is None:
        return f"- {each.what}{forces}"
    if isinstance(each.before, dict):
        return f"~ {each.what}: {', '.join(_within(each.before, each.after)) or 'its files'}{forces}"
    return f"~ {each.what}: {_value(each.before)} -> {_value(each.after)}{forces}"


def _within(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs in a file, a registry or a role; what follows from its options is left out."""
    found: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old == new or key == "kept":
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += _within(old, new)
        elif key == "digest":
            found.append("other content")
        else:
            found.append(key if "\n" in f"{old}{new}" else f"{key}: {_value(old)} -> {_value(new)}")
    return found


def _value(value: Any) -> str:
    value = "" if value is None else str(value).lower() if isinstance(value, bool) else value
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text if len(text) <= LONG else f"{text[: LONG - 3]}..."
    return text or "none"
