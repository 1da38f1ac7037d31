"""Predicted against true values, one panel per data set and target."""

from __future__ import annotations

import numpy as np
import pandas as pd

from schnet.figures import style
from schnet.figures.results import options, predictions, runs_of, task, task_title
from schnet.run import Run

READS = ("predictions_file",)
#: residuals_below: where the root mean square error is a smaller part of the range of the true
#: values, residuals are drawn
OPTIONS = {"residuals_below": 0.02, "points": 2000, "columns": 5, "labels": {}}


def uses(run: Run) -> bool:
    """Networks: a table's other methods are there to compare with."""
    return run.settings.method == "neural"


def _shown(runs: list[Run]) -> dict[tuple, Run]:
    """By data set and what was learned: the first repeat with the largest training set."""
    best: dict[tuple, Run] = {}
    for run in runs:
        if run.repeat or not run.predictions_file.exists():
            continue
        other = best.get(task(run))
        if other is None or run.n_train > other.n_train:
            best[task(run)] = run
    return best


def note(project, figure: dict) -> str:
    """How many structures are drawn, and where residuals take the place of predictions."""
    chosen = options(figure, OPTIONS)
    return (
        f"At most {chosen['points']:,} structures per panel. Green: residuals, where the root mean "
        f"square error is below {100 * chosen['residuals_below']:g} % of the range of true values."
    )


def draw(project, figure: dict):
    """Predicted against true values, or residuals where the range would hide the errors.

    True values far from zero are drawn from their mean.
    """
    chosen = options(figure, OPTIONS)
    runs = _shown([run for run in runs_of(project, figure) if uses(run)])
    columns = chosen["columns"]
    picture, axes = style.panels(len(runs), columns=columns, width=2.3, height=2.2)
    frames = []
    for ax, (key, run) in zip(axes, runs.items(), strict=False):
        p = predictions(run)
        if p is None:
            style.empty(ax, "no test part")
            continue
        frames.append(panel(ax, p, chosen).assign(run=run.path))
        ax.set_title(task_title(key, chosen["labels"]), fontsize=7)
        ax.tick_params(labelsize=6)
    csv_text = pd.concat(frames).to_csv(index=False) if frames else "run\n"
    return picture, csv_text


def panel(ax, p, chosen: dict) -> pd.DataFrame:
    """Draw predictions in one panel; returns its points.

    Args:
        ax: of matplotlib.
        p: the predictions.
        chosen: ``OPTIONS``.
    """
    random = np.random.default_rng(0)
    shown = random.permutation(len(p.true))[: chosen["points"]]
    residual = p.predicted - p.true
    spread = float(np.ptp(p.true))
    centre = 0.0
    if abs(p.true.mean()) > 3 * spread:
        centre = float(p.true.mean())
    error = float(np.sqrt((residual**2).mean()))
    kind = "residual" if error < chosen["residuals_below"] * spread else "predicted"
    x = p.true[shown] - centre
    unit = style.unit_text(p.unit)
    points = {"ls": "none", "marker": ".", "ms": 2, "rasterized": True}
    if kind == "residual":
        ax.plot(x, residual[shown], color=style.COLOURS[2], **points)
        ax.axhline(0, color=style.COLOURS[1], lw=0.8)
        ax.set_ylabel(f"predicted − true / {unit}", fontsize=6)
    else:
        ax.plot(x, p.predicted[shown] - centre, color=style.COLOURS[0], **points)
        ends = np.array([p.true.min(), p.true.max()]) - centre
        ax.plot(ends, ends, color=style.COLOURS[1], lw=0.8)
        ax.set_ylabel(("predicted − mean" if centre else "predicted") + f" / {unit}", fontsize=6)
    ax.set_xlabel(("true − mean" if centre else "true") + f" / {unit}", fontsize=6)
    values = {"true": p.true[shown], "predicted": p.predicted[shown]}
    return pd.DataFrame({"unit": p.unit, "part": p.part, "drawn": kind} | values)
