"""What the paper says about a table, and whether the numbers measured here say the same."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from schnet.tables.cells import Entry, digits, fixed, title_of

VERDICTS = ("yes", "no", "too close to say", "cannot be said")
#: what may be chance: a relative difference where one of two is a single run (three seeds of one
#: molecule have force errors up to 18 % apart), standard errors of means
NOISE, ERRORS = 0.2, 2.0
TINY = 1e-100  # in place of an error of zero, which no factor can be taken of


@dataclass(frozen=True)
class Found:
    """Whether a claim holds in one place of a table.

    Attributes:
        place: the column (or row), as a sentence names it.
        verdict: one of VERDICTS.
        compared: what should have the smaller error and the best of the others, as text; empty,
            like ``errors``, where something is missing.
        errors: theirs, with the unit.
        reason: why it cannot be said, where the errors are there.
    """

    place: str
    verdict: str
    compared: str = ""
    errors: str = ""
    reason: str = ""


def judged(experiment: dict, cells: list[Entry], scale: str) -> list[tuple[str, list[Found]]]:
    """Every claim of an experiment, as the paper makes it, and what was found.

    A claim names the row (or column) with the smallest errors, those it is compared with, and the
    columns (or rows) in which that holds. With ``more_than`` it is about the factor between the
    errors of the best of the others and those of the first: larger than in that column (or row);
    with ``by`` at least that number. ``untestable`` says why nothing follows at a scale.

    Args:
        experiment: its ``claims``, ``rows`` and ``columns``.
        cells: of the table.
        scale: of the runs.
    """
    by_key = {(cell.row, cell.column): cell for cell in cells}
    labels = {entry["key"]: title_of(entry) for entry in experiment["rows"] + experiment["columns"]}
    rows = [row["key"] for row in experiment["rows"]]
    columns = [column["key"] for column in experiment["columns"]]
    out = []
    for claim in experiment.get("claims", []):
        is_row = claim["smallest"] in rows
        everywhere = columns if is_row else rows
        places = [_compare(claim, key, labels, by_key) for key in claim.get("within", everywhere)]
        if "more_than" in claim:
            other = _compare(claim, claim["more_than"], labels, by_key)
            found = [_more(place, other) for place in places]
        else:
            found = [_smaller(place, claim.get("by", 1.0)) for place in places]
        reason = claim.get("untestable", {}).get(scale)
        if reason:
            found = [_withheld(one, reason) for one in found]
        out.append((claim["text"], found))
    return out


def _withheld(found: Found, reason: str) -> Found:
    """Errors without a verdict, for a reason; where there are none, that is the reason."""
    return replace(found, verdict="cannot be said", reason=reason if found.errors else "")


def by_verdict(found: list[Found]) -> dict[str, list[Found]]:
    """The places of a claim by their verdicts, those that occur, in the order of VERDICTS."""
    groups = {verdict: [one for one in found if one.verdict == verdict] for verdict in VERDICTS}
    return {verdict: there for verdict, there in groups.items() if there}


def reasons(found: list[Found]) -> str:
    """Why something cannot be said, to follow the verdict; empty where none is told."""
    there = dict.fromkeys(one.reason for one in found if one.reason)
    return f", for {'; '.join(there)}" if there else ""


def verdicts(experiment: dict, cells: list[Entry], scale: str) -> list[str]:
    """One sentence for every claim of an experiment; see `judged`."""
    sentences = []
    for text, found in judged(experiment, cells, scale):
        answers = [
            f"{verdict}{reasons(there)} ({', '.join(one.place for one in there)})"
            for verdict, there in by_verdict(found).items()
        ]
        sentences.append(f"Paper: {text} Here: {'; '.join(answers)}.")
    return sentences


@dataclass(frozen=True)
class _Comparison:
    """Errors in one place: of what should have the smallest, and of the best of the others.

    Attributes:
        place: the column (or row), as a sentence names it.
        names: of the two, "A against B"; empty where an error is missing.
        cells: theirs; empty where an error is missing.
    """

    place: str
    names: str = ""
    cells: tuple[Entry, ...] = ()

    @property
    def errors(self) -> list[float]:
        """Of the first, and of the best of the others."""
        return [cell.measured for cell in self.cells if cell.measured is not None]

    @property
    def factor(self) -> float:
        """By which the error of the first is smaller."""
        first, best = (max(error, TINY) for error in self.errors)
        return best / first

    @property
    def chance(self) -> float:
        """Relative difference of the errors that may be chance."""
        known = [cell.error for cell in self.cells if cell.error is not None]
        if len(known) < len(self.cells):
            return NOISE
        pairs = zip(known, self.errors, strict=True)
        return ERRORS * math.hypot(*(error / max(mean, TINY) for error, mean in pairs))

    @property
    def text(self) -> str:
        """Both errors, with their unit."""
        numbers = " / ".join(fixed(error, digits(error)) for error in self.errors)
        return f"{numbers} {self.cells[0].unit or ''}".strip()


def _compare(
    claim: dict, key: str, labels: dict[str, str], by_key: dict[tuple[str, str], Entry]
) -> _Comparison:
    """What a claim compares, in the column (or row) ``key``: its first and the best of the others.

    Args:
        claim: ``smallest`` and ``among`` are rows where ``key`` is a column, else columns.
        key: the column (or row).
        labels: of rows and columns, by their keys.
        by_key: the cells, by row and column.
    """
    place = labels[key]
    among = [claim["smallest"], *claim["among"]]
    cells = [by_key.get((one, key)) or by_key.get((key, one)) for one in among]
    measured = [cell for cell in cells if cell is not None and cell.measured is not None]
    if len(measured) < len(cells):
        return _Comparison(place)
    sizes = {run.settings.n_train or 0 for cell in measured for run in cell.runs}
    stated = re.search(r"N = ([\d,]+)", place)
    if stated and len(sizes) == 1 and f"{min(sizes):,}" != stated[1]:
        place = f"{place} (here {min(sizes):,})"
    best = min(range(1, len(measured)), key=lambda k: measured[k].measured or 0.0)
    names = f"{labels[among[0]]} against {labels[among[best]]}"
    return _Comparison(place, names, (measured[0], measured[best]))


def _verdict(factor: float, chance: float) -> str:
    """Whether a factor is larger than one, by more than a relative difference due to chance."""
    if abs(math.log(factor)) < math.log1p(chance):
        return "too close to say"
    return "yes" if factor > 1 else "no"


def _smaller(comparison: _Comparison, by: float) -> Found:
    """Whether the first has the smaller error, by at least a factor."""
    if not comparison.cells:
        return Found(comparison.place, "cannot be said")
    verdict = _verdict(comparison.factor / by, comparison.chance)
    return Found(comparison.place, verdict, comparison.names, comparison.text)


def _more(comparison: _Comparison, other: _Comparison) -> Found:
    """Whether the error of the first is smaller by a larger factor than in another place."""
    if not comparison.cells or not other.cells:
        return Found(comparison.place, "cannot be said")
    chance = math.hypot(comparison.chance, other.chance)
    verdict = _verdict(comparison.factor / other.factor, chance)
    factors = f"a factor of {comparison.factor:.2f}, {other.place}: {other.factor:.2f}"
    return Found(comparison.place, verdict, comparison.names, factors)
