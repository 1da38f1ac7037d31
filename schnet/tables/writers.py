"""A table as CSV, JSON and Markdown; as LaTeX: latex.py, as HTML: web.py."""

from __future__ import annotations

import csv
import io

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
    "runs",
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
        " ".join(run.path for run in cell.runs) or None,
    ]


def csv_text(table: Table) -> str:
    """One line per cell, numbers in the unit beside them, printed ones with the paper's digits.

    The last column has the folders of the runs behind a cell, below ``runs/`` of the results.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_record(cell) for cell in table.entries)
    return text.getvalue()


def json_content(table: Table) -> dict:
    """Everything that the other formats show, numbers with all their digits."""
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
    """The table as Markdown; the first of several columns that belong together has their title."""
    places = table.shown()
    texts, before = [], ""
    for head in (table.heads[k] for k in places):
        first = head.key != before
        parts = (head.group, head.label, head.shows) if first else (head.shows,)
        texts.append(", ".join(filter(None, parts)))
        before = head.key
    lines = [
        f"## {table.title} {table.at_scale}".rstrip(),
        "",
        table.caption,
        "",
        "| " + " | ".join(texts) + " |",
        "|" + "---|" * len(texts),
    ]
    lines += ["| " + " | ".join(row[k] for k in places) + " |" for row in table.rows]
    lines.append("")
    lines += [f"- {note}" for note in table.notes]
    return "\n".join(lines) + "\n"
