"""Distributions of distances in molecular dynamics, classical and with beads (Figs. 8, 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from schnet.errors import ConfigError
from schnet.figures import style
from schnet.figures.results import options

if TYPE_CHECKING:
    from schnet.project import Project
    from schnet.project.simulations import Simulation
    from schnet.simulation.observables import Frames

DRAWS = "pimd"
OPTIONS = {
    # numbers of beads; of each the nearest that was simulated; empty: all
    "beads": [],
    "show": ("all", "pairs"),
    # nearest neighbours of an atom that count as such: the bonds of an atom in C20
    "neighbours": 3,
    "bins": 100,
}
PANELS = {
    "nearest": "nearest neighbours",
    "diameter": "diameter",
    "pairs": "pairs, h(r)",
}


def _jobs(project: Project, figure: dict, wanted: list[int]) -> list[Simulation]:
    """The finished simulations of a figure, by number of beads."""
    jobs = {job.settings["beads"]: job for job in project.simulations[figure["simulation"]]}
    if wanted:
        nearest = {min(jobs, key=lambda p: abs(np.log(p / w))) for w in wanted if jobs}
        jobs = {p: jobs[p] for p in jobs if p in nearest}
    return [jobs[p] for p in sorted(jobs) if jobs[p].result.exists()]


def _label(beads: int) -> str:
    return "classical" if beads == 1 else f"{beads} beads"


def _values(frames: Frames, neighbours: int) -> dict[str, np.ndarray]:
    """Distances in Å by panel, time first."""
    from schnet.simulation.observables import diameters, nearest_neighbours, pair_distances

    return {
        "nearest": nearest_neighbours(frames.positions, neighbours),
        "diameter": diameters(frames.positions),
        "pairs": pair_distances(frames.positions),
    }


def _edges(series: list[np.ndarray], bins: int) -> np.ndarray:
    low, high = min(v.min() for v in series), max(v.max() for v in series)
    return np.linspace(low, high, bins + 1)


def _longer_bonds(tables: dict[int, pd.DataFrame], beads: int) -> str:
    """What the beads do to the distance of neighbours, beside what the paper says of it."""
    one, many = (tables[p].set_index("observable").loc["nearest neighbour"] for p in (1, beads))
    change = 100 * (many["mean"] / one["mean"] - 1)
    error = 100 * np.hypot(one["error"], many["error"]) / one["mean"]
    return (
        f"nearest neighbours with {beads} beads: {change:+.3f} ± {error:.3f} % "
        "(paper: longer by less than 0.5 %)"
    )


def _asymmetry(values: np.ndarray, beads: int) -> str:
    """Whether the distances of neighbours are distributed symmetrically."""
    from schnet.simulation.observables import skewness

    skew, error = skewness(values)
    return (
        f"skewness of the nearest neighbours with {beads} beads: {skew:+.3f} ± {error:.3f} "
        "(paper: not symmetric)"
    )


def _convergence(densities: dict[int, pd.DataFrame]) -> str:
    """How far h(r) of fewer beads is from that of most beads."""
    from schnet.simulation.observables import difference

    *fewer, most = sorted(densities)
    shares = (difference(densities[p], densities[most]) for p in fewer)
    texts = [
        f"{_label(p)} {100 * share:.2f} ({100 * noise:.2f})"
        for p, (share, noise) in zip(fewer, shares, strict=True)
    ]
    return (
        f"% of h(r) that lies elsewhere than with {most} beads (expected of noise alone):\n"
        + ", ".join(texts)
        + " (paper: converged at 8)"
    )


def _lengths(tables: dict[int, pd.DataFrame]) -> list[str]:
    lines = []
    for p, table in tables.items():
        temperature = table.set_index("observable").loc["temperature"]
        lines.append(
            f"{_label(p)}: {temperature['mean']:.1f} ± {temperature['error']:.1f} K, "
            f"{table.attrs['frames']:,} frames of {table.attrs['picoseconds']:g} ps"
        )
    return lines


def _statement(shown: list[str], tables: dict, measured: dict, densities: dict) -> str:
    """What is measured, beside what the paper says of it.

    Args:
        shown: names of the panels.
        tables, measured, densities: by number of beads: from ``observables``, distances by panel,
            from ``distribution`` of the pairs.
    """
    lines = []
    most = max(tables)
    if "nearest" in shown:
        if 1 in tables and most > 1:
            lines.append(_longer_bonds(tables, most))
        lines.append(_asymmetry(measured[most]["nearest"], most))
    elif len(tables) > 1:
        lines.append(_convergence(densities))
    return "\n".join(lines + _lengths(tables))


def draw(project: Project, figure: dict):
    """Densities with standard errors (shaded), one curve for each number of beads."""
    from schnet.simulation.observables import distribution, observables, read_frames

    chosen = options(figure, OPTIONS)
    jobs = _jobs(project, figure, chosen["beads"])
    columns = ["distribution", "beads", "r", "density", "error"]
    if not jobs:
        picture, _ = style.panels(0, columns=1, width=5.6, height=4.2)
        return picture, ",".join(columns) + "\n"
    shown = list(PANELS) if chosen["show"] == "all" else ["pairs"]
    measured, tables = {}, {}
    for job in jobs:
        frames = read_frames(job.folder)
        p = job.settings["beads"]
        tables[p] = observables(frames, neighbours=chosen["neighbours"])
        kept = frames.equilibrated()
        time = kept.log["time_ps"]
        tables[p].attrs["picoseconds"] = float(round(time.iloc[-1] - time.iloc[0], 3))
        measured[p] = _values(kept, chosen["neighbours"])
    picture, axes = style.panels(len(shown), columns=3, width=3.3, height=2.9)
    rows, pairs = [], {}
    for ax, name in zip(axes, shown, strict=True):
        edges = _edges([values[name] for values in measured.values()], chosen["bins"])
        for k, (p, values) in enumerate(measured.items()):
            data = distribution(values[name], edges)
            rows.append(data.assign(distribution=name, beads=p))
            if name == "pairs":
                pairs[p] = data
            look = {key: style.line(k)[key] for key in ("color", "linestyle")}
            ax.plot(data["r"], data["density"], label=_label(p), lw=1.2, **look)
            low, high = data["density"] - data["error"], data["density"] + data["error"]
            ax.fill_between(data["r"], low, high, color=look["color"], alpha=0.25, lw=0)
        ax.set_title(PANELS[name])
        ax.set_xlabel("r / Å")
        ax.set_ylim(0)
    axes[0].set_ylabel("density / Å$^{-1}$")
    axes[0].legend(fontsize=7.5)
    statement = _statement(shown, tables, measured, pairs)
    picture.supxlabel(statement, fontsize=7, ha="left", x=0.01)
    return picture, pd.concat(rows)[columns].to_csv(index=False)


def check(chosen: dict, where: str) -> None:
    """Raise ConfigError where numbers of beads are none."""
    for beads in chosen["beads"]:
        if not isinstance(beads, int) or beads < 1:
            raise ConfigError(f"{where}: beads: {beads!r} is not a whole number from 1")
