"""Figures from results: a picture, a PDF and the data as CSV.

A figure is a file workflow/figures/NAME.yaml. It names its kind, a file schnet/figures/KIND.py with

    READS     the files of a run that it reads, names of attributes of ``Run``; or
    DRAWS     what it draws from instead of runs: ``DATA``, or a kind of simulations;
    OPTIONS   its options with their defaults; a tuple stands for a choice, the first by default;
    draw      (project, figure) -> (matplotlib figure, CSV text);
    uses      (run) -> bool, optional: whether it draws from such a run;
    choose    (runs) -> runs, optional: those of them that it draws from;
    check     (options, where), optional: raises ConfigError for values that cannot be drawn;
    EXTRAS    optional: suffixes of texts that are written as well, ("html",); draw then returns
              them too, by suffix: (matplotlib figure, CSV text, {"html": text});
    note      (project, figure) -> str, optional: a sentence that the caption ends with.

Checking a figure imports its kind, so kinds leave the import of matplotlib to ``style``.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from schnet.errors import ConfigError, known_or_nearest
from schnet.figures.results import DATA, datasets_of, experiments_of, options, runs_of
from schnet.files import check_picture, write_text

if TYPE_CHECKING:
    from schnet.project import Project

log = logging.getLogger("schnet")

#: modules here that are no kind
HELPERS = ("results", "style")


def kinds() -> list[str]:
    """The names of all kinds of figures."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name for name in found if name not in HELPERS)


def check_figure(
    figure: dict,
    where: str,
    experiments: dict[str, dict],
    simulations: dict[str, dict],
    sources: dict[str, dict],
):
    """Check what the schema cannot know: kind, what it draws from, options and their values.

    Args:
        figure: the content of a file in workflow/figures.
        where: the file, for messages.
        experiments, simulations, sources: all of them by name.

    Raises:
        ConfigError: with the nearest valid name.
    """
    known_or_nearest(figure["kind"], kinds(), "kind of figure", f"{where}: kind")
    wanted = _experiments(figure, where, experiments)
    kind = _kind(figure["kind"])
    draws = getattr(kind, "DRAWS", None)
    wanted_key = {None: "experiments", DATA: "datasets"}.get(draws, "simulation")
    if wanted_key not in figure:
        raise ConfigError(
            f"{where}: a figure of the kind {figure['kind']} draws from {wanted_key}:"
        )
    if wanted_key == "simulation":
        drawn = [name for name, declared in simulations.items() if declared["kind"] == draws]
        known_or_nearest(figure["simulation"], drawn, f"simulation of {draws}", where)
    for name in figure.get("datasets", []):
        known_or_nearest(name, sources, "data set", f"{where}: datasets")
    defaults = kind.OPTIONS
    for name, value in figure.get("options", {}).items():
        place = f"{where}: options"
        known_or_nearest(name, defaults, f"option of {figure['kind']}", place)
        _check_option(value, defaults[name], f"{place}: {name}")
    labelled = _names({name: experiments[name] for name in wanted}) + figure.get("datasets", [])
    for name in figure.get("options", {}).get("labels", {}):
        known_or_nearest(name, labelled, "name to label", f"{where}: options: labels")
    for option, axis in {"rows": "row", "models": "column"}.items():
        keys = [entry["key"] for name in wanted for entry in experiments[name][f"{axis}s"]]
        for name in figure.get("options", {}).get(option, []):
            known_or_nearest(name, keys, axis, f"{where}: options: {option}")
    if hasattr(kind, "check"):
        kind.check(options(figure, defaults), f"{where}: options")


def _experiments(figure: dict, where: str, experiments: dict[str, dict]) -> list[str]:
    """The experiments of a figure; ConfigError where one does not exist."""
    wanted = figure.get("experiments", [])
    if isinstance(wanted, str):
        known_or_nearest(wanted, ["all"], "choice", f"{where}: experiments")
        wanted = list(experiments)
    for name in wanted:
        known_or_nearest(name, experiments, "experiment", f"{where}: experiments")
    return wanted


def _check_option(value, default, where: str):
    """Raise ConfigError when a value has another type than the default, or is not among several."""
    if isinstance(default, tuple):
        known_or_nearest(value, default, "choice", where)
    elif isinstance(value, bool) != isinstance(default, bool) or not isinstance(
        value, int | float if isinstance(default, float) else type(default)
    ):
        raise ConfigError(f"{where}: {value!r} should be like {default!r}")


def _names(experiments: dict[str, dict]) -> list[str]:
    """What a figure can label: rows, columns, data sets and targets of experiments."""
    names = []
    for experiment in experiments.values():
        entries = [*experiment["rows"], *experiment["columns"]]
        names += [entry["key"] for entry in entries]
        for entry in (experiment, *entries):
            run = entry.get("run", {})
            names += [run[key] for key in ("dataset", "target") if key in run]
    return list(dict.fromkeys(names))


def _kind(name: str):
    """The module of a kind."""
    return importlib.import_module(f"schnet.figures.{name}")


def _figure(project: Project, name: str) -> dict:
    """The declaration of a figure. Raises ConfigError for an unknown name."""
    known_or_nearest(name, project.figures, "figure", "workflow/figures")
    return project.figures[name]


def files_read(project: Project, name: str) -> list[Path]:
    """The files that a figure is drawn from, each once, those of unfinished runs included."""
    figure = _figure(project, name)
    if "simulation" in figure:
        return [job.result for job in project.simulations[figure["simulation"]]]
    if "datasets" in figure:
        return [project.data_file(dataset) for dataset in datasets_of(project, figure)]
    kind = _kind(figure["kind"])
    uses = getattr(kind, "uses", lambda run: True)
    choose = getattr(kind, "choose", lambda runs: runs)
    runs = choose([run for run in runs_of(project, figure) if uses(run)])
    return list(dict.fromkeys(getattr(run, attribute) for run in runs for attribute in kind.READS))


def extras(project: Project, name: str) -> tuple[str, ...]:
    """Suffixes of what is written beside the picture, its PDF and its CSV file."""
    return getattr(_kind(_figure(project, name)["kind"]), "EXTRAS", ())


def caption(project: Project, name: str) -> str:
    """What a figure shows, and at which scale."""
    figure = _figure(project, name)
    note = getattr(_kind(figure["kind"]), "note", lambda project, figure: "")(project, figure)
    scale = f"({project.config['scale']} scale)"
    return " ".join(filter(None, [figure["caption"].strip(), note, scale]))


def _anything_there(project: Project, figure: dict) -> bool:
    """Whether a data set, a run or a simulation that a figure draws from is there."""
    if "datasets" in figure:
        return any(project.data_file(name).exists() for name in datasets_of(project, figure))
    if "simulation" in figure:
        return any(job.result.exists() for job in project.simulations[figure["simulation"]])
    return any(run.model_file.exists() for run in runs_of(project, figure))


def render(project: Project, name: str, output: str | Path):
    """Draw a figure of the project.

    Args:
        name: of a file in workflow/figures.
        output: the picture; a PDF, the CSV file and what the kind adds are written beside it.

    Raises:
        ConfigError: there is no such figure, or its output's name says no format of pictures.
    """
    import matplotlib

    from schnet.figures import style

    figure = _figure(project, name)
    check_picture(output)
    if not _anything_there(project, figure):
        log.warning(
            f"{name}: nothing that it is drawn from is there at the scale "
            f"{project.config['scale']}; the picture is empty (snakemake --cores all {name} makes "
            "what it needs)"
        )
    with matplotlib.rc_context(style.settings()):
        picture, csv_text, *more = _kind(figure["kind"]).draw(project, figure)
        style.save(picture, csv_text, output, f"{project.config['scale']} scale")
    for suffix, text in (more[0] if more else {}).items():
        write_text(Path(output).with_suffix(f".{suffix}"), text)


__all__ = [
    "caption",
    "check_figure",
    "experiments_of",
    "extras",
    "files_read",
    "kinds",
    "render",
    "runs_of",
]
