"""A table as CSV, Markdown, LaTeX, HTML and JSON."""

from __future__ import annotations

import csv
import html
import io
import re
import textwrap
from itertools import groupby

from schnet.page import download, page, rich
from schnet.tables.cells import Entry
from schnet.tables.layout import Head, Table

NOTHING = "–"  # in a cell without a value
WORDS = 28  # characters of a text that is broken into lines

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


def shown(table: Table) -> list[int]:
    """The columns of texts that readers see: without empty ones, unless nothing would be left."""
    filled = [
        k
        for k, head in enumerate(table.heads)
        if not head.key or any(row[k] not in ("", NOTHING) for row in table.rows)
    ]
    if any(table.heads[k].key for k in filled):
        return filled
    return list(range(len(table.heads)))


def markdown(table: Table) -> str:
    """The table as Markdown; the first of several columns that belong together has their title."""
    places = shown(table)
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
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
#: a power as in Å^2 or Å², an index as in ε_HOMO or β₂, a minus before a number, or any character
_TOKEN = re.compile(
    r"\^(?P<power>-?\d+)|(?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)|(?P<lowered>[₀₁₂₃₄₅₆₇₈₉]+)"
    r"|(?<![\w./])(?P<base>[^\W\d_])_(?P<index>[A-Za-z0-9]+)(?!\w|[./]\w)"
    r"|(?<![\w.\-])(?P<minus>-)(?=\d)|(?P<character>.)",
    re.DOTALL,
)


def _latex_token(match: re.Match) -> str:
    if match["index"]:
        return rf"{LATEX.get(match['base'], match['base'])}$_{{\mathrm{{{match['index']}}}}}$"
    if match["lowered"]:
        return f"$_{{{match['lowered'].translate(SUBSCRIPTS)}}}$"
    if match["minus"]:
        return "$-$"
    power = match["power"] or (match["raised"] or "").translate(SUPERSCRIPTS)
    if power:
        return f"$^{{{power}}}$"
    return LATEX.get(match["character"], match["character"])


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it stands; powers as in Å^2 are raised, indices lowered."""
    return _TOKEN.sub(_latex_token, text)


def _spans(heads: list[Head], part: str) -> list[tuple[str, int]]:
    """Texts of one line of heads and how many columns each spans; empty over row titles.

    Args:
        heads: of the columns that are shown.
        part: "group", "label" or "shows".
    """

    def belongs(place: int):
        head = heads[place]
        own = {"group": head.group or place, "label": head.key or place, "shows": place}
        return bool(head.key), own[part]

    spans = [list(places) for _, places in groupby(range(len(heads)), belongs)]
    return [
        (getattr(heads[places[0]], part) if heads[places[0]].key else "", len(places))
        for places in spans
    ]


def _levels(heads: list[Head]) -> list[list[tuple[str, int]]]:
    """The lines of spanning heads above a table, without one that is empty or says here alone."""
    if not any(head.key for head in heads):
        return []
    levels = [_spans(heads, part) for part in ("group", "label", "shows")]
    return [line for line in levels if {text for text, _ in line} - {""} - {"here"}]


def _latex_cell(text: str, align: str, width: int = WORDS) -> str:
    """Text in as many lines as it needs to be no longer than ``width`` characters."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if len(lines) < 2:
        return latex_text(text)
    inner = r" \\ ".join(latex_text(line) for line in lines)
    return rf"\begin{{tabular}}[b]{{@{{}}{align}@{{}}}}{inner}\end{{tabular}}"


def _latex_heads(heads: list[Head]) -> list[str]:
    """Lines of heads, a rule under each text that spans several columns."""
    levels = _levels(heads)
    if not levels:
        return [" & ".join(_latex_cell(h.shows, "l") for h in heads) + r" \\"]
    lines = []
    for depth, spans in enumerate(levels):
        texts, rules, column = [], [], 1
        for text, count in spans:
            last = depth == len(levels) - 1
            if last and not heads[column - 1].key:
                texts.append(_latex_cell(heads[column - 1].shows, "l"))
            elif count > 1 or text:
                cell = _latex_cell(text, "c", max(10, 9 * count))
                texts.append(rf"\multicolumn{{{count}}}{{{'r' if last else 'c'}}}{{{cell}}}")
            else:
                texts.append("")
            if text and not last and count > 1:
                rules.append(rf"\cmidrule(lr){{{column}-{column + count - 1}}}")
            column += count
        lines.append(" & ".join(texts) + r" \\")
        if rules:
            lines.append("".join(rules))
    return lines


def latex(table: Table) -> str:
    """The table as a float for \\input, as wide as the page at most, with its notes below."""
    places = shown(table)
    heads = [table.heads[k] for k in places]
    aligns = ["r" if head.key else "l" for head in heads]

    def line(row: list[str]) -> str:
        texts = (_latex_cell(row[k], align) for k, align in zip(places, aligns, strict=True))
        return " & ".join(texts) + r" \\"

    title = latex_text(f"{table.title} {table.at_scale}".rstrip())
    parts = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{title}. {latex_text(table.caption)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}\medskip",
        # graphicx calls the width of the table \width
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{"
        rf"\begin{{tabular}}{{{''.join(aligns)}}}",
        r"\toprule",
        *_latex_heads(heads),
        r"\midrule",
        *(line(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\medskip\raggedright\scriptsize",
        "\\par\n".join(latex_text(note) for note in table.notes) + r"\par",
        r"\end{table*}",
    ]
    return "\n".join(parts) + "\n"


def _html_heads(heads: list[Head]) -> str:
    """The head of a table: row titles over its whole height, other texts over their columns."""
    levels = _levels(heads) or [[("", 1)] * len(heads)]
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
    places = shown(table)
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
