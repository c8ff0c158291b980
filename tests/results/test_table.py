import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from iadbe.results.table import (
    FORMATS,
    MISSING,
    Cell,
    Column,
    Table,
    csv_cell,
    fitted,
    superscript,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_rich,
)

HOSTILE = "50%_of|$#1 & {x}^~\\ <b>[red]"


@pytest.fixture
def table():
    return Table(
        "MVTec AD & co_",
        (Column("detector", "detector", numeric=False), Column("image_auroc", "image AUROC")),
        (
            (Cell("padim"), Cell("0.987 ± 0.010", 0.98712345678, 0.01, best=True)),
            (Cell(HOSTILE, marks=("1",)), Cell()),
        ),
        (("1", "It failed: out of memory."), ("", "± is a spread.")),
        {"dataset": "mvtec_ad"},
    )


def test_csv_holds_unrounded_values_and_nothing_where_there_is_none(table):
    other = Table("x", (Column("detector", "d", numeric=False), Column("ms", "ms")), ((Cell("a"), Cell("2", 2.5)),))
    first, second, third = csv.DictReader(io.StringIO(to_csv([table, other])))
    assert first["image_auroc"] == "0.98712345678"
    assert (first["image_auroc_std"], first["dataset"], first["ms"]) == ("0.01", "mvtec_ad", "")
    assert (second["detector"], second["image_auroc"]) == (HOSTILE, "")
    assert second["notes"] == "It failed: out of memory."
    assert (third["ms"], third["dataset"]) == ("2.5", "")


def test_json_holds_everything(table):
    (found,) = json.loads(to_json([table]))
    assert found["rows"][0]["image_auroc"] == {
        "text": "0.987 ± 0.010",
        "value": 0.98712345678,
        "std": 0.01,
        "best": True,
    }
    assert found["rows"][1]["image_auroc"] == {"text": MISSING, "value": None}
    assert found["dataset"] == "mvtec_ad"
    assert found["footnotes"][0] == {"mark": "1", "text": "It failed: out of memory."}


def test_markdown(table):
    lines = to_markdown([table]).splitlines()
    assert lines[0] == "### MVTec AD & co\\_"
    assert lines[3] == "| --- | ---: |"
    assert lines[4] == "| padim | **0.987 ± 0.010** |"
    assert lines[5].count("|") - lines[5].count("\\|") == 3
    assert "<" not in lines[5].replace("\\<", "")
    assert lines[7] == "¹ It failed: out of memory.  "


def test_latex(table):
    text = to_latex([table])
    assert r"\textbf{0.987 $\pm$ 0.010}" in text
    assert r"50\%\_of\textbar{}\$\#1 \& \{x\}\textasciicircum{}\textasciitilde{}\textbackslash{}" in text
    assert r"\caption{MVTec AD \& co\_}" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"\begin{tabular}{lr}" in text
    assert "$^{1}$ It failed" in text
    assert text.isascii()


def test_terminal_shows_hostile_text_as_it_is(table):
    console = Console(file=io.StringIO(), width=200)
    console.print(to_rich(table))
    shown = console.file.getvalue()
    assert HOSTILE + "¹" in shown
    assert "0.987 ± 0.010" in shown


def test_every_format_takes_no_tables():
    assert {name: write([]) for name, write in FORMATS.items()}["json"] == "[]\n"


def test_superscript():
    assert superscript("12") == "¹²"


class TestFitted:
    COLUMNS = ("detector", "image AUROC", "pixel AUROC", "ms", "fit s")

    def table(self):
        names = ("detector", "image_auroc", "pixel_auroc", "latency_ms", "fit_seconds")
        columns = tuple(Column(n, label, numeric=n != "detector") for n, label in zip(names, self.COLUMNS, strict=True))
        row = (
            Cell("patchcore"),
            Cell("0.988 (0.949–1.000)", 0.988),
            Cell("0.971", 0.971, marks=("1",)),
            Cell("12.3", 12.3),
            Cell("4.5", 4.5),
        )
        return Table(
            "Title", columns, (row,), (("1", "a mean over fewer"), ("", "plain"), ("", "ms: for one image alone."))
        )

    def test_what_fits_is_unchanged(self):
        table = self.table()
        assert fitted(table, 80) is table

    @pytest.mark.parametrize("width", range(34, 70))
    def test_columns_go_and_are_named_but_digits_stay(self, width):
        table = fitted(self.table(), width)
        console = Console(width=width, file=io.StringIO())
        console.print(to_rich(table, width))
        printed = console.file.getvalue()
        for cell in table.rows[0]:
            assert cell.text in printed, printed
        gone = [c for c in self.COLUMNS if c not in [k.label for k in table.columns]]
        assert all(name in table.footnotes[-1][1] for name in gone)
        assert gone == [c for c in ("pixel AUROC", "ms", "fit s") if c in gone]
        assert all(len(line.rstrip()) <= width for line in printed.splitlines())

    def test_costs_go_first_and_footnotes_of_what_went_too(self):
        assert [c.label for c in fitted(self.table(), 44).columns] == ["detector", "image AUROC", "pixel AUROC"]
        narrow = fitted(self.table(), 34)
        assert [c.label for c in narrow.columns] == ["detector", "image AUROC"]
        assert [text[:9] for _, text in narrow.footnotes] == ["plain", "Left out,"]
        assert "ms: for one image alone." in [text for _, text in fitted(self.table(), 53).footnotes]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", " =1", "\n=1", "\u00a0=1", "＝1", " \tx"])
def test_text_that_a_spreadsheet_would_run_is_harmless_in_csv(table, text):
    assert csv_cell(text) == f"'{text}"
    row = (replace(table.rows[0][0], text=text), *table.rows[0][1:])
    made = replace(table, title="x", rows=(row,), about={"dataset": text})
    (line,) = csv.DictReader(io.StringIO(to_csv([made]), newline=""))
    assert line["dataset"] == line[table.columns[0].name] == f"'{text}"


def test_a_category_named_like_a_formula_is_harmless_as_a_heading(table):
    name = '=HYPERLINK("http://x.example")'
    made = replace(table, columns=(table.columns[0], Column(name, name)), about={})
    head, first, _ = csv.reader(io.StringIO(to_csv([made])))
    assert head == ["detector", f"'{name}", f"'{name}_std", "notes"]
    assert first == ["padim", "0.98712345678", "0.01", ""]


def test_negative_numbers_stay_numbers_in_csv(table):
    assert csv_cell("padim") == "padim"
    assert csv_cell("") == ""
    assert csv_cell("\r=1") == "' =1"
    at = next(i for i, c in enumerate(table.columns) if c.numeric)
    row = tuple(replace(c, value=-0.5) if i == at else c for i, c in enumerate(table.rows[0]))
    (line,) = csv.DictReader(io.StringIO(to_csv([replace(table, rows=(row,))])))
    assert float(line[table.columns[at].name]) == -0.5
