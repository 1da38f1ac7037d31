"""Test error against what the training cost, a panel for each column of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pandas as pd

from schnet.errors import known_or_nearest
from schnet.figures import style
from schnet.figures.results import experiments_of, options
from schnet.finished import CORE_SECONDS, Finished
from schnet.units import factor

if TYPE_CHECKING:
    from schnet.project import Cell, Project
    from schnet.run import Run

READS = ("metrics_file",)
#: columns: keys of those that get a panel; empty: all
OPTIONS: dict = {"columns": []}
COLUMNS = ["experiment", "column", "row", "label", "run", "mae", "unit", "core_seconds", "steps"]
COLUMNS += ["n_train", "hardware"]


def points(project: Project, figure: dict) -> pd.DataFrame:
    """One row for each finished run of a cell, see COLUMNS and `Finished.core_seconds`."""
    wanted = options(figure, OPTIONS)["columns"]
    experiments = experiments_of(project, figure)
    known = [c["key"] for name in experiments for c in project.experiments[name]["columns"]]
    for column in wanted:
        known_or_nearest(column, known, "column", f"{figure['title']}: options")
    out = []
    for name in experiments:
        labels = {row["key"]: row["label"] for row in project.experiments[name]["rows"]}
        cells = [c for c in project.cells[name] if not wanted or c.column in wanted]
        pairs = [(cell, run) for cell in cells for run in cell.runs]
        for cell, run in pairs:
            point = _point(cell, run)
            if point is not None:
                out.append({"experiment": name, "label": labels[cell.row]} | point)
    return pd.DataFrame(out, columns=COLUMNS)


def _point(cell: Cell, run: Run) -> dict | None:
    """Error and cost of one run of a cell; None where it is not finished."""
    about, metrics = run.about(), run.metrics()
    if about is None or metrics is None:
        return None
    finished = Finished.of(about)
    values = cell.errors(metrics)[cell.part][cell.quantity]
    unit = cell.unit or values["unit"]
    return {
        "column": cell.column,
        "row": cell.row,
        "run": run.path,
        "mae": values["mae"] * factor(values["unit"], unit),
        "unit": unit,
        "core_seconds": finished.core_seconds,
        "steps": finished.steps,
        "n_train": run.n_train,
        "hardware": finished.hardware,
    }


def note(project: Project, figure: dict) -> str:
    """On which hardware the trainings ran, and how their time was taken."""
    there = points(project, figure)
    if there.empty:
        return ""
    kinds = []
    for hardware, group in there.groupby("hardware"):
        kinds.append(f"{hardware} ({', '.join(dict.fromkeys(group['label']))})")
    return f"Trained on: {'; '.join(kinds)}. {CORE_SECONDS}"


def draw(project: Project, figure: dict):
    """Errors against core-seconds, both on logarithmic axes."""
    data = points(project, figure)
    groups = list(data.groupby(["experiment", "column"], sort=False))
    picture, axes = style.panels(len(groups), columns=3, width=3.6, height=3.2)
    if not groups:
        return picture, data.to_csv(index=False)
    rows = list(dict.fromkeys(data["row"]))
    for ax, (key, group) in zip(axes, groups, strict=True):
        name, column = map(str, cast(tuple, key))
        declared = {c["key"]: c for c in project.experiments[name]["columns"]}[column]
        for row, there in group.groupby("row", sort=False):
            look = style.line(rows.index(row)) | {"linestyle": "none"}
            ax.plot(there["core_seconds"], there["mae"], ms=6, label=there["label"].iloc[0], **look)
        title = ", ".join(filter(None, [declared.get("group"), declared["label"]]))
        title += f" (N = {group['n_train'].iloc[0]:,})"
        ax.set(xscale="log", yscale="log", title=title, xlabel="core-seconds of training")
        ax.set_ylabel(f"mean absolute error / {style.unit_text(group['unit'].iloc[0])}")
        for axis in (ax.xaxis, ax.yaxis):
            style.log_axis(axis)
        ax.tick_params(labelsize=7, which="both")
    # below the panels, where it hides no point; a panel may lack an architecture
    shown = [ax.get_legend_handles_labels() for ax in axes]
    handles = {label: handle for found in shown for handle, label in zip(*found, strict=True)}
    picture.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=7, fontsize=7
    )
    return picture, data.to_csv(index=False)
