"""What the paper says about a table, and whether the numbers measured here say the same."""

from __future__ import annotations

import re
from dataclasses import dataclass

from schnet.tables.cells import Entry, digits, fixed, title_of

VERDICTS = ("yes", "no", "too close to say", "cannot be said")
#: relative difference of two single runs that may be chance; standard errors of means that may be
NOISE, ERRORS = 0.1, 2.0


@dataclass(frozen=True)
class Found:
    """Whether a claim holds in one place of a table.

    Attributes:
        place: the column (or row), as a sentence names it.
        verdict: one of VERDICTS.
        compared: what should have the smaller error and the best of the others, as text; empty,
            like ``errors``, where something is missing.
        errors: theirs, with the unit.
    """

    place: str
    verdict: str
    compared: str = ""
    errors: str = ""


def judged(experiment: dict, cells: list[Entry]) -> list[tuple[str, list[Found]]]:
    """Every claim of an experiment, as the paper makes it, and what was found.

    A claim names the row (or column) with the smallest errors, those it is compared with, and the
    columns (or rows) in which that holds.

    Args:
        experiment: its ``claims``, ``rows`` and ``columns``.
        cells: of the table.
    """
    by_key = {(cell.row, cell.column): cell for cell in cells}
    labels = {entry["key"]: title_of(entry) for entry in experiment["rows"] + experiment["columns"]}
    rows = [row["key"] for row in experiment["rows"]]
    columns = [column["key"] for column in experiment["columns"]]
    out = []
    for claim in experiment.get("claims", []):
        among = [claim["smallest"], *claim["among"]]
        of_rows = claim["smallest"] in rows
        found = []
        for place in claim.get("within", columns if of_rows else rows):
            pairs = [(key, place) if of_rows else (place, key) for key in among]
            compared = [by_key.get(pair) for pair in pairs]
            found.append(_found(labels[place], labels, among, compared))
        out.append((claim["text"], found))
    return out


def by_verdict(found: list[Found]) -> dict[str, list[Found]]:
    """The places of a claim by their verdicts, those that occur, in the order of VERDICTS."""
    groups = {verdict: [one for one in found if one.verdict == verdict] for verdict in VERDICTS}
    return {verdict: there for verdict, there in groups.items() if there}


def verdicts(experiment: dict, cells: list[Entry]) -> list[str]:
    """One sentence for every claim of an experiment; see `judged`."""
    sentences = []
    for text, found in judged(experiment, cells):
        answers = [
            f"{verdict} ({', '.join(one.place for one in there)})"
            for verdict, there in by_verdict(found).items()
        ]
        sentences.append(f"Paper: {text} Here: {'; '.join(answers)}.")
    return sentences


def _found(
    place: str, labels: dict[str, str], among: list[str], compared: list[Entry | None]
) -> Found:
    """Whether the first of the compared cells has the smallest error."""
    cells = [cell for cell in compared if cell is not None and cell.measured is not None]
    known = [cell.measured for cell in cells if cell.measured is not None]
    if len(known) < len(compared):
        return Found(place, "cannot be said")
    sizes = {run.settings.n_train or 0 for cell in cells for run in cell.runs}
    stated = re.search(r"N = ([\d,]+)", place)
    if stated and len(sizes) == 1 and f"{min(sizes):,}" != stated[1]:
        place = f"{place} (here {min(sizes):,})"
    best = min(range(1, len(known)), key=known.__getitem__)
    errors = " / ".join(fixed(known[k], digits(known[k])) for k in (0, best))
    unit = cells[0].unit or ""
    verdict = "yes" if known[0] < known[best] else "no"
    if _close(cells[0], cells[best]):
        verdict = "too close to say"
    names = f"{labels[among[0]]} against {labels[among[best]]}"
    return Found(place, verdict, names, f"{errors} {unit}".strip())


def _close(one: Entry, other: Entry) -> bool:
    """Whether the difference of two cells may be chance."""
    assert one.measured is not None and other.measured is not None
    difference = abs(one.measured - other.measured)
    if one.error is not None and other.error is not None:
        return difference < ERRORS * (one.error**2 + other.error**2) ** 0.5
    return difference < NOISE * max(one.measured, other.measured)
