"""Distributions of energies, and of force components per axis, one pair of panels per data set."""

from __future__ import annotations

import numpy as np
import pandas as pd

from schnet.data.describe import (
    SAMPLE,
    Distribution,
    distribution,
    draw_distribution,
    full_title,
)
from schnet.data.store import Store
from schnet.figures import style
from schnet.figures.results import DATA, left_out, options, stores

DRAWS = DATA
#: pairs: data sets side by side
OPTIONS = {"bins": 60, "pairs": 2, "labels": {}}
AXES = ("x", "y", "z")


def note(project, figure: dict) -> str:
    """What is drawn of large data sets, and what is left out."""
    return f"At most {SAMPLE:,} structures or atoms of each are drawn. {left_out(project, figure)}"


def energy_of(store: Store) -> str:
    """The first property that is a total energy, or else the first of all."""
    energies = (name for name, p in store.properties.items() if p.kind == "energy")
    return next(energies, next(iter(store.properties)))


def forces_of(store: Store) -> str | None:
    """The property that holds forces, or None."""
    return next((name for name, p in store.properties.items() if p.kind == "forces"), None)


def draw(project, figure: dict):
    """Energies left, forces right; CSV: one line per bin, with mean and deviation of all values."""
    chosen = options(figure, OPTIONS)
    there = stores(project, figure)
    count = 2 * len(there)
    columns = 2 * chosen["pairs"]
    picture, axes = style.panels(count, columns=columns, width=2.4, height=1.9)
    frames = []
    for k, (name, store) in enumerate(there.items()):
        title = full_title(store, chosen["labels"].get(name), "\n")
        frames += _pair(axes[2 * k], axes[2 * k + 1], name, store, chosen["bins"])
        axes[2 * k].set_title(title, fontsize=6)
    columns_text = "dataset,property,axis,low,high,count,unit,mean,standard_deviation\n"
    return picture, pd.concat(frames).to_csv(index=False) if frames else columns_text


def _pair(left, right, name: str, store: Store, bins: int) -> list[pd.DataFrame]:
    """Draw the two panels of a data set; returns their data."""
    energy, forces = energy_of(store), forces_of(store)
    with store.open() as h5:
        found = {"": distribution(h5[f"properties/{energy}"])}
        frames = _histogram(left, name, store, energy, found, bins)
        if forces is None:
            style.empty(right, "no forces")
            return frames
        dataset = h5[f"properties/{forces}"]
        along = {axis: distribution(dataset, k) for k, axis in enumerate(AXES)}
    return frames + _histogram(right, name, store, forces, along, bins)


def _histogram(
    ax, name: str, store: Store, key: str, found: dict[str, Distribution], bins: int
) -> list[pd.DataFrame]:
    """Draw the distributions of a property; returns their data, one table per axis."""
    unit = store.properties[key].unit
    label = key.replace("_", " ")
    edges, *counts = draw_distribution(ax, found, label, style.unit_text(unit), bins)
    frames = []
    for (axis, d), number in zip(found.items(), counts, strict=True):
        bins_of_axis = {"low": edges[:-1], "high": edges[1:], "count": np.asarray(number)}
        of_all = {"unit": unit, "mean": d.mean, "standard_deviation": d.deviation}
        about = {"dataset": name, "property": key, "axis": axis}
        frames.append(pd.DataFrame(about | bins_of_axis | of_all))
    return frames
