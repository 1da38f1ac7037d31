"""What stands under a table: how scale, data and protocol differ, and what is missing."""

from __future__ import annotations

from collections import Counter

from schnet.data import census
from schnet.data.raw_files import is_unverified
from schnet.finished import CORE_SECONDS, Finished
from schnet.project import Project
from schnet.run import Run, RunSpec
from schnet.tables.cells import Entry, title_of
from schnet.tables.claims import verdicts
from schnet.verify import is_current

PROTOCOLS = {
    "short": (
        "Protocol short: learning rate kept for three quarters of the run, then lowered; averaged "
        "weights (EMA) are the model."
    ),
    "tf_code": "Protocol tf_code: loss and validation as in the authors' code.",
}


def footnotes(project: Project, name: str, cells: list[Entry]) -> list[str]:
    """All notes of a table, most important first.

    Args:
        name: of the experiment.
        cells: its entries, see `schnet.tables.cells.entries`.
    """
    runs = list({run.path: run for cell in cells for run in cell.runs}.values())
    finished = [f for f in map(Finished.read, runs) if f is not None]
    notes = [project.scale["note"]]
    if finished:
        notes.append(_trained(finished))
    notes += _data(project, finished, cells)
    used = {f.protocol for f in finished}
    notes += [text for protocol, text in PROTOCOLS.items() if protocol in used]
    notes += _optimiser(runs)
    notes += _repeats(cells)
    if any(cell.raw is not None for cell in cells):
        notes.append("Errors of the weights of single steps: raw_weights in the CSV file.")
    notes += _single_steps(project.experiments[name])
    notes += _seeds(project.experiments[name], cells)
    notes += _committees(cells)
    notes += _modified(finished)
    notes += _verified(runs)
    notes += _approximate(project, cells)
    notes += _of_experiment(project.experiments[name])
    if not project.made_up:
        notes += verdicts(project.experiments[name], cells, project.config["scale"])
    notes += _missing(project.experiments[name], cells)
    if any(cell.quoted for cell in cells):
        origin = project.experiments[name].get("printed_in", "the paper")
        notes.append(
            f"Columns and rows without a measured value are quoted from {origin}; they are not "
            "computed here."
        )
    if project.made_up:
        notes.append("Demo numbers: never to be compared with the printed ones.")
    return list(dict.fromkeys(notes))


def _optimiser(runs: list[Run]) -> list[str]:
    """Where Adam's β₂ is another than the usual one."""
    neural = [run for run in runs if run.settings.method == "neural" and run.metrics_file.exists()]
    counts = Counter(run.settings.adam_beta2 for run in neural)
    usual = RunSpec.adam_beta2
    notes = []
    for value in sorted(counts.keys() - {usual}):
        some = f", in {counts[value]} of {len(neural)} runs" if len(counts) > 1 else ""
        notes.append(f"Adam's β₂ is {value:g}, not {usual:g}{some}.")
    return notes


def _trained(finished: list[Finished]) -> str:
    """Sizes and lengths of the trainings, each once."""
    kinds = set()
    for f in finished:
        family = f.dataset.split("_")[0]
        method = "" if f.method == "neural" else f" ({f.method.replace('_', ' ')})"
        kinds.add((family + method, f.n_train or 0, f.steps or 0))
    texts = []
    for what, n_train, steps in sorted(kinds):
        text = f"{what}: N = {n_train:,}"
        texts.append(f"{text}, {steps:,} steps" if steps else text)
    return f"Trained here: {'; '.join(texts)}."


def _data(project: Project, finished: list[Finished], cells: list[Entry]) -> list[str]:
    """Where the data come from when they are not the upstream files, and what they are."""
    sources = [source for f in finished for source in f.sources]
    made = sorted({s["url"] for s in sources if s["checksum_from"] == "made here"})
    mirrored = [s for s in sources if s["checksum_from"] == "mirror"]
    # None: upstream publishes no checksum; older records do not say whose file it is: then those of
    # other runs do, and without any it is none of upstream's
    said = {s["file"]: False for s in mirrored}
    said |= {s["file"]: s["upstream"] for s in sources if s["file"] in said and "upstream" in s}
    others = sorted(file for file, upstream in said.items() if upstream is False)
    unknown = sorted(file for file, upstream in said.items() if upstream is None)
    notes = [f"Data {what}." for what in made]
    if others:
        notes.append(
            "Data from a mirror with checksums of its own, not the upstream files (a slice or "
            f"revised labels): {', '.join(others)}."
        )
    if unknown:
        notes.append(
            "Data from a mirror with checksums of its own; upstream publishes none to compare "
            f"with: {', '.join(unknown)}."
        )
    unverified = sorted({s["file"] for s in sources if is_unverified(s)})
    if unverified:
        notes.append(
            "Data from a mirror or placed by hand, with no checksum to compare with: "
            f"{', '.join(unverified)}."
        )
    facts = [note for source in sources for note in source.get("notes") or []]
    facts += census.sentences({project.sources[f.dataset]["title"]: f.notes for f in finished})
    notes += facts
    if (others or facts) and any(cell.difference is not None for cell in cells):
        notes.append("Not like for like: the printed numbers belong to the upstream data.")
    return notes


def _repeats(cells: list[Entry]) -> list[str]:
    measured = [cell.repeats for cell in cells if cell.repeats]
    if 1 not in measured:
        return []
    if set(measured) == {1}:
        return ["One run behind every measured value: no standard error."]
    return ["A measured value without ± is of one run: no standard error."]


def _single_steps(experiment: dict) -> list[str]:
    """Which columns do not show the average of weights that would be the model."""
    columns = [title_of(c) for c in experiment["columns"] if c.get("weights") == "raw"]
    if not columns:
        return []
    return [
        f"{'; '.join(columns)}: errors of the weights of single steps. Their average, the model of "
        "protocol short, still holds some of the start of the shortest trainings."
    ]


def _seeds(experiment: dict, cells: list[Entry]) -> list[str]:
    """Of which columns the errors are means over seeds, not over splits."""
    several = {c.column for c in cells if c.committee == "members" and c.repeats > 1}
    columns = [title_of(column) for column in experiment["columns"] if column["key"] in several]
    if not columns:
        return []
    return [
        f"{'; '.join(columns)}: mean and standard error over models that differ in seed alone, "
        "trained and tested on the same structures."
    ]


def _committees(cells: list[Entry]) -> list[str]:
    """What a committee is, and what the trainings of its members took."""
    means = [cell for cell in cells if cell.committee == "mean"]
    there = {cell.row: cell for cell in means if cell.measured is not None}
    if not there:
        return []
    members = max(cell.repeats for cell in there.values())
    costs = [f"{_core_seconds(cell.runs):,.0f} for {row}" for row, cell in there.items()]
    return [
        f"Committee: the mean of the predictions of {members} models that differ in seed alone and "
        "share the split; one value, no standard error.",
        f"Core-seconds of training a whole committee: {', '.join(costs)}; it predicts at "
        f"{members} times the cost of one model. {CORE_SECONDS}",
    ]


def _core_seconds(runs: list[Run]) -> float:
    """Of the trainings of several runs together."""
    finished = (Finished.read(run) for run in runs)
    return sum(f.core_seconds or 0 for f in finished if f is not None)


def _modified(finished: list[Finished]) -> list[str]:
    """How many runs no commit can bring back."""
    count = sum(f.modified for f in finished)
    if not count:
        return []
    share = f"{count} of {len(finished)} runs"
    return [f"Made by code with changes that no commit has: {share}."]


def _verified(runs: list[Run]) -> list[str]:
    if not runs:
        return []
    found = {run.path: is_current(run.folder) for run in runs}
    good = [run for run in runs if found[run.path]]
    here = "verified with the code at hand (schnet verify)"
    text = f"{len(good)} of {len(runs)} runs were {here}"
    if not good:
        text = f"None of {len(runs)} runs has been {here}"
    trained = [run for run in good if run.settings.method == "neural"]
    kept = sum(run.model_file.exists() for run in trained)
    if trained and kept == len(trained):
        text += ": trainings by their first steps and their errors"
    elif kept:
        text += f": trainings by their first steps, {kept} with a kept model by their errors, too"
    elif trained:
        text += ": trainings by their first steps alone, since no model was kept"
    bad = list(found.values()).count(False)
    if bad:
        text += f"; {bad} did not come out with the same numbers"
    return [f"{text}."]


def _approximate(project: Project, cells: list[Entry]) -> list[str]:
    rows = set(project.scale.get("approximate", ())) & {cell.row for cell in cells}
    return [f"Only approximated in the demo's data: {', '.join(sorted(rows))}."] if rows else []


def _of_experiment(experiment: dict) -> list[str]:
    """Notes of the experiment's file: on the whole, on rows, on columns."""
    notes = list(experiment.get("notes", []))
    for entry in [*experiment["rows"], *experiment["columns"]]:
        if entry.get("note"):
            notes.append(f"{entry['label']}: {entry['note']}")
    return notes


def _missing(experiment: dict, cells: list[Entry]) -> list[str]:
    """The cells without all their runs, by reason; whole columns and rows by their labels."""
    left = [cell for cell in cells if not cell.quoted]
    if len({cell.missing for cell in left}) == 1 and left[0].missing:
        return [f"Missing, {left[0].missing}: all cells."]
    where: dict[str, list[str]] = {}
    for axis in ("column", "row"):
        for entry in experiment[f"{axis}s"]:
            here = [cell for cell in left if getattr(cell, axis) == entry["key"]]
            reasons = {cell.missing for cell in here}
            if len(here) > 1 and len(reasons) == 1 and here[0].missing:
                where.setdefault(here[0].missing, []).append(f"all of {title_of(entry)}")
                left = [cell for cell in left if getattr(cell, axis) != entry["key"]]
    rows = {entry["key"]: title_of(entry) for entry in experiment["rows"]}
    for column in experiment["columns"]:
        for reason in {cell.missing: None for cell in left if cell.missing}:
            of_column = [c for c in left if (c.column, c.missing) == (column["key"], reason)]
            if of_column:
                names = ", ".join(rows[cell.row] for cell in of_column)
                where.setdefault(reason, []).append(f"{title_of(column)} for {names}")
    return [f"Missing, {reason}: {'; '.join(places)}." for reason, places in where.items()]


def sizes(project: Project, name: str) -> str:
    """What stands for the training sizes that a table names; empty where these are the same."""
    pairs = set()
    for cell in project.cells[name]:
        pairs |= {(cell.n_train, run.n_train) for run in cell.runs}
    changed = [f"{here:,} in place of N = {n:,}" for n, here in sorted(pairs) if n != here]
    return f"Training structures at this scale: {', '.join(changed)}." if changed else ""
