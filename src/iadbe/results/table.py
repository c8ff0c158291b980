"""A table as a value, and its output formats: terminal, CSV, Markdown, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MISSING = "—"  # never 0
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]| *\t")  # wide signs count in East Asian versions
COSTS = {"latency_ms", "fit_seconds", "fit_cpu_seconds", "memory_mb"}  # columns that are left out first


@dataclass(frozen=True, slots=True)
class Column:
    """A column's key in CSV and JSON, and its heading."""

    name: str  # "image_auroc"
    label: str  # "image AUROC"
    numeric: bool = True
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """The content of one table cell."""

    text: str = MISSING
    value: float | None = None  # unrounded; None: no value
    std: float | None = None  # standard deviation over seeds
    low: float | None = None  # 95 % interval
    high: float | None = None
    best: bool = False
    marks: tuple[str, ...] = ()  # numbers of footnotes


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns, with footnotes (mark, sentence); a mark may be empty."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[tuple[str, str], ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)  # dataset, setting, protocol


def to_csv(tables: Sequence[Table]) -> str:
    """Return one CSV for all tables: unrounded values, empty fields for missing ones."""
    heads: dict[str, None] = {}
    lines = []
    for table in tables:
        for row in table.rows:
            line: dict[str, Any] = {key: csv_cell(text) for key, text in table.about.items()}
            for column, cell in zip(table.columns, row, strict=True):
                number = "" if cell.value is None else repr(cell.value)
                line[column.name] = number if column.numeric else csv_cell(cell.text)
                for what, value in (("std", cell.std), ("low", cell.low), ("high", cell.high)):
                    if value is not None:
                        line[f"{column.name}_{what}"] = repr(value)
            marks = dict.fromkeys(m for cell in row for m in cell.marks)
            line["notes"] = csv_cell(" ".join(text for mark, text in table.footnotes if mark in marks))
            heads.update(dict.fromkeys(k for k in line if k != "notes"))
            lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*heads, "notes"], restval="", lineterminator="\n")
    writer.writerow({name: csv_cell(name) for name in writer.fieldnames})  # a category has the name of its folder
    writer.writerows(lines)
    return text.getvalue()


def csv_cell(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula."""
    text = text.replace("\r", " ")  # the csv module does not quote it
    return f"'{text}" if _FORMULA.match(text) else text


def to_json(tables: Sequence[Table]) -> str:
    """Return the tables as JSON."""
    return json.dumps([_plain(t) for t in tables], indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(tables: Sequence[Table]) -> str:
    """Return the tables in Markdown, the best values in bold."""
    return "\n".join(_markdown(t) for t in tables)


def to_latex(tables: Sequence[Table]) -> str:
    r"""Return ``table`` environments that need the package booktabs: the best in ``\textbf``."""
    return "\n".join(_latex(t) for t in tables)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "csv": to_csv,
    "json": to_json,
    "latex": to_latex,
    "markdown": to_markdown,
}


def to_rich(table: Table, width: int = 0) -> RichTable:
    """Return the table for a terminal; print its footnotes, ``table.footnotes``, below it.

    Headings wrap where the table would be wider than ``width`` characters; cells never do.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    least = [_min_width(table, i) for i in range(len(table.columns))]
    natural = [max(n, len(column.label)) for n, column in zip(least, table.columns, strict=True)]
    widths = least if width and sum(natural) + _gaps(natural) > width else natural
    for column, size in zip(table.columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        shown.add_column(Text(column.label), justify=justify, width=size)
    for row in table.rows:
        texts = []
        for cell in row:
            dim = cell.value is None and cell.text == MISSING
            text = Text(cell.text, style="bold green" if cell.best else "dim" if dim else "")
            text.append("".join(superscript(m) for m in cell.marks), style="dim")
            texts.append(text)
        shown.add_row(*texts)
    return shown


def fitted(table: Table, width: int) -> Table:
    """Return the table without the columns that do not fit into ``width`` characters, and name them in a footnote.

    Costs go first, then what is on the right; the first two columns stay.
    """
    columns = list(range(len(table.columns)))
    needed = [_min_width(table, i) for i in columns]
    droppable = sorted(columns[2:], key=lambda i: (table.columns[i].name in COSTS, i))
    dropped = []
    while droppable and sum(needed[i] for i in columns) + _gaps(columns) > width:
        dropped.append(droppable.pop())
        columns.remove(dropped[-1])
    if not dropped:
        return table
    names = ", ".join(table.columns[i].label for i in sorted(dropped))
    note = f"Left out, the window being {width} characters wide: {names}. --format csv has all columns."
    rows = tuple(tuple(row[i] for i in columns) for row in table.rows)
    marks = {mark for row in rows for cell in row for mark in cell.marks}
    left_out = tuple(f"{table.columns[i].label}: " for i in dropped)  # with what explains them
    footnotes = [
        (mark, text) for mark, text in table.footnotes if (not mark or mark in marks) and not text.startswith(left_out)
    ]
    kept = tuple(table.columns[i] for i in columns)
    return replace(table, columns=kept, rows=rows, footnotes=(*footnotes, ("", note)))


def _gaps(columns: Sequence[Any]) -> int:
    """Return the characters between columns and at the edges of a table on a terminal."""
    return 3 * (len(columns) - 1) + 2


def _min_width(table: Table, column: int) -> int:
    """Return the characters that a column needs: its longest cell, or the longest word of its heading."""
    cells = [len(row[column].text) + sum(map(len, row[column].marks)) for row in table.rows]
    return max([*cells, *map(len, table.columns[column].label.split())], default=0)


def superscript(mark: str) -> str:
    """Return a footnote's number in superscript."""
    return mark.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _plain(table: Table) -> dict[str, Any]:
    names = [c.name for c in table.columns]
    return {
        "title": table.title,
        **table.about,
        "columns": [{"name": c.name, "label": c.label, "lower_is_better": c.lower_is_better} for c in table.columns],
        "rows": [{n: _plain_cell(c) for n, c in zip(names, row, strict=True)} for row in table.rows],
        "footnotes": [{"mark": mark, "text": text} for mark, text in table.footnotes],
    }


def _plain_cell(cell: Cell) -> dict[str, Any]:
    given: dict[str, Any] = {"text": cell.text, "value": cell.value}
    optional = {
        "std": cell.std,
        "low": cell.low,
        "high": cell.high,
        "best": cell.best or None,
        "marks": list(cell.marks) or None,
    }
    return given | {k: v for k, v in optional.items() if v is not None}


def _markdown(table: Table) -> str:
    lines = [f"### {_escape_markdown(table.title)}", ""]
    lines.append("| " + " | ".join(_escape_markdown(c.label) for c in table.columns) + " |")
    lines.append("|" + "|".join(" ---: " if c.numeric else " --- " for c in table.columns) + "|")
    for row in table.rows:
        texts = []
        for cell in row:
            text = _escape_markdown(cell.text)
            text = f"**{text}**" if cell.best else text
            texts.append(text + "".join(superscript(m) for m in cell.marks))
        lines.append("| " + " | ".join(texts) + " |")
    lines += [""] * bool(table.footnotes)
    lines += [f"{superscript(mark)} {_escape_markdown(text)}  ".lstrip() for mark, text in table.footnotes]
    return "\n".join(lines) + "\n"


def _latex(table: Table) -> str:
    lines = [r"\begin{table}", r"  \centering", rf"  \caption{{{_escape_latex(table.title)}}}"]
    lines.append(rf"  \begin{{tabular}}{{{''.join('r' if c.numeric else 'l' for c in table.columns)}}}")
    lines.append(r"    \toprule")
    lines.append("    " + " & ".join(_escape_latex(c.label) for c in table.columns) + r" \\")
    lines.append(r"    \midrule")
    for row in table.rows:
        texts = []
        for cell in row:
            text = _escape_latex(cell.text)
            text = rf"\textbf{{{text}}}" if cell.best else text
            texts.append(text + (rf"$^{{{','.join(cell.marks)}}}$" if cell.marks else ""))
        lines.append("    " + " & ".join(texts) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if table.footnotes:
        lines.append(r"  \par\smallskip\footnotesize\raggedright")
        lines += [
            "  " + (rf"$^{{{mark}}}$ " if mark else "") + _escape_latex(text) + r"\par"
            for mark, text in table.footnotes
        ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "–": "--",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _escape_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
