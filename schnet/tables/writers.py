"""A table as CSV, Markdown, LaTeX, HTML and JSON."""

from __future__ import annotations

import csv
import html
import io
import re

from schnet.tables.cells import Entry
from schnet.tables.layout import Table

COLUMNS = (
    "row",
    "column",
    "unit",
    "measured",
    "standard_error",
    "repeats",
    "printed",
    "printed_error",
    "difference",
    "raw_weights",
    "quoted",
    "missing",
    "data",
    "derived",
)


def _rounded(value: float | None, digits: int = 6) -> str | None:
    return None if value is None else f"{value:.{digits}g}"


def _record(cell: Entry) -> list:
    """A cell as a line of the CSV file, in the order of COLUMNS."""
    printed = cell.printed
    return [
        cell.row,
        cell.column,
        cell.unit,
        _rounded(cell.measured),
        _rounded(cell.error),
        cell.repeats or None,
        printed.value if printed else None,
        printed.uncertainty if printed else None,
        _rounded(cell.difference, 4),
        _rounded(cell.raw),
        cell.quoted or None,
        cell.missing or None,
        cell.data or None,
        cell.derived or None,
    ]


def csv_text(table: Table) -> str:
    """One line per cell, numbers in the unit beside them, printed ones with the paper's digits."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_record(cell) for cell in table.entries)
    return text.getvalue()


def json_content(table: Table) -> dict:
    """Everything that the other formats show, and the paths of the runs behind each cell."""
    return {
        "name": table.name,
        "scale": table.scale,
        "header": table.header,
        "rows": table.rows,
        "notes": table.notes,
        "cells": [_cell_content(cell) for cell in table.entries],
    }


def _cell_content(cell: Entry) -> dict:
    printed = cell.printed
    return {
        "row": cell.row,
        "column": cell.column,
        "unit": cell.unit,
        "measured": cell.measured,
        "error": cell.error,
        "repeats": cell.repeats,
        "printed": printed.number if printed else None,
        "printed_error": printed.error if printed else None,
        "printed_text": cell.printed_text,
        "difference": cell.difference,
        "quoted": cell.quoted,
        "extension": cell.extension,
        "missing": cell.missing,
        "runs": [run.path for run in cell.runs],
        "raw": cell.raw,
        "data": cell.data,
        "derived": cell.derived,
    }


def markdown(table: Table) -> str:
    lines = [
        f"## {table.title} {table.at_scale}".rstrip(),
        "",
        table.caption,
        "",
        "| " + " | ".join(table.header) + " |",
        "|" + "---|" * len(table.header),
    ]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    lines.append("")
    lines += [f"- {note}" for note in table.notes]
    return "\n".join(lines) + "\n"


#: characters that LaTeX reads as commands, or that its usual fonts lack
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "[": "{[}",
    "]": "{]}",
    "Å": r"\AA{}",
    "±": r"$\pm$",
    "–": "--",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "‖": r"$\|$",
    "½": r"$\frac{1}{2}$",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "Ω": r"$\Omega$",
}
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
#: a power as in Å^2 or Å², or a single character
_TOKEN = re.compile(r"\^(?P<power>-?\d+)|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<character>.)", re.DOTALL)


def _latex_token(match: re.Match) -> str:
    power = match["power"] or (match["raised"] or "").translate(SUPERSCRIPTS)
    if power:
        return f"$^{{{power}}}$"
    return LATEX.get(match["character"], match["character"])


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it stands; powers as in Å^2 are raised."""
    return _TOKEN.sub(_latex_token, text)


def latex(table: Table) -> str:
    """The table as a float for \\input, with its notes below."""

    def line(texts: list[str]) -> str:
        return " & ".join(latex_text(text) for text in texts) + r" \\"

    title = latex_text(f"{table.title} {table.at_scale}".rstrip())
    parts = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        rf"\caption{{{title}. {latex_text(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *(line(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        "",
        "\\\\\n".join(rf"\footnotesize {latex_text(note)}" for note in table.notes),
        r"\end{table*}",
    ]
    return "\n".join(parts) + "\n"


def _html_row(texts: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts) + "</tr>"


def _html_runs(cell: Entry) -> str:
    """Links from a cell to its runs in the report."""
    paths = [html.escape(run.path) for run in cell.runs]
    links = ", ".join(f'<a href="#run-{path}">{path}</a>' for path in paths)
    return f"<li>{html.escape(cell.row)}, {html.escape(cell.column)}: {links}</li>"


def html_fragment(table: Table) -> str:
    """The table as a section; measured cells link to their runs in the report."""
    title, caption = html.escape(table.title), html.escape(table.caption)
    body = "".join(_html_row(row, "td") for row in table.rows)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
    runs = "".join(_html_runs(cell) for cell in table.entries if cell.runs)
    if runs:
        runs = f"<details><summary>Runs behind the cells</summary><ul>{runs}</ul></details>"
    return (
        f'<section id="{html.escape(table.name)}">'
        f"<h2>{title} <small>{html.escape(table.at_scale)}</small></h2>"
        f"<p>{caption}</p>"
        f"<div class='scroll'><table><thead>{_html_row(table.header, 'th')}</thead>"
        f"<tbody>{body}</tbody></table></div>"
        f"<ul class='notes'>{notes}</ul>{runs}</section>"
    )


def html_page(table: Table) -> str:
    name = html.escape(table.name)
    head = f"<!doctype html><meta charset='utf-8'><title>{name}</title>"
    return f"{head}{html_fragment(table)}\n"
