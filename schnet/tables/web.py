"""A table as HTML: a section of the report, and a page of its own."""

from __future__ import annotations

import html
import re

from schnet.page import download, page, rich
from schnet.tables.cells import Entry
from schnet.tables.latex import latex
from schnet.tables.layout import NOTHING, WORDS, Head, Table, head_lines
from schnet.tables.writers import csv_text


def _html_heads(heads: list[Head]) -> str:
    """The head of a table: row titles over its whole height, other texts over their columns."""
    levels = head_lines(heads) or [[("", 1)] * len(heads)]
    lines = []
    for depth, spans in enumerate(levels):
        last, cells, place = depth == len(levels) - 1, [], 0
        for text, count in spans:
            head = heads[place]
            if head.key:
                kind = " class='span'" if text and not last else ""
                cells.append(f"<th colspan='{count}'{kind}>{rich(text)}</th>")
            elif depth == 0:
                titles = (rich(h.shows) for h in heads[place : place + count])
                deep = f"<th rowspan='{len(levels)}' class='deep text'>"
                cells += [f"{deep}{title}</th>" for title in titles]
            place += count
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(lines)


def cell_anchor(table: str, cell: Entry) -> str:
    """What a link to a cell ends with, in the report."""
    return re.sub(r"\s", "_", f"{table}/{cell.row}/{cell.column}")


def _html_value(text: str, cell: Entry, report: str) -> str:
    """A measured value; each of its runs is linked, the first by the value itself."""
    links = [f"{report}#run-{html.escape(run.path)}" for run in cell.runs]
    value = f'<a href="{links[0]}" title="{html.escape(cell.runs[0].path)}">{rich(text)}</a>'
    more = [f'<a href="{link}">{k}</a>' for k, link in enumerate(links[1:], start=2)]
    return f"{value} <sup>{' '.join(more)}</sup>" if more else value


def _html_row(table: Table, line: int, places: list[int], report: str) -> str:
    entries = {(cell.row, cell.column): cell for cell in table.entries}
    out, before = [], ""
    again = table.keys[line] in table.keys[:line]
    for k in places:
        head, text = table.heads[k], table.rows[line][k]
        cell = entries.get((table.keys[line], head.key))
        first, before = head.key != before, head.key
        if cell is None or head.shows == "quoted":
            kind = "" if head.key else " class='text'"
            if len(text) > WORDS:
                kind = " class='words'"
            out.append(f"<td{kind}>{rich(text)}</td>")
            continue
        anchor = html.escape(cell_anchor(table.name, cell))
        name = f' id="{anchor}"' if first and not again else ""
        measured = first and cell.runs and text != NOTHING
        kind = "" if measured else " class='soft'"
        out.append(
            f"<td{name}{kind}>{_html_value(text, cell, report) if measured else rich(text)}</td>"
        )
    return f"<tr>{''.join(out)}</tr>"


def html_fragment(table: Table, report: str = "") -> str:
    """The table as a section; measured values link to their runs in the report.

    Args:
        report: address of the report, where the section is no part of it.
    """
    places = table.shown()
    body = "".join(_html_row(table, line, places, report) for line in range(len(table.rows)))
    notes = "".join(f"<li>{rich(note)}</li>" for note in table.notes)
    files = [
        download("CSV", f"{table.name}.csv", csv_text(table), "text/csv"),
        download("LaTeX", f"{table.name}.tex", latex(table), "text/x-tex"),
    ]
    return (
        f'<section id="{html.escape(table.name)}">'
        f"<h2>{rich(table.title)} <small>{html.escape(table.at_scale)}</small></h2>"
        f"<p>{rich(table.caption)}</p>"
        f"<div class='scroll'><table><thead>{_html_heads([table.heads[k] for k in places])}</thead>"
        f"<tbody>{body}</tbody></table></div>"
        f"<p class='downloads'>{' · '.join(files)}</p><ul class='notes'>{notes}</ul></section>"
    )


def html_page(table: Table) -> str:
    """The table on a page of its own, in the folder beside the report."""
    return page(f"{table.title} {table.at_scale}".rstrip(), html_fragment(table, "../report.html"))
