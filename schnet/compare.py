"""Are regenerated tables those that are committed?"""

from __future__ import annotations

import csv
from pathlib import Path

from schnet.errors import SchNetError


def _measured(path: Path) -> dict:
    with open(path, encoding="utf-8", newline="") as f:
        return {(r["row"], r["column"]): float(r["measured"]) for r in csv.DictReader(f) if r["measured"]}


def compare(committed, regenerated, tolerance: float):
    """Raise SchNetError naming every cell that is missing or differs by more than a factor of ``tolerance``.

    A factor, not a percentage: the demo's trajectories are chaotic, another processor rounds them elsewhere.
    """
    problems, cells = [], 0
    tables = sorted(Path(committed).glob("*.csv"))
    if not tables:
        raise SchNetError(f"{committed}: no table to compare with")
    for table in tables:
        other = Path(regenerated) / table.name
        if not other.exists():
            problems.append(f"{table.name}: not regenerated")
            continue
        old, new = _measured(table), _measured(other)
        for key, value in old.items():
            cells += 1
            if key not in new:
                problems.append(f"{table.name}: {', '.join(key)}: missing, was {value:.4g}")
            elif not value / tolerance <= new[key] <= value * tolerance:
                problems.append(f"{table.name}: {', '.join(key)}: {new[key]:.4g}, was {value:.4g}")
    if problems:
        raise SchNetError(f"{len(problems)} of {cells} cells differ by more than a factor of {tolerance:g}:\n  " + "\n  ".join(problems))
    print(f"{cells} cells of {len(tables)} tables agree within a factor of {tolerance:g}")
