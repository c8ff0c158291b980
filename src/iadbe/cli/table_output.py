"""Print result tables: fitted to the window on a terminal, else as plain columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from iadbe.results.table import Table, fitted, superscript, to_rich


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables with their footnotes: in colour on a terminal, else as plain columns with * at the best."""
    for table in tables:
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.text import Text

            console = Console()
            table = fitted(table, console.width)
            console.print(to_rich(table, console.width))
            for mark, text in table.footnotes:
                console.print(Text(f"{superscript(mark)} {text}".strip(), style="dim"))
        else:
            print("\n".join(plain(table)))


def plain(table: Table) -> list[str]:
    """Return a table as lines."""
    cells = [
        [f"{c.text}{'*' if c.best else ''}{''.join(map(superscript, c.marks))}" for c in row] for row in table.rows
    ]
    grid = [[c.label for c in table.columns], *cells]
    widths = [max(len(row[i]) for row in grid) for i in range(len(table.columns))]
    lines = [table.title]
    for row in grid:
        parts = (
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(row, widths, table.columns, strict=True)
        )  # fmt: skip
        lines.append("  ".join(parts).rstrip())
    return [*lines, *(f"{superscript(mark)} {text}".strip() for mark, text in table.footnotes), ""]
