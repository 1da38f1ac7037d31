"""Learning curves over training-set size, and training curves over steps."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib import ticker

from schnet.files import read_yaml
from schnet.tables import entries


def learning_curves(project):
    """Fig. 3: mean absolute error of U0 predictions on QM9 against the number of training molecules, for T
    interaction blocks. Hollow markers: the values printed in the paper (at its own, larger training sets)."""
    from schnet.figures import COLOURS as colours
    from schnet.figures import MARKERS as markers
    from schnet.figures import log_axis

    experiment = project.experiments["figure_3"]
    rows = []
    for e in entries(project, "figure_3"):
        n = [read_yaml(project.results / "runs" / r / "run.yaml")["result"]["n_train"] for r in e.runs]
        rows.append(
            {
                "T": e.column.removeprefix("T"),
                "paper_n": int(e.row.removeprefix("n")),
                "n_train": n[0] if n else None,
                "mae_eV": e.measured,
                "standard_error_eV": e.error,
                "printed_eV": e.printed,
            }
        )
    data = pd.DataFrame(rows)
    figure, ax = plt.subplots(figsize=(4.6, 3.4))
    at_scale = data["n_train"].dropna().astype(int).tolist() == data.loc[data["n_train"].notna(), "paper_n"].tolist()
    for k, column in enumerate(experiment["columns"]):
        part = data[(data["T"] == str(column["value"])) & data["mae_eV"].notna()].sort_values("n_train")
        ax.errorbar(
            part["n_train"],
            part["mae_eV"],
            part["standard_error_eV"].fillna(0),
            label=f"T = {column['value']}",
            color=colours[k],
            marker=markers[k],
            capsize=2,
            ls=["-", "--", "-.", ":"][k % 4],
        )
        printed = data[(data["T"] == str(column["value"])) & data["printed_eV"].notna()]
        if at_scale and len(printed):
            ax.plot(printed["paper_n"], printed["printed_eV"], color=colours[k], marker=markers[k], mfc="none", ls="none", ms=9)
    ax.set(xscale="log", yscale="log", xlabel="training molecules N", ylabel="MAE of U0 / eV")
    log_axis(ax.yaxis)
    ticks = sorted(data["n_train"].dropna().astype(int).unique())
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.xaxis.minorticks_off()
    ax.legend()
    return figure, data.to_csv(index=False)


def training_curves(project):
    """Validation loss during training, one panel per data set and target, one line per run."""
    from schnet.figures import COLOURS as colours
    from schnet.figures import log_axis

    runs = sorted({r for name in project.experiments for r in project.runs_of(name)})
    panels: dict[str, list] = {}
    for run in runs:
        path = project.results / "runs" / run / "history.csv"
        if path.exists():
            panels.setdefault("/".join(run.split("/")[:2]), []).append((run, pd.read_csv(path)))
    columns = 4
    count = max(1, len(panels))
    figure, axes = plt.subplots(
        math.ceil(count / columns), columns, figsize=(11, 2.0 * math.ceil(count / columns)), squeeze=False, layout="constrained"
    )
    frames = []
    for ax, (title, histories) in zip(axes.flat, sorted(panels.items()), strict=False):
        for k, (run, history) in enumerate(histories):
            key = "ema_loss" if "ema_loss" in history else "raw_loss"
            ax.plot(history["step"], history[key], color=colours[k % len(colours)], lw=1, ls=["-", "--", ":"][(k // len(colours)) % 3])
            frames.append(history.assign(run=run))
        ax.set_yscale("log")
        log_axis(ax.yaxis)
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: f"{v:,.0f}"))
        ax.set_title(title.replace("materials_project/formation_energy_per_atom", "Materials Project"), fontsize=7)
        ax.tick_params(labelsize=6, which="both")
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel("validation loss", fontsize=8)
    return figure, pd.concat(frames).to_csv(index=False) if frames else "run,step\n"
