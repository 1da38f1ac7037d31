"""Validation loss during training, one panel per data set and target, one line per run."""

from __future__ import annotations

import dataclasses
import math

import pandas as pd

from schnet.figures import style
from schnet.figures.results import options, runs_of, task, task_title
from schnet.models import hyperparameters_of
from schnet.run import Run

READS = ("history_file",)
OPTIONS = {"columns": 3, "labels": {}}
WIDTH, HEIGHT = 3.6, 2.3  # of a panel, in inches
MOST_LINES = 19  # of a legend; the CSV file names all
LINE = 0.05  # of a panel's height, that a line of the legend takes
ONE_COLUMN = 4  # lines of a legend that stand one above the other in any case
SHORT = 42  # characters of a name that leaves room for another beside it
SPREAD = 20  # where trainings differ in length by more, steps get a logarithmic axis
LONGEST = 70  # characters of a name; where settings take more, runs are named by their directories
#: what the panel or the repeat tells, or what never differs alone
NOT_NAMED = ("dataset", "target", "forces", "model", "seed", "split_seed", "repeat", "n_validation")
NAMES = {"n_train": "N", "rho": "ρ", "split_strategy": "", "architecture": "", "loss": ""}


def uses(run: Run) -> bool:
    """Only gradient steps leave a history."""
    return run.settings.method == "neural"


def _settings(run: Run) -> dict:
    """All settings that a line can be named by; hyper-parameters by their short names."""
    hyperparameters = hyperparameters_of(run.settings.architecture)
    short = hyperparameters.SHORT
    values = {k: v for k, v in run.settings.scientific().items() if k not in NOT_NAMED}
    for field in dataclasses.fields(hyperparameters):
        value = run.settings.model.get(field.name, field.default)
        values[short.get(field.name, field.name)] = value
    return values


def _differing(all_settings: list[dict]) -> list[str]:
    """The settings in which runs differ; those that an architecture tells do not count."""
    keys = list(dict.fromkeys(key for settings in all_settings for key in settings))
    architectures = dict.fromkeys(settings["architecture"] for settings in all_settings)
    found = []
    for key in keys:
        values: dict[str, set] = {architecture: set() for architecture in architectures}
        for settings in all_settings:
            if key in settings:
                values[settings["architecture"]].add(repr(settings[key]))
        if any(len(group) > 1 for group in values.values()):
            found.append(key)
    return ["architecture", *found] if len(architectures) > 1 else found


def line_names(runs: list[Run]) -> list[str]:
    """What tells each run from the others: the settings in which they differ; N for a single one.

    Where that gets too long, the name of the model's directory and N. Repeats have the same name.
    """
    all_settings = [_settings(run) for run in runs]
    shown = _differing(all_settings) or ["n_train"]
    names = []
    for settings in all_settings:
        present = [key for key in shown if settings.get(key) is not None]
        parts = [f"{NAMES.get(key, key)}={_text(settings[key])}" for key in present]
        names.append(", ".join(part.removeprefix("=") for part in parts))
    if max(map(len, names)) > LONGEST:
        return [f"{run.folder.parts[-3]}, N={run.n_train:,}" for run in runs]
    return names


def _text(value) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _panels(runs: list[Run]) -> dict[tuple, list[Run]]:
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        if uses(run) and run.history_file.exists():
            found.setdefault(task(run), []).append(run)
    return found


def draw(project, figure: dict):
    """Validation loss over steps, of the averaged weights where there are any, and its minimum."""
    chosen = options(figure, OPTIONS)
    panels = _panels(runs_of(project, figure))
    columns = chosen["columns"]
    picture, axes = style.panels(len(panels), columns=columns, width=WIDTH, height=HEIGHT)
    frames = []
    for ax, (key, runs) in zip(axes, panels.items(), strict=False):
        frames += panel(ax, runs)
        ax.set_title(task_title(key, chosen["labels"]), fontsize=7)
    if panels:
        picture.supxlabel("step", fontsize=8)
        picture.supylabel("validation loss (dot: its minimum)", fontsize=8)
    csv_text = pd.concat(frames).to_csv(index=False) if frames else "run,step\n"
    return picture, csv_text


def panel(ax, runs: list[Run]) -> list[pd.DataFrame]:
    """Draw the runs of one panel, repeats in one colour; returns their histories."""

    frames = []
    drawn: list[str] = []
    for run, name in zip(runs, line_names(runs), strict=True):
        history = pd.read_csv(run.history_file)
        frames.append(history.assign(run=run.path, line=name))
        if name not in drawn:
            drawn.append(name)
            label = name
        else:
            label = None
        loss = history["ema_loss" if "ema_loss" in history else "raw_loss"]
        look = {k: v for k, v in style.line(drawn.index(name)).items() if k != "marker"}
        ax.plot(history["step"], loss, lw=0.9, label=label, **look)
        lowest = int(loss.argmin())
        best = history["step"].iloc[lowest], loss.iloc[lowest]
        ax.plot(*best, ".", ms=4, color=look["color"])
    ax.set_yscale("log")
    style.log_axis(ax.yaxis)
    _step_axis(ax, [history["step"].iloc[-1] for history in frames])
    ax.tick_params(labelsize=6, which="both")
    _legend(ax, drawn)
    return frames


def _step_axis(ax, lengths: list[int]):
    """Linear, or logarithmic where some trainings would be a dot beside the others."""
    from matplotlib import ticker

    if max(lengths) > SPREAD * min(lengths):
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        ax.xaxis.set_major_locator(ticker.MaxNLocator(4))
    ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _legend(ax, names: list[str]):
    """A legend above the curves, for which the panel gets room."""
    handles, labels = ax.get_legend_handles_labels()
    if len(names) > MOST_LINES:
        handles[MOST_LINES:] = ax.plot([], [], " ")
        labels[MOST_LINES:] = [f"and {len(names) - MOST_LINES} more, named in the CSV file"]
    columns = 2 if len(labels) > ONE_COLUMN and max(map(len, labels)) <= SHORT else 1
    part = min(0.6, LINE * (math.ceil(len(labels) / columns) + 0.5))
    low, high = ax.get_ylim()
    ax.set_ylim(low, low * (high / low) ** (1 / (1 - part)) if high > low else high)
    look = {"handlelength": 2.5, "labelspacing": 0.25, "columnspacing": 1.0, "borderpad": 0}
    ax.legend(handles, labels, fontsize=5, loc="upper right", ncols=columns, frameon=False, **look)
