"""Sizes of memory: a number and M or G."""

from __future__ import annotations

UNITS = {"M": 1, "G": 1024}
LEAST = 128  # MiB that a system with an engine needs to boot


def mebibytes(text: str) -> int:
    """The size in MiB."""
    return int(text[:-1]) * UNITS[text[-1]]


def check(text: str) -> str:
    """An option's check: a machine boots with that much; raises ValueError. Empty is no size."""
    if text and mebibytes(text) < LEAST:
        raise ValueError(f"{text} is too little to boot; give at least {LEAST}M")
    return text
