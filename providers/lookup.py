"""Find what a person means among the things that a cloud has: images, sizes, places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinekit.errors import PreCheckError, nearest

SHOWN = 40  # names in an error, at most


def chosen(what: str, wanted: str, things: Sequence[Any]) -> Any:
    """The one of libcloud's things that has this id, slug or name.

    Raises PreCheckError with the nearest one when there is none, and with the ids when several have the name.
    """
    for names in (_ids, _name):
        found = [thing for thing in things if wanted in names(thing)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(thing.id) for thing in found)
            raise PreCheckError(f"there are {len(found)} {what}s called {wanted}", f"give the id of one: {ids}")
    known = sorted({name for thing in things for name in (*_ids(thing), *_name(thing))})
    shown = sorted({_ids(thing)[-1] for thing in things})
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    raise PreCheckError(
        f"there is no {what} {wanted}{nearest(wanted, known)}" if wanted else f"no {what} is given",
        f"there are: {', '.join(shown[:SHOWN]) or 'none'}{more}",
    )


def _ids(thing: Any) -> list[str]:
    """What is one thing's alone; a slug, which people can read, comes last."""
    slug = thing.extra.get("slug") if isinstance(thing.extra, dict) else None
    return [str(each) for each in (thing.id, slug) if each]


def _name(thing: Any) -> list[str]:
    return [str(thing.name)]
