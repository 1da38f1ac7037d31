"""Tables of two folders: are they the same, or how do they differ?"""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass
from pathlib import Path

from schnet.errors import DataError, SchNetError
from schnet.files import write_text
from schnet.units import factor as unit_factor

#: of the CSV file that `side_by_side` writes; first and second: the measured values
COLUMNS = ("table", "row", "column", "unit", "first", "second", "ratio", "printed", "same_data")


@dataclass(frozen=True)
class Measured:
    """A measured value, and the data behind it: beginnings of their digests, joined by '+'."""

    value: float
    data: str


def _measured(path: Path) -> dict[tuple[str, str], Measured]:
    """The measured cells of a table's CSV file, by row and column.

    Derived ones are left out: those that they are computed from are compared.
    """
    return {
        key: Measured(_number(record, f"{path}: {', '.join(key)}"), record.get("data") or "")
        for key, record in _records(path).items()
        if record["measured"] and not record.get("derived")
    }


def _number(record: dict, where: str) -> float:
    """The measured value of a record. Raises DataError where it is no number."""
    try:
        return float(record["measured"])
    except ValueError as error:
        raise DataError(f"{where}: measured: {record['measured']!r} is not a number") from error


def _agree(old: Measured, new: Measured, tolerance: float, factor: float) -> bool:
    """Whether two values are near enough; NaN agrees with nothing."""
    if old.data == new.data:
        return abs(new.value - old.value) <= tolerance * abs(old.value)
    return old.value / factor <= new.value <= old.value * factor


def _folder(results) -> Path:
    """Where the tables of a results folder are; a folder of tables is one itself."""
    below = Path(results) / "tables"
    return below if below.is_dir() else Path(results)


def _tables(results) -> list[Path]:
    """The CSV files of all tables below a folder. Raises SchNetError where there is none."""
    tables = sorted(_folder(results).glob("*.csv"))
    if not tables:
        raise SchNetError(f"{results}: no table to compare with; snakemake --cores all makes them")
    return tables


def compare(committed, regenerated, tolerance: float = 0.05, factor: float = 5.0):
    """Compare every measured cell of committed tables with regenerated ones.

    Values from the same data must agree within a relative tolerance. Where the data were made on
    the spot by another kind of processor, trajectories are others (they are chaotic), and with them
    the data's digests: there only a factor is asked for.

    Args:
        committed, regenerated: folders with CSV files of tables, or results/SCALE above them.
        tolerance: largest relative difference, 0.05 for 5 %.
        factor: largest factor between values from different data.

    Raises:
        SchNetError: naming every cell that is missing or differs by more, or when there is nothing
            to compare.
    """
    problems, same, other = [], 0, 0
    tables = _tables(committed)
    counterparts = {table.name: table for table in _tables(regenerated)}
    for table in tables:
        if table.name not in counterparts:
            problems.append(f"{table.name}: not regenerated")
            continue
        new = _measured(counterparts[table.name])
        for key, old in _measured(table).items():
            where = f"{table.name}: {', '.join(key)}"
            if key not in new:
                same += 1
                problems.append(f"{where}: missing, was {old.value:.4g}")
                continue
            if old.data == new[key].data:
                same, limit = same + 1, f"{100 * tolerance:g} %"
            else:
                other, limit = other + 1, f"a factor of {factor:g}, from other data"
            if not _agree(old, new[key], tolerance, factor):
                problems.append(f"{where}: {new[key].value:.4g}, was {old.value:.4g} ({limit})")
    if problems:
        count = f"{len(problems)} problems in {same + other} cells"
        raise SchNetError("\n  ".join([f"{count} of {len(tables)} tables:", *problems]))
    if not same + other:
        raise SchNetError(f"{committed}: no table has a measured value, nothing is compared")
    print(f"{same} cells of {len(tables)} tables agree within {100 * tolerance:g} %")
    if other:
        print(
            f"{other} cells agree within a factor of {factor:g}; no more is asked of them, for "
            "their data are others (made on another kind of processor, or by other code)"
        )


@dataclass(frozen=True)
class Pair:
    """One cell as two folders have it, in one unit; None where a folder has no measured value."""

    table: str
    row: str
    column: str
    unit: str
    first: float | None
    second: float | None
    printed: str
    same_data: bool

    @property
    def ratio(self) -> float | None:
        """Second by first value, where both are there and the first is not zero."""
        if self.second is None or not self.first:
            return None
        return self.second / self.first


def pairs(first, second) -> list[Pair]:
    """All cells that at least one of two folders has measured, table by table.

    Folders may be of different scales: rows and columns are the same at all of them.

    Args:
        first, second: results/SCALE, or folders with CSV files of tables.

    Raises:
        SchNetError: a folder without tables, or nothing that both of them have measured.
        DataError: a cell whose two units are of different quantities.
    """
    files = {path.name: path for path in [*_tables(second), *_tables(first)]}
    out = []
    for name in sorted(files):
        one, other = (_records(_folder(folder) / name) for folder in (first, second))
        for key in dict.fromkeys([*one, *other]):
            a, b = one.get(key, {}), other.get(key, {})
            if a.get("measured") or b.get("measured"):
                out.append(_pair(Path(name).stem, key, a, b))
    if not any(pair.ratio for pair in out):
        raise SchNetError(f"{first} and {second}: no cell is measured in both")
    return out


def _records(path: Path) -> dict[tuple[str, str], dict]:
    """The lines of a table's CSV file by row and column; none where there is no file."""
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as f:
        return {(record["row"], record["column"]): record for record in csv.DictReader(f)}


def _pair(table: str, key: tuple[str, str], first: dict, second: dict) -> Pair:
    """One cell of two tables; an empty record stands for one that a table does not have."""
    either = first or second
    unit = either["unit"]
    return Pair(
        table,
        *key,
        unit,
        _value(first, unit, f"{table}.csv: {', '.join(key)}"),
        _value(second, unit, f"{table}.csv: {', '.join(key)}"),
        either["printed"],
        bool(first.get("data")) and first.get("data") == second.get("data"),
    )


def _value(record: dict, unit: str, where: str) -> float | None:
    """The measured value of a record in a unit. Raises DataError for that of another quantity."""
    if not record.get("measured"):
        return None
    value = _number(record, where)
    if record["unit"] == unit:
        return value
    try:
        return value * unit_factor(record["unit"], unit)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def side_by_side(first, second, stem) -> None:
    """Write what two folders have measured, beside each other; nothing is judged.

    STEM.csv and STEM.md hold all cells, STEM.png and .pdf show the ratios.

    Args:
        first, second: see `pairs`.
        stem: path without suffix.

    Raises:
        SchNetError: see `pairs`.
    """
    found = pairs(first, second)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows(_line(pair) for pair in found)
    write_text(f"{stem}.md", _markdown(found, str(first), str(second)))
    _draw(found, str(first), str(second), f"{stem}.png", text.getvalue())
    ratios = [pair.ratio for pair in found if pair.ratio is not None]
    print(
        f"{len(ratios)} cells measured in both, {len(found) - len(ratios)} in one alone; "
        f"{second} by {first}: {min(ratios):.3g} to {max(ratios):.3g}, "
        f"median {statistics.median(ratios):.3g}"
    )


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _line(pair: Pair) -> list[str]:
    """A pair in the order of COLUMNS."""
    values = (_text(pair.first, 6), _text(pair.second, 6), _text(pair.ratio, 4))
    same = "yes" if pair.same_data else "no"
    return [pair.table, pair.row, pair.column, pair.unit, *values, pair.printed, same]


def _markdown(found: list[Pair], first: str, second: str) -> str:
    """A section for every table."""
    lines = [f"# {first} and {second}", "", f"Ratio: {second} by {first}.", ""]
    for table in dict.fromkeys(pair.table for pair in found):
        lines += [
            f"## {table}",
            "",
            f"| row | column | unit | {first} | {second} | ratio | printed | same data |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for pair in found:
            if pair.table == table:
                values = [_text(v, 3) or "–" for v in (pair.first, pair.second, pair.ratio)]
                texts = [pair.row, pair.column, pair.unit, *values, pair.printed or "–"]
                texts.append("yes" if pair.same_data else "no")
                lines.append("| " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines)


def _draw(found: list[Pair], first: str, second: str, picture: str, csv_text: str) -> None:
    """The ratios of every table on one axis: they have no unit."""
    import matplotlib

    from schnet.figures import style

    both = [pair for pair in found if pair.ratio is not None and pair.ratio > 0]
    tables = list(dict.fromkeys(pair.table for pair in both))
    fills = {"same data": (True, style.COLOURS[0]), "other data": (False, "none")}
    with matplotlib.rc_context(style.settings()):
        figure, axes = style.grid(1, 1, (6.0, 1.3 + 0.28 * len(tables)))
        ax = axes[0, 0]
        for label, (same, fill) in fills.items():
            here = [pair for pair in both if pair.same_data == same]
            x, y = [pair.ratio for pair in here], [tables.index(pair.table) for pair in here]
            ax.scatter(x, y, s=22, facecolor=fill, edgecolor=style.COLOURS[0], label=label)
        ax.axvline(1.0, color=style.GREY, linewidth=0.8, zorder=0)
        ax.set(xscale="log", yticks=range(len(tables)), yticklabels=tables)
        ax.set(xlabel=f"{second}\ndivided by {first}", ylim=(len(tables) - 0.5, -0.5))
        style.log_axis(ax.xaxis)
        figure.legend(loc="outside upper right", ncols=2)
        style.save(figure, csv_text, picture, "A point is a cell measured in both.")
