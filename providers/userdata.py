"""User-data as clouds take it."""

from __future__ import annotations

import gzip

from machinekit.errors import PreCheckError


def packed(user_data: str, most: int, taker: str) -> bytes:
    """As bytes, packed when it must be: cloud-init unpacks it; raises PreCheckError where even that is too long."""
    data = user_data.encode()
    if len(data) > most:
        data = gzip.compress(data, mtime=0)
    if len(data) > most:
        raise PreCheckError(f"the user-data has {len(data)} bytes, packed, and {taker} takes {most}")
    return data
