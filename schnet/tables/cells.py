"""The cells of a table: what its runs measured beside what is printed, in one unit each."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from schnet.committee import read_committee
from schnet.errors import ConfigError
from schnet.finished import Finished
from schnet.project import Cell, Project
from schnet.run import Run
from schnet.tables.derived import SUMMARIES
from schnet.units import factor

DIGITS = 12  # of a data digest, enough to tell data sets apart


@dataclass(frozen=True)
class Printed:
    """A number as a document prints it: its digits are text and stay as they are.

    Attributes:
        value, uncertainty: the printed digits; uncertainty may be empty.
        unit: what it is printed in.
    """

    value: str
    uncertainty: str
    unit: str

    @property
    def text(self) -> str:
        """Value and uncertainty, digit by digit."""
        return f"{self.value} ± {self.uncertainty}" if self.uncertainty else self.value

    @property
    def number(self) -> float:
        return float(self.value)

    @property
    def error(self) -> float | None:
        return float(self.uncertainty) if self.uncertainty else None

    def converted(self, unit: str) -> Printed:
        """The same number in another unit; with all its digits where it is printed in that one.

        Raises ValueError for a unit of another quantity.
        """
        if unit == self.unit:
            return self
        scale = factor(self.unit, unit)
        value = self.number * scale
        uncertainty = "" if self.error is None else fixed(self.error * scale, digits(value))
        return Printed(fixed(value, digits(value)), uncertainty, unit)


@dataclass
class Entry:
    """One rendered cell; all its values are in ``unit``.

    Attributes:
        row, column: keys.
        unit: of every value here, measured and printed.
        measured: mean over repeats. error: its standard error, None for one run.
        repeats: runs that went into it.
        printed: the printed number in ``unit``. original: as it is printed.
        deviation: mean over repeats of the standard deviation of the true values; None where the
            metrics do not say it.
        derived: how it is computed from the other cells of its column; empty for others.
        quoted: taken from a document, not computed here.
        extension: not in the paper.
        missing: why runs are missing; empty where none is.
        runs: the evaluated runs behind it.
        raw: mean over repeats with the weights of the last steps, where the model is their average.
        data: beginnings of the digests of the data behind it, joined by '+'.
        comparable: whether measured and printed values may be compared.
        committee: "mean" for the error of the mean prediction of its runs, "members" for the mean
            of the errors of runs that differ in seed alone; empty for others.
    """

    row: str
    column: str
    unit: str | None
    measured: float | None = None
    error: float | None = None
    repeats: int = 0
    printed: Printed | None = None
    original: Printed | None = None
    deviation: float | None = None
    derived: str = ""
    quoted: bool = False
    extension: bool = False
    missing: str = ""
    runs: list[Run] = field(default_factory=list)
    raw: float | None = None
    data: str = ""
    comparable: bool = True
    committee: str = ""

    @property
    def printed_text(self) -> str:
        return "–" if self.printed is None else self.printed.text

    @property
    def difference(self) -> float | None:
        """Measured minus printed value, or None where they cannot or must not be compared."""
        if self.measured is None or self.printed is None or not self.comparable:
            return None
        return self.measured - self.printed.number


def title_of(entry: dict) -> str:
    """A row or column as a sentence names it."""
    return ": ".join(filter(None, (entry.get("group"), entry["label"])))


def digits(value: float) -> int:
    """Decimals that show three significant digits of a value."""
    if value == 0 or not math.isfinite(value):
        return 3
    return max(0, min(6, 2 - math.floor(math.log10(abs(value)))))


def fixed(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"


def number(value: float | None, error: float | None = None) -> str:
    """A value with three significant digits and its standard error with as many decimals."""
    if value is None:
        return "–"
    text = fixed(value, digits(value))
    return text if error is None else f"{text} ± {fixed(error, digits(value))}"


def published(path: Path | None) -> dict[tuple[str, str], Printed]:
    """(row, column) -> number of a file in workflow/published; none without a file.

    Raises ConfigError for a value that is no number.
    """
    if path is None:
        return {}
    out = {}
    with open(path, encoding="utf-8", newline="") as f:
        for record in csv.DictReader(f):
            printed = Printed(record["value"], record["uncertainty"], record["unit"])
            try:
                _ = printed.number, printed.error
            except ValueError as error:
                where = f"{record['row']}, {record['column']}"
                raise ConfigError(f"{path}: {where}: {error}") from error
            out[record["row"], record["column"]] = printed
    return out


def entries(project: Project, name: str) -> list[Entry]:
    """All cells of a table, row by row: what is measured, what is printed, and what is missing.

    Raises:
        ConfigError: metrics without what a cell asks for, or a printed number in a unit of
            another quantity.
        DataError: predictions of a committee that do not belong together.
    """
    experiment = project.experiments[name]
    file = experiment.get("published")
    path = project.root / "workflow" / "published" / file if file else None
    printed = published(path)
    cells = {(c.row, c.column): c for c in project.cells[name]}
    out = []
    for row in experiment["rows"]:
        for column in experiment["columns"]:
            key = (row["key"], column["key"])
            entry = _entry(row, column, key in cells, printed.get(key))
            entry.comparable = not project.made_up
            if key in cells:
                _measure(entry, cells[key])
            if entry.original:
                entry.printed = _printed(entry.original, entry, path)
            out.append(entry)
    for entry in out:
        if entry.derived and not entry.quoted:
            others = [e for e in out if e.column == entry.column]
            _derive(entry, [e for e in others if not (e.derived or e.extension or e.quoted)])
    return out


def _entry(row: dict, column: dict, computed: bool, original: Printed | None) -> Entry:
    """What is known of a cell before its runs are looked at."""
    entry = Entry(row["key"], column["key"], column.get("unit") or row.get("unit"))
    entry.extension = bool(row.get("extension"))
    entry.derived = row.get("derived", "")
    entry.quoted = bool(row.get("quoted") or column.get("quoted"))
    entry.original = original
    if entry.derived:
        entry.unit = SUMMARIES[entry.derived].unit
    elif original and not computed:
        entry.quoted = True
    if entry.unit is None and original:
        entry.unit = original.unit
    return entry


def _printed(original: Printed, entry: Entry, path: Path | None) -> Printed:
    """The printed number in the unit of its cell."""
    try:
        return original.converted(entry.unit or original.unit)
    except ValueError as error:
        raise ConfigError(f"{path}: {entry.row}, {entry.column}: {error}") from error


def _measure(entry: Entry, cell: Cell):
    """Fill in what the evaluated runs of a cell say."""
    entry.missing, entry.committee = cell.missing, cell.committee
    there = [(run, metrics) for run in cell.runs if (metrics := run.metrics()) is not None]
    entry.runs = [run for run, _ in there]
    entry.repeats = len(there)
    entry.data = _data_behind(entry.runs)
    if len(there) < len(cell.runs):
        entry.missing = f"{len(there)} of {len(cell.runs)} runs there"
    if there:
        _average(entry, cell, there)
    if cell.committee == "mean":
        _measure_mean(entry, cell)


def _data_behind(runs: list[Run]) -> str:
    """Beginnings of the digests of the data that runs were made with."""
    finished = (Finished.read(run) for run in runs)
    return "+".join(sorted({f.digest[:DIGITS] for f in finished if f is not None} - {""}))


def _average(entry: Entry, cell: Cell, there: list[tuple[Run, dict]]):
    """Mean errors of one or more runs, given with their metrics, and the standard error."""
    shown = [_metric(metrics, cell, run) for run, metrics in there]
    unit = entry.unit = entry.unit or shown[0]["unit"]

    def values(found: list[dict], key: str) -> list[float]:
        return [one[key] * factor(one["unit"], unit) for one in found if one.get(key) is not None]

    errors = values(shown, "mae")
    entry.measured = float(np.mean(errors))
    if len(errors) > 1:
        entry.error = float(np.std(errors, ddof=1) / math.sqrt(len(errors)))
    deviations = values([m["parts"][cell.part][cell.quantity] for _, m in there], "deviation")
    if len(deviations) == len(errors):
        entry.deviation = float(np.mean(deviations))
    raw = [m.get("alternatives", {}).get("raw", {}).get(cell.part, {}) for _, m in there]
    raw_errors = values([part.get(cell.quantity, {}) for part in raw], "mae")
    if raw_errors and not cell.weights:
        entry.raw = float(np.mean(raw_errors))


def _measure_mean(entry: Entry, cell: Cell):
    """The error of the committee in place of those of its members, once all of them are there."""
    entry.measured = entry.error = entry.raw = None
    if len(entry.runs) < len(cell.runs) or not cell.runs:
        entry.repeats = 0
        return
    committee = read_committee(cell.runs, cell.part, cell.quantity)
    mae = float(np.abs(committee.error).mean())
    entry.measured = mae * factor(committee.unit, entry.unit or committee.unit)


def _derive(entry: Entry, others: list[Entry]):
    """Fill in a derived cell from the measured cells of its column, or say what it lacks."""
    absent = [e.row for e in others if e.measured is None]
    untold = [e.row for e in others if e.measured is not None and not e.deviation]
    if absent:
        entry.missing = f"it needs a value of {', '.join(absent)}"
    elif untold:
        names = ", ".join(untold)
        entry.missing = (
            f"it needs the standard deviation of {names}, which metrics.json does not hold; "
            "`schnet evaluate` writes it"
        )
    if entry.missing:
        return
    ratios = [e.measured / e.deviation for e in others if e.measured is not None and e.deviation]
    entry.measured = SUMMARIES[entry.derived].of(np.array(ratios))
    entry.runs = [run for e in others for run in e.runs]
    entry.data = "+".join(sorted({digest for e in others for digest in e.data.split("+")} - {""}))


def _metric(metrics: dict, cell: Cell, run: Run) -> dict:
    """The errors of the quantity that a cell shows, on its part of the split."""
    parts = cell.errors(metrics)
    if cell.part not in parts:
        has = ", ".join(parts)
        raise ConfigError(f"{run.metrics_file}: no part {cell.part!r}; it has {has}")
    if cell.quantity not in parts[cell.part]:
        has = ", ".join(parts[cell.part])
        message = f"no {cell.quantity!r} for part {cell.part!r}; it has {has}"
        raise ConfigError(f"{run.metrics_file}: {message}")
    return parts[cell.part][cell.quantity]
