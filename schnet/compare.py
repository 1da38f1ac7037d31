"""Are regenerated tables those that are committed?"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from schnet.errors import SchNetError


@dataclass(frozen=True)
class Measured:
    """A measured value, and the data behind it: beginnings of their digests, joined by '+'."""

    value: float
    data: str


def _measured(path: Path) -> dict[tuple[str, str], Measured]:
    """The measured cells of a table's CSV file, by row and column.

    Derived ones are left out: those that they are computed from are compared.
    """
    with open(path, encoding="utf-8", newline="") as f:
        return {
            (record["row"], record["column"]): Measured(
                float(record["measured"]), record.get("data") or ""
            )
            for record in csv.DictReader(f)
            if record["measured"] and not record.get("derived")
        }


def _agree(old: Measured, new: Measured, tolerance: float, factor: float) -> bool:
    """Whether two values are near enough; NaN agrees with nothing."""
    if old.data == new.data:
        return abs(new.value - old.value) <= tolerance * abs(old.value)
    return old.value / factor <= new.value <= old.value * factor


def compare(committed, regenerated, tolerance: float = 0.05, factor: float = 5.0):
    """Compare every measured cell of committed tables with regenerated ones.

    Values from the same data must agree within a relative tolerance. Where the data were made on
    the spot by another kind of processor, trajectories are others (they are chaotic), and with them
    the data's digests: there only a factor is asked for.

    Args:
        committed, regenerated: folders with CSV files of tables.
        tolerance: largest relative difference, 0.05 for 5 %.
        factor: largest factor between values from different data.

    Raises:
        SchNetError: naming every cell that is missing or differs by more, or when there is nothing
            to compare.
    """
    problems, same, other = [], 0, 0
    tables = sorted(Path(committed).glob("*.csv"))
    if not tables:
        raise SchNetError(f"{committed}: no table to compare with")
    for table in tables:
        counterpart = Path(regenerated) / table.name
        if not counterpart.exists():
            problems.append(f"{table.name}: not regenerated")
            continue
        new = _measured(counterpart)
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
