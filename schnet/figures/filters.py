"""Cuts through learned filters: the same filters in every row, other boundary conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from schnet.figures import style
from schnet.figures.results import options, runs_of
from schnet.run import Run

READS = ("model_file",)
#: features: how many columns; block: which interaction block, from 1; size: of the cuts in Å
OPTIONS = {"features": 6, "block": 1, "size": 5.0, "points": 101}
ALIKE = 0.8  # correlation, of either sign, above which two filters look the same
ROWS = ("single atom, no boundaries", "diamond, cubic cell", "graphite, hexagonal cell")


def uses(run: Run) -> bool:
    """SchNets with a cutoff: sums over periodic images end."""
    settings = run.settings
    if settings.method != "neural" or settings.architecture != "schnet":
        return False
    return settings.model.get("cutoff") is not None


def choose(runs: list[Run]) -> list[Run]:
    """The first repeat with the largest training set."""
    return sorted(runs, key=lambda run: (-run.n_train, run.repeat))[:1]


def note(project, figure: dict) -> str:
    """Which filters are shown, and what a cell does to them."""
    chosen = options(figure, OPTIONS)
    return (
        f"Columns: the {chosen['features']} features of interaction block {chosen['block']} whose "
        "filters vary most over the cut of a single atom, none of which is correlated by more "
        f"than {ALIKE:g} with one before it. Every panel has its own colour scale."
    )


def most_varying(cut: np.ndarray, count: int) -> np.ndarray:
    """Features with large variance over a cut [n, n, F], in descending order of it.

    One that is correlated by more than ALIKE with one before it is left out.
    """
    values = cut.reshape(-1, cut.shape[2])
    deviations = values - values.mean(0)
    spread = np.linalg.norm(deviations, axis=0)
    directions = deviations / np.maximum(spread, 1e-30)
    found: list[int] = []
    for feature in np.argsort(-spread, kind="stable"):
        alike = np.abs(directions[:, found].T @ directions[:, feature])
        if len(found) < count and alike.max(initial=0) <= ALIKE:
            found.append(int(feature))
    return np.array(found)


def cuts(model, chosen: dict) -> tuple[list[np.ndarray], np.ndarray]:
    """A cut [n, n, features] for every row of the figure, and which features they are."""
    from schnet.analysis.filters import filter_cut
    from schnet.analysis.structures import diamond, graphite

    cells = [None, diamond().cell.array, graphite().cell.array]
    shape = {"size": chosen["size"], "points": chosen["points"], "block": chosen["block"] - 1}
    rows = [filter_cut(model, cell=cell, **shape) for cell in cells]
    features = most_varying(rows[0], chosen["features"])
    return [row[:, :, features] for row in rows], features


def draw(project, figure: dict):
    """Filters around an atom in the middle, W(r) in the plane z = 0 (Sec. II D 2)."""
    from schnet.models import load_model

    chosen = options(figure, OPTIONS)
    runs = choose([r for r in runs_of(project, figure) if uses(r) and r.model_file.exists()])
    if not runs:
        picture, _ = style.panels(0, columns=1, width=5.6, height=3.0)
        return picture, "cell,feature\n"
    rows, features = cuts(load_model(runs[0].model_file), chosen)
    size = (1.25 * len(features) + 0.6, 1.25 * len(rows) + 0.4)
    picture, axes = style.grid(len(rows), len(features), size)
    half = chosen["size"] / 2
    for of_row, row, label in zip(axes, rows, ROWS, strict=True):
        for k, ax in enumerate(of_row):
            ax.imshow(
                row[:, :, k], extent=(-half, half, -half, half), origin="lower",
                cmap="viridis", interpolation="bilinear",
            )  # fmt: skip
            ax.set(xticks=[], yticks=[])
        of_row[0].set_ylabel(label.replace(", ", "\n"), fontsize=8)
    for k, feature in enumerate(features):
        axes[0, k].set_title(f"feature {feature + 1}", fontsize=8)
    return picture, _table(rows, features, chosen).assign(run=runs[0].path).to_csv(index=False)


def _table(rows, features, chosen: dict) -> pd.DataFrame:
    """Profiles along x through the middle (y = z = 0), and the range over the whole cut."""
    middle = chosen["points"] // 2
    x = np.linspace(-chosen["size"] / 2, chosen["size"] / 2, chosen["points"]).round(4)
    parts = []
    for label, row in zip(ROWS, rows, strict=True):
        for k, feature in enumerate(features):
            about = {"cell": label, "feature": feature + 1}
            ends = {"smallest": row[:, :, k].min(), "largest": row[:, :, k].max()}
            parts.append(pd.DataFrame(about | {"x": x, "filter": row[middle, :, k]} | ends))
    return pd.concat(parts)
