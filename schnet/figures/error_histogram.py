"""Histograms of absolute test errors, one panel per row or column of an experiment."""

from __future__ import annotations

import numpy as np
import pandas as pd

from schnet.figures import style
from schnet.figures.results import experiments_of, options, predictions
from schnet.units import factor

READS = ("predictions_file", "metrics_file")
#: panel: what titles a panel; rows, models: keys of the rows and columns that are drawn, all where
#: none is named; extensions: whether rows beyond the paper are drawn
OPTIONS = {
    "panel": ("row", "column"),
    "rows": [],
    "models": [],
    "labels": {},
    "bins": 40,
    "columns": 4,
    "extensions": False,
}
#: this share of the errors, the smallest, lies in the first bin, which begins at 0
IN_FIRST_BIN = 0.01


def histogram(error: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of absolute errors in logarithmic bins.

    The first bin begins at 0: it holds whatever is smaller than its upper edge.

    Args:
        error: absolute errors [M].
        bins: how many.

    Returns:
        Counts [bins] and edges [bins + 1], the first edge 0.
    """
    largest = max(float(error.max()), np.finfo(float).tiny)
    low = float(np.quantile(error, IN_FIRST_BIN))
    if low <= 1e-9 * largest:
        low = 1e-6 * largest
    if low >= largest:
        low = 0.5 * largest
    edges = np.concatenate([[0.0], np.geomspace(low, largest, bins)])
    edges[-1] = largest  # geomspace may end a rounding error below it
    return np.histogram(error, edges)[0], edges


def _is_chosen(cell, chosen: dict) -> bool:
    """Whether the options name a cell's row and column, or none."""
    row = not chosen["rows"] or cell.row in chosen["rows"]
    return row and (not chosen["models"] or cell.column in chosen["models"])


def _panels(project, figure: dict) -> list[tuple[str, list]]:
    """(title, cells) of every panel."""
    chosen = options(figure, OPTIONS)
    found: dict[tuple, list] = {}
    titles = {}
    for name in experiments_of(project, figure):
        experiment = project.experiments[name]
        entries = {entry["key"]: entry for entry in experiment[f"{chosen['panel']}s"]}
        extensions = {row["key"] for row in experiment["rows"] if row.get("extension")}
        for cell in project.cells[name]:
            if cell.row in extensions and not chosen["extensions"]:
                continue
            if not _is_chosen(cell, chosen):
                continue
            if not cell.runs or cell.quantity != cell.runs[0].settings.target:
                continue  # predictions of atoms (forces) are no errors of structures
            key = getattr(cell, chosen["panel"])
            titles[name, key] = chosen["labels"].get(key, entries[key]["label"])
            found.setdefault((name, key), []).append(cell)
    return [(titles[key], cells) for key, cells in found.items()]


def _errors(cells: list) -> tuple[np.ndarray, str, tuple[str, float] | None]:
    """All absolute test errors of a panel, their unit, and id and error of the worst structure."""
    errors, unit, worst = [], "", None
    seen = set()
    for cell in cells:
        for run in cell.runs:
            p = predictions(run, cell.part)
            if p is None or (run.path, p.part) in seen:
                continue
            seen.add((run.path, p.part))
            unit = cell.unit or p.unit
            scale = factor(p.unit, unit)
            errors.append(np.abs(p.predicted - p.true) * scale)
            metrics = run.metrics() or {"parts": {}}
            measured = metrics["parts"].get(p.part, {}).get(run.settings.target, {})
            for entry in measured.get("largest", [])[:1]:
                if worst is None or abs(entry["error"]) * scale > worst[1]:
                    worst = (entry["id"], abs(entry["error"]) * scale)
    return np.concatenate(errors or [np.empty(0)]), unit, worst


def _panel(ax, title: str, cells: list, bins: int) -> pd.DataFrame | None:
    """Draw a panel; its bins and counts as a table, None where no run is there."""
    error, unit, worst = _errors(cells)
    unit_text = style.unit_text(unit)
    ax.set_title(f"{title} / {unit_text}" if unit else title, fontsize=8)
    if not len(error):
        style.empty(ax, "no run is there yet")
        return None
    counts, edges = histogram(error, bins)
    # on a logarithmic axis the first bin is drawn as wide as the others
    drawn = np.concatenate([[edges[1] ** 2 / edges[2]], edges[1:]])
    ax.stairs(counts, drawn, fill=True, color=style.COLOURS[0], baseline=0.5)
    ax.set(xscale="log", yscale="log", ylim=(0.5, 8 * counts.max()))
    ax.axvline(error.mean(), color=style.COLOURS[1], lw=1, ls="--")
    sizes = sorted({run.n_train for cell in cells for run in cell.runs})
    trained = " and ".join(f"{n:,}" for n in sizes)
    text = f"trained on {trained}"
    if worst:
        text += f"\nlargest: {worst[0]}\n{worst[1]:.3g} {unit_text}"
    ax.text(0.02, 0.98, text, fontsize=6, va="top", transform=ax.transAxes)
    style.log_axis(ax.xaxis)
    style.log_axis(ax.yaxis)
    ax.tick_params(labelsize=6)
    return pd.DataFrame(
        {
            "panel": title,
            "n_train": trained,
            "unit": unit,
            "from": edges[:-1],
            "to": edges[1:],
            "count": counts,
            "mean": error.mean(),
            "largest": error.max(),
            "largest_id": worst[0] if worst else None,
        }
    )


def draw(project, figure: dict):
    """Absolute test errors of all repeats, on logarithmic axes; the worst structure is named."""
    chosen = options(figure, OPTIONS)
    panels = _panels(project, figure)
    picture, axes = style.panels(len(panels), columns=chosen["columns"], width=2.6, height=2.1)
    tables = [
        _panel(ax, title, cells, chosen["bins"])
        for ax, (title, cells) in zip(axes, panels, strict=False)
    ]
    there = [table for table in tables if table is not None]
    picture.supxlabel("absolute error (dashed: mean)", fontsize=8)
    picture.supylabel("test structures", fontsize=8)
    return picture, pd.concat(there).to_csv(index=False) if there else "panel\n"
