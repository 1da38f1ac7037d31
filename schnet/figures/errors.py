"""Distributions of test errors."""

from __future__ import annotations

import math

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd


def _test_predictions(project, run: str, part: str = "test"):
    """(true, predicted, unit) of a run's test part, or None while it is missing."""
    path = project.results / "runs" / run / "predictions.h5"
    if not path.exists():
        return None
    with h5py.File(path, "r") as h5:
        if part not in h5:
            part = next(p for p in h5 if p.startswith("test"))
        return h5[part]["true"][:], h5[part]["predicted"][:], str(h5[part].attrs["unit"])


def _histograms(project, panels):
    """One panel of a log histogram per (title, runs): all test errors of all repeats."""
    from schnet.figures import COLOURS, log_axis

    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns + 0.5, 1.9 * rows + 0.3), squeeze=False, layout="constrained")
    frames = []
    for ax, (title, runs) in zip(axes.flat, panels, strict=False):
        found = [p for p in (_test_predictions(project, r) for r in runs) if p is not None]
        if not found:
            ax.text(0.5, 0.5, "no run", ha="center", transform=ax.transAxes)
            ax.set_title(title, fontsize=8)
            continue
        error = np.abs(np.concatenate([p - t for t, p, _ in found]))
        counts, edges = np.histogram(error, bins=50)
        ax.stairs(np.maximum(counts, 0.5), edges, fill=True, color=COLOURS[0], baseline=0.5)
        ax.set_yscale("log")
        log_axis(ax.yaxis)
        ax.set_ylim(0.5, None)
        ax.set_title(f"{title} / {found[0][2]}", fontsize=8)
        ax.axvline(error.mean(), color=COLOURS[1], lw=1, ls="--")
        ax.tick_params(labelsize=6)
        frames.append(pd.DataFrame({"panel": title, "unit": found[0][2], "from": edges[:-1], "to": edges[1:], "count": counts}))
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel("absolute error (dashed: mean)", fontsize=8)
    figure.supylabel("test structures", fontsize=8)
    return figure, pd.concat(frames).to_csv(index=False) if frames else "panel\n"


def qm9_histograms(project):
    """Fig. 9: absolute test errors of all properties of QM9, all repeats, on a logarithmic scale."""
    experiment = project.experiments["table_1"]
    cells = {c.row: c.runs for c in project.cells["table_1"]}
    return _histograms(project, [(r["label"], cells[r["key"]]) for r in experiment["rows"] if not r.get("extension")])


def crystal_histogram(project):
    """Fig. 10: absolute test errors of formation energies per atom of crystals, all repeats, on a logarithmic scale."""
    panels = [(f"N = {c.runs[0].split('/')[3].removeprefix('n')}", c.runs) for c in project.cells["table_2"] if c.runs]
    return _histograms(project, panels or [("formation energy", [])])


def predicted_true(project):
    """Predicted against true values of the test structures, one panel per data set and target (first repeat, largest N)."""
    from schnet.figures import COLOURS

    best: dict[str, str] = {}
    for name in project.experiments:
        for run in project.runs_of(name):
            key = "/".join(run.split("/")[:2])
            if run.endswith("rep0") and (project.results / "runs" / run / "predictions.h5").exists():
                size = int(run.split("/")[3].split("-")[0].removeprefix("n"))
                if key not in best or size > int(best[key].split("/")[3].split("-")[0].removeprefix("n")):
                    best[key] = run
    columns = 5
    rows = math.ceil(max(1, len(best)) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 2.1 * rows), squeeze=False, layout="constrained")
    frames = []
    for ax, (key, run) in zip(axes.flat, sorted(best.items()), strict=False):
        true, predicted, unit = _test_predictions(project, run)
        shown = np.random.default_rng(0).permutation(len(true))[:2000]
        centre = true.mean() if "energy" in key or key.split("/")[1] in ("U0", "U", "H", "G") else 0.0
        ax.plot(true[shown] - centre, predicted[shown] - centre, ".", ms=2, color=COLOURS[0], rasterized=True)
        lo, hi = true.min() - centre, true.max() - centre
        ax.plot([lo, hi], [lo, hi], color=COLOURS[1], lw=0.8)
        title = (
            key.replace("materials_project/formation_energy_per_atom", "Materials Project").replace("md17_", "").replace("/", ", ").replace("_", " ")
        )
        ax.set_title(f"{title} / {unit}", fontsize=6)
        ax.tick_params(labelsize=6)
        frames.append(pd.DataFrame({"run": run, "unit": unit, "true": true[shown], "predicted": predicted[shown]}))
    for ax in list(axes.flat)[len(best) :]:
        ax.set_visible(False)
    figure.supxlabel("true (total energies: from their mean)", fontsize=8)
    figure.supylabel("predicted", fontsize=8)
    return figure, pd.concat(frames).to_csv(index=False) if frames else "run\n"
