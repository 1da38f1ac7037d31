"""Spread of committees against their true error, one panel per cell of a table with a committee."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from schnet.committee import Committee, read_committee
from schnet.figures import style
from schnet.figures.results import experiments_of, options
from schnet.units import factor

if TYPE_CHECKING:
    from schnet.project import Cell, Project

READS = ("predictions_file", "metrics_file")
#: bins: of equally many predictions
OPTIONS: dict = {"bins": 10, "columns": 2, "labels": {}}


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


def binned(spread: np.ndarray, error: np.ndarray, bins: int) -> pd.DataFrame:
    """Predictions in order of their spread, in bins of equally many.

    Args:
        spread, error: [M], in one unit.
        bins: how many; as many as there are predictions, if these are fewer.

    Returns:
        One row per bin: n, and the root mean squares spread and error.
    """
    order = np.argsort(spread, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    rows = [{"n": len(k), "spread": rms(spread[k]), "error": rms(error[k])} for k in parts]
    return pd.DataFrame(rows)


def scalars(spread: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """How well spread tells error, [M] each.

    Returns:
        ratio: root mean square error over root mean square spread; 1: calibrated on the whole.
        rank_correlation: Spearman's, of spread and absolute error. Both nan without any spread.
    """
    from scipy.stats import spearmanr

    if np.ptp(spread) == 0:
        return {"ratio": float("nan"), "rank_correlation": float("nan")}
    correlation = float(spearmanr(spread, np.abs(error)).statistic)
    return {"ratio": rms(error) / rms(spread), "rank_correlation": correlation}


def note(project: Project, figure: dict) -> str:
    """How many members there are, and what the numbers in the panels mean."""
    members = project.scale.get("committee")
    if members is None:
        return f"The scale {project.config['scale']} has no committees."
    bins = options(figure, OPTIONS)["bins"]
    return (
        f"Committees of {members} models that differ in seed alone. Spread: sample standard "
        "deviation of their predictions; error: of the mean prediction. Points: root mean squares "
        f"in {bins} bins of equally many predictions. Ratio: root mean square error over root mean "
        "square spread of all of them; above 1 the spread promises too much. r: Spearman's rank "
        "correlation of spread and absolute error."
    )


def _cells(project: Project, figure: dict) -> list[tuple[str, str, Cell]]:
    """(experiment, label of the row, cell) of every committee."""
    found = []
    for name in experiments_of(project, figure):
        labels = {row["key"]: row["label"] for row in project.experiments[name]["rows"]}
        for cell in project.cells[name]:
            if cell.committee == "mean":
                found.append((name, labels[cell.row], cell))
    return found


def _committee(cell: Cell) -> Committee | None:
    """The committee of a cell, or None while members are missing."""
    if not cell.runs:
        return None
    if not all(r.predictions_file.exists() and r.metrics_file.exists() for r in cell.runs):
        return None
    return read_committee(cell.runs, cell.part, cell.quantity)


def draw(project: Project, figure: dict):
    """Error over spread on logarithmic axes, with the line on which they are equal."""
    chosen = options(figure, OPTIONS)
    cells = [(*named, _committee(named[-1])) for named in _cells(project, figure)]
    complete = [named for named in cells if named[-1] is not None]
    cells = complete or cells  # no page of empty panels beside the first committee
    columns = chosen["columns"]
    picture, axes = style.panels(len(cells), columns=columns, width=3.4, height=3.2)
    frames = []
    for ax, (name, label, cell, committee) in zip(axes, cells, strict=False):
        title = f"{chosen['labels'].get(cell.row, label)}, {cell.quantity}"
        ax.set_title(title, fontsize=9)
        what = {"experiment": name, "row": cell.row, "column": cell.column}
        if committee is None:
            style.empty(ax, "not all members are there")
            frames.append(pd.DataFrame([what | {"quantity": cell.quantity}]))
            continue
        frames.append(_panel(ax, committee, cell, chosen["bins"]).assign(**what))
    csv_text = pd.concat(frames).to_csv(index=False) if frames else "experiment\n"
    return picture, csv_text


def _panel(ax, committee: Committee, cell: Cell, bins: int) -> pd.DataFrame:
    """Draw one committee; returns its bins."""
    unit = cell.unit or committee.unit
    scale = factor(committee.unit, unit)
    spread, error = scale * committee.spread, scale * committee.error
    numbers = scalars(spread, error)
    table = binned(spread, error, bins)
    shown = table[(table["spread"] > 0) & (table["error"] > 0)]
    if shown.empty:
        style.empty(ax, "the members do not differ")
    else:
        _points(ax, shown, numbers, style.unit_text(unit))
    table.insert(0, "bin", range(1, len(table) + 1))
    about = {"quantity": cell.quantity, "unit": unit, "members": committee.members} | numbers
    return pd.concat([table, pd.DataFrame([about] * len(table))], axis=1)


def _points(ax, shown: pd.DataFrame, numbers: dict[str, float], unit: str):
    """Points, the line of equality through one range of both axes, and the numbers."""
    look = style.line(0) | {"ms": 4, "lw": 1}
    ax.plot(shown["spread"], shown["error"], **look)
    values = shown[["spread", "error"]].to_numpy()
    ends = values.min() / 1.3, values.max() * 1.3
    ax.plot(ends, ends, color=style.GREY, lw=0.8, ls="--")
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends, box_aspect=1)
    ax.set_xlabel(f"spread / {unit}")
    ax.set_ylabel(f"error / {unit}")
    text = f"ratio {numbers['ratio']:.2f}\nr = {numbers['rank_correlation']:.2f}"
    ax.text(0.97, 0.03, text, ha="right", va="bottom", fontsize=8, transform=ax.transAxes)
    for axis in (ax.xaxis, ax.yaxis):
        style.log_axis(axis)
    ax.tick_params(labelsize=6)
