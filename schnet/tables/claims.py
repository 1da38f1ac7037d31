"""What the paper says about a table, and whether the numbers measured here say the same."""

from __future__ import annotations

from schnet.tables.cells import Entry


def verdicts(experiment: dict, cells: list[Entry]) -> list[str]:
    """One sentence for every claim of an experiment.

    A claim names the row (or column) with the smallest errors, those it is compared with, and the
    columns (or rows) in which that holds.

    Args:
        experiment: its ``claims``, ``rows`` and ``columns``.
        cells: of the table.
    """
    measured = {(cell.row, cell.column): cell.measured for cell in cells}
    labels = {entry["key"]: _label(entry) for entry in experiment["rows"] + experiment["columns"]}
    rows = [row["key"] for row in experiment["rows"]]
    columns = [column["key"] for column in experiment["columns"]]
    sentences = []
    for claim in experiment.get("claims", []):
        among = [claim["smallest"], *claim["among"]]
        of_rows = claim["smallest"] in rows
        within = claim.get("within", columns if of_rows else rows)
        found: dict[str, list[str]] = {"yes": [], "no": [], "cannot be said": []}
        for place in within:
            pairs = [(key, place) if of_rows else (place, key) for key in among]
            found[_verdict([measured.get(pair) for pair in pairs])].append(labels[place])
        answers = [f"{word} ({', '.join(there)})" for word, there in found.items() if there]
        sentences.append(f"Paper: {claim['text']} Here: {'; '.join(answers)}.")
    return sentences


def _label(entry: dict) -> str:
    """A row or column as a sentence names it."""
    return ": ".join(filter(None, (entry.get("group"), entry["label"])))


def _verdict(values: list[float | None]) -> str:
    """Whether the first value is the smallest."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "cannot be said"
    return "yes" if known[0] < min(known[1:]) else "no"
