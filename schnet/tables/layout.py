"""How a table is laid out: headers, rows of texts, units."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from schnet.project import Project
from schnet.tables.cells import Entry, entries, number
from schnet.tables.notes import footnotes, sizes
from schnet.units import factor

NOTHING = "–"  # in a cell without a value
WORDS = 28  # characters of a text that is broken into lines


@dataclass(frozen=True)
class Head:
    """What stands above one column of texts.

    Attributes:
        shows: "here", "quoted", … under a column of the experiment; the whole head elsewhere.
        group, label: of the column of the experiment, with its unit.
        key: of that column; empty above row titles and units.
    """

    shows: str
    group: str = ""
    label: str = ""
    key: str = ""


@dataclass
class Table:
    """A table ready to be written.

    Attributes:
        name: of its experiment. scale: of its data; empty where there are none.
        title, caption: texts.
        header: of the columns. rows: texts, as many each as the header.
        notes: sentences under it.
        entries: the cells with their numbers.
        heads: of the columns, part by part. keys: of the rows.
    """

    name: str
    scale: str
    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]
    entries: list[Entry]
    heads: list[Head] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.heads = self.heads or [Head(text) for text in self.header]
        self.keys = self.keys or [""] * len(self.rows)

    @property
    def at_scale(self) -> str:
        """What a heading says in brackets; empty where there are no data."""
        return f"({self.scale} scale)" if self.scale else ""

    def shown(self) -> list[int]:
        """The columns of texts that readers see: without empty ones, unless nothing were left."""
        filled = [
            k
            for k, head in enumerate(self.heads)
            if not head.key or any(row[k] not in ("", NOTHING) for row in self.rows)
        ]
        if any(self.heads[k].key for k in filled):
            return filled
        return list(range(len(self.heads)))


def make_table(project: Project, name: str) -> Table:
    """The table of an experiment, from the metrics that are there."""
    experiment = project.experiments[name]
    cells = entries(project, name)
    header, rows = grid(project, name, cells)
    return Table(
        name,
        project.config["scale"],
        experiment["title"],
        " ".join(filter(None, (experiment["caption"].strip(), sizes(project, name)))),
        header,
        rows,
        footnotes(project, name, cells),
        cells,
        heads(header, experiment["columns"]),
        _row_keys(experiment["rows"]),
    )


def grid(project: Project, name: str, cells: list[Entry]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of texts.

    A computed column is shown as measured, printed (where numbers are printed) and difference
    (unless the data are made up); a quoted one as printed.
    """
    experiment = project.experiments[name]
    columns = experiment["columns"]
    by_key = {(c.row, c.column): c for c in cells}
    compared = {c.column for c in cells if c.printed is not None}
    differences = not project.made_up
    with_unit = _wants_unit_column(columns, cells)
    header = [experiment.get("row_title", "")]
    if with_unit:
        header.append("Unit")
    for column in columns:
        printed = "printed" if experiment.get("printed_in") else "paper"
        header += _titles(column, column["key"] in compared, differences, printed)
    rows = []
    for row in experiment["rows"]:
        here = [by_key[row["key"], column["key"]] for column in columns]
        # where the printed unit is in doubt, a second line reads the printed number in another one
        readings = [None, row["also_unit"]] if row.get("also_unit") else [None]
        for reading in readings:
            label = row["label"] if reading is None else f"{row['label']}, if printed in {reading}"
            line = [label]
            if with_unit:
                line.append(reading or _unit_of_row(columns, here))
            for column, cell in zip(columns, here, strict=True):
                texts = _texts(cell, column["key"] in compared, differences, reading)
                line += texts[1:2] if column.get("quoted") else texts
            rows.append(line)
    return header, rows


def heads(header: list[str], columns: list[dict]) -> list[Head]:
    """The parts of a header: a column of the experiment begins where its whole title stands.

    Args:
        header: of the columns of texts, see `grid`.
        columns: of the experiment, in the same order.
    """
    out: list[Head] = []
    coming = list(columns)
    group = label = key = ""
    for text in header:
        title, _, shows = text.rpartition(", ")
        if coming and title == _title(coming[0]):
            column = coming.pop(0)
            group, key = column.get("group", ""), column["key"]
            label = title.removeprefix(f"{group}, ") if group else title
            text = shows
        out.append(Head(text, group, label, key))
    return out


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


def head_lines(heads: list[Head]) -> list[list[tuple[str, int]]]:
    """The lines of spanning heads above a table, without one that is empty or says here alone."""
    if not any(head.key for head in heads):
        return []
    levels = [_spans(heads, part) for part in ("group", "label", "shows")]
    return [line for line in levels if {text for text, _ in line} - {""} - {"here"}]


def _row_keys(rows: list[dict]) -> list[str]:
    """The key of the row behind each line; a row with a second reading has two lines."""
    return [row["key"] for row in rows for _ in range(2 if row.get("also_unit") else 1)]


def _title(column: dict) -> str:
    """Group, label and unit of a column of an experiment."""
    title = ", ".join(filter(None, (column.get("group"), column["label"])))
    return f"{title} ({column['unit']})" if column.get("unit") else title


def _wants_unit_column(columns: list[dict], cells: list[Entry]) -> bool:
    """Whether the columns do not say the units and these differ."""
    own = {c["key"] for c in columns if c.get("unit")}
    return len({c.unit for c in cells if c.column not in own} - {None}) > 1


def _unit_of_row(columns: list[dict], cells: list[Entry]) -> str:
    units = [
        cell.unit for column, cell in zip(columns, cells, strict=True) if not column.get("unit")
    ]
    return next((unit for unit in units if unit), "")


def _titles(column: dict, compared: bool, differences: bool, printed: str) -> list[str]:
    """The headers of one column of an experiment; ``printed``: that of the printed numbers."""
    title = _title(column)
    if column.get("quoted"):
        return [f"{title}, quoted"]
    titles = [f"{title}, here"]
    if compared:
        titles.append(printed)
        if differences:
            titles.append("difference")
    return titles


def _texts(cell: Entry, compared: bool, differences: bool, reading: str | None) -> list[str]:
    """Measured value, printed value and difference of a cell.

    Args:
        reading: a unit to read the printed digits in, in place of the one that is printed.
    """
    measured, error, difference = cell.measured, cell.error, cell.difference
    printed = cell.printed_text
    if reading is not None:
        if cell.quoted:
            return [NOTHING] * 3
        measured, error = _converted(measured, error, cell.unit, reading)
        if cell.original is not None:
            printed = cell.original.text
            if difference is not None:
                difference = measured - cell.original.number
    texts = [number(measured, error)]
    if compared:
        texts.append(printed)
        if differences:
            texts.append(NOTHING if difference is None else f"{difference:+.3g}")
    return texts


def _converted(value: float | None, error: float | None, source: str | None, target: str):
    if value is None or source is None:
        return None, None
    scale = factor(source, target)
    return value * scale, None if error is None else error * scale
