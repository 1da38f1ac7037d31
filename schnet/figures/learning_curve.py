"""Test error against the number of training structures, for any table.

A curve joins the cells of a table that differ in the number of training structures alone.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from schnet.figures import style
from schnet.figures.results import experiments_of, options, published
from schnet.run import RunSpec
from schnet.units import factor

READS = ("metrics_file",)
INSIDE = 8  # curves whose legend has room in a panel
OPTIONS = {
    "x_label": "training structures N",
    "y_label": "mean absolute error",
    "labels": {},
}


def _settings(experiment: dict, row: dict, column: dict) -> dict:
    """What an experiment asks of a cell, at the paper's training size."""
    layers = [experiment["run"], row.get("run", {}), column.get("run", {})]
    settings = {key: value for layer in layers for key, value in layer.items()}
    model = {key: value for layer in layers for key, value in layer.get("model", {}).items()}
    return settings | {"model": model, "times_steps": column.get("times_steps")}


def _model(settings: dict) -> str:
    """The architecture of a neural run, or the method."""
    method = settings.get("method", RunSpec.method)
    return settings.get("architecture", RunSpec.architecture) if method == "neural" else method


def _measured(cell) -> tuple[list[float], str | None]:
    """The errors of a cell's evaluated runs, in the cell's unit, and that unit."""
    errors, unit = [], cell.unit
    for run in cell.runs:
        metrics = run.metrics()
        if metrics is None:
            continue
        values = metrics["parts"][cell.part][cell.quantity]
        unit = unit or values["unit"]
        errors.append(values["mae"] * factor(values["unit"], unit))
    return errors, unit


def _printed(table: pd.DataFrame, row: str, column: str, unit: str | None) -> float | None:
    """A printed value in a unit, or None where nothing is printed."""
    found = table[(table["row"] == row) & (table["column"] == column)]
    if found.empty:
        return None
    entry = found.iloc[0]
    return float(entry["value"]) * factor(entry["unit"], unit or entry["unit"])


def _same_but_for_size(cell, settings: dict) -> str:
    """What the cells of a curve have in common."""
    rest = {key: value for key, value in settings.items() if key != "n_train"}
    return json.dumps([rest, cell.quantity, cell.part], sort_keys=True)


def _texts(curves: dict[str, list[tuple[dict, dict]]], name) -> dict[str, str]:
    """The names of curves: what the rows or columns of one share, where the curves differ in it.

    Args:
        curves: rows and columns of the cells of every curve.
        name: what a row or column is called.
    """
    shared = {}
    for curve, cells in curves.items():
        parts = [{name(entry): None for entry in entries} for entries in zip(*cells, strict=True)]
        shared[curve] = [next(iter(part)) if len(part) == 1 else "" for part in parts]
    differs = [len(set(texts)) > 1 for texts in zip(*shared.values(), strict=True)]
    if not any(differs):
        differs = [True, True]
    return {
        curve: ", ".join(text for text, d in zip(texts, differs, strict=True) if text and d)
        for curve, texts in shared.items()
    }


def points(project, figure: dict) -> pd.DataFrame:
    """All points of the curves: one row per cell of the experiments.

    Columns: experiment, curve and label (what its rows or columns have in common), model (method
    and architecture), n_train, mae, standard_error (only of several runs), runs, unit, paper_n,
    printed.
    """
    labels = options(figure, OPTIONS)["labels"]
    out = []
    for name in experiments_of(project, figure):
        table = published(project, name)
        curves, of_cell = _curves(project, name)
        texts = _texts(curves, lambda entry: labels.get(entry["key"], entry["label"]))
        for cell, settings, curve in of_cell:
            of_curve = {"curve": list(curves).index(curve) + 1, "label": texts[curve]}
            out.append({"experiment": name} | of_curve | _point(cell, settings, table))
    numbers = ["n_train", "mae", "standard_error", "paper_n", "printed"]
    return pd.DataFrame(out).astype(dict.fromkeys(numbers, float))


def _curves(project, name: str) -> tuple[dict[str, list[tuple[dict, dict]]], list[tuple]]:
    """Rows and columns of the cells of every curve; cell, settings and curve of every cell."""
    experiment = project.experiments[name]
    rows = {row["key"]: row for row in experiment["rows"]}
    columns = {column["key"]: column for column in experiment["columns"]}
    curves: dict[str, list[tuple[dict, dict]]] = {}
    of_cell = []
    for cell in project.cells[name]:
        row, column = rows[cell.row], columns[cell.column]
        settings = _settings(experiment, row, column)
        curve = _same_but_for_size(cell, settings)
        curves.setdefault(curve, []).append((row, column))
        of_cell.append((cell, settings, curve))
    return curves, of_cell


def _point(cell, settings: dict, printed: pd.DataFrame) -> dict:
    """What a cell gives to its curve; ``printed``: the printed numbers of its experiment."""
    errors, unit = _measured(cell)
    spread = None
    if len(errors) > 1:
        spread = np.std(errors, ddof=1) / np.sqrt(len(errors))
    return {
        "row": cell.row,
        "column": cell.column,
        "model": _model(settings),
        "n_train": cell.runs[0].settings.n_train if cell.runs else None,
        "mae": np.mean(errors) if errors else None,
        "standard_error": spread,
        "runs": len(errors),
        "unit": unit,
        "paper_n": settings.get("n_train"),
        "printed": _printed(printed, cell.row, cell.column, unit),
    }


def note(project, figure: dict) -> str:
    """What the markers and bars are, as far as the scale decides it."""
    cells = [cell for name in experiments_of(project, figure) for cell in project.cells[name]]
    several = any(len(cell.runs) > 1 for cell in cells)
    bars = "One run per point, hence no error bars."
    if several:
        bars = "Error bars: standard error of the mean over repeats, where there are several."
    if all(published(project, name).empty for name in experiments_of(project, figure)):
        return bars
    if project.made_up:
        return f"{bars} Printed values are left out: the data of this scale are made up."
    return f"{bars} Hollow markers: printed values, at their own training sizes."


def draw(project, figure: dict):
    """Learning curves on logarithmic axes, a panel per unit; printed values as hollow markers.

    Curves of another architecture or method than the first one's are drawn in black.
    """
    chosen = options(figure, OPTIONS)
    data = points(project, figure)
    units = list(data[data["mae"].notna()]["unit"].unique())
    most = int(data.groupby("unit")["label"].nunique().max()) if units else 0
    beside = most > INSIDE
    width, height = (7.5, max(3.5, 0.2 * most)) if beside else (4.8, 3.5)
    picture, axes = style.panels(len(units), columns=2, width=width, height=height)
    for ax, unit in zip(axes, units, strict=False):
        _panel(ax, data[data["unit"] == unit], data["model"].iloc[0], project.made_up)
        outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if beside else {}
        ax.legend(handlelength=3.5, labelspacing=0.6, fontsize=8, **outside)
        ax.set_xlabel(chosen["x_label"])
        ax.set_ylabel(f"{chosen['y_label']} / {style.unit_text(unit)}")
    return picture, data.to_csv(index=False)


def _panel(ax, data: pd.DataFrame, usual: str, made_up: bool):
    """The curves of one unit.

    Args:
        data: their points.
        usual: the model whose curves are coloured.
        made_up: whether the data are, so that printed values have no place beside them.
    """
    ticks = set(data[data["mae"].notna()]["n_train"].astype(int))
    hollow = None
    for k, (_, curve) in enumerate(data.groupby(["experiment", "curve"], sort=False)):
        look = style.line(k) if curve["model"].iloc[0] == usual else dict(style.REFERENCE)
        there = curve[curve["mae"].notna()].sort_values("n_train")
        label = curve["label"].iloc[0] if len(there) else None
        ax.plot(there["n_train"], there["mae"], label=label, ms=5, **look)
        several = there[there["standard_error"].notna()]
        bars = {"fmt": "none", "ecolor": look["color"], "capsize": 2}
        if len(several):
            ax.errorbar(several["n_train"], several["mae"], several["standard_error"], **bars)
        printed = curve[curve["printed"].notna()]
        if len(printed) and not made_up:
            look = {"marker": look["marker"], "mec": look["color"], "mfc": "none", "ls": "none"}
            ax.plot(printed["paper_n"], printed["printed"], ms=8, **look)
            ticks |= set(printed["paper_n"].astype(int))
            hollow = {**look, "mec": style.GREY, "marker": "o", "ms": 8}
    if hollow:
        ax.plot([], [], label="printed", **hollow)
    ax.set(xscale="log", yscale="log")
    style.log_axis(ax.yaxis)
    ax.set_xticks(sorted(ticks), [f"{n:,}" for n in sorted(ticks)])
    ax.xaxis.minorticks_off()
