"""Print a table: fitted to a terminal, one line a row anywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from machinekit.cli.command import harmless

UNLIMITED = 10_000  # a script reads lines, not a screen


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print `rows` under `columns` on stdout."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=UNLIMITED)
    for column in columns:
        table.add_column(column, no_wrap=column is not columns[-1] or not console.is_terminal)
    for row in rows:
        table.add_row(*map(harmless, row))
    console.print(table)
