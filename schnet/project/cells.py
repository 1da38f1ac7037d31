"""The cells of tables: which runs are behind each, or why it has none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from schnet.errors import ConfigError
from schnet.methods import missing_packages
from schnet.project.checks import (
    abbreviations,
    check_batch,
    check_cell,
    check_committee,
    check_spec,
    hyperparameter_names,
    hyperparameters_class,
    own_hyperparameters,
)
from schnet.project.identity import run_path, split_path
from schnet.project.settings import settings_of_cell
from schnet.run import Run, RunSpec, make_spec
from schnet.workflow import known_or_nearest

if TYPE_CHECKING:
    from schnet.project import Project


@dataclass
class Cell:
    """One cell of a table: the runs it averages over, and what to read from their metrics.

    ``n_train`` is what the experiment says, in whose place a scale may have another number.
    ``committee`` is "" where the runs are repeats. Of runs that share a split it is "members" for
    the mean of their errors, and "mean" for the error of the mean of their predictions. ``weights``
    is "" for those of the model, or "raw" where the model is an average over many steps.
    """

    row: str
    column: str
    quantity: str
    part: str
    unit: str | None
    n_train: int
    runs: list[Run] = field(default_factory=list)
    missing: str = ""
    committee: str = ""
    weights: str = ""

    def errors(self, metrics: dict) -> dict:
        """part -> quantity -> mean absolute error and unit, of the weights that the cell shows."""
        return metrics.get("alternatives", {}).get(self.weights) or metrics["parts"]


def is_computed(name: str, experiment: dict, row: dict, column: dict) -> bool:
    """Whether a cell has runs. Raises ConfigError where a row names a column that is not there."""
    keys = [c["key"] for c in experiment["columns"]]
    computed = row.get("columns", keys)
    where = f"workflow/experiments/{name}.yaml: rows {row['key']}: columns"
    for key in computed:
        known_or_nearest(key, keys, "column", where)
    if column.get("quoted") or row.get("quoted") or row.get("derived"):
        return False
    return column["key"] in computed


def cell_of(project: Project, name: str, row: dict, column: dict) -> Cell:
    """A cell with its runs, which the project keeps, or with the reason for having none."""
    where = f"workflow/experiments/{name}.yaml: {row['key']}, {column['key']}"
    spec, nominal = _spec_of_cell(project, name, row, column, where)
    unit = column.get("unit") or row.get("unit")
    quantity = column.get("quantity") or row.get("quantity") or spec.target
    check_cell(spec, project.sources[spec.dataset], quantity, unit, where)

    cell = Cell(row["key"], column["key"], quantity, column.get("part", "test"), unit, nominal)
    cell.committee = column.get("committee", "")
    cell.weights = column.get("weights", "")
    cell.missing = _why_missing(project, cell, spec, column)
    if cell.missing:
        return cell
    check_batch(spec, where)
    if cell.committee:
        check_committee(spec, where)
        cell.runs = _members(project, spec)
        if cell.committee == "members":
            cell.runs = cell.runs[: project.config["repeats"]]
    else:
        wanted = _repeats(project, project.experiments[name], row)
        cell.runs = [_run(project, spec, repeat) for repeat in range(wanted)]
    absent = missing_packages(spec)
    if absent and not all(run.metrics_file.exists() for run in cell.runs):
        cell.missing = f"the package {', '.join(absent)} is not installed"
        cell.runs = []
    return cell


def _spec_of_cell(
    project: Project, name: str, row: dict, column: dict, where: str
) -> tuple[RunSpec, int]:
    """The settings behind a cell, and the number of training structures that the paper has.

    Settings have the number of the scale, which is None where the scale leaves out that size.
    """
    experiment = project.experiments[name]
    layers = (project.config["run"], column.get("run", {}), row.get("run", {}), experiment["run"])
    dataset = next((layer["dataset"] for layer in layers if "dataset" in layer), None)
    nominal = next((n for layer in layers if (n := layer.get("n_train"))), None)
    if dataset is None or nominal is None:
        raise ConfigError(f"{where}: dataset and n_train must be given")
    known_or_nearest(dataset, project.sources, "data set", f"{where}: workflow/sources.yaml")
    source = project.sources[dataset]

    family = project.family(dataset)
    probe = family or {"n_train": {}, "n_validation": 1}
    settings = settings_of_cell(
        project.config,
        project.scale,
        probe,
        experiment,
        row,
        column,
        lambda settings: hyperparameter_names(settings, where),
    )
    size = settings.pop("n_train")
    if settings.get("n_validation") is None:
        raise ConfigError(f"{where}: n_validation must be a number")
    spec = make_spec(settings, where)
    check_spec(spec, source, where)
    return replace(spec, model=own_hyperparameters(spec), n_train=size), nominal


def _why_missing(project: Project, cell: Cell, spec: RunSpec, column: dict) -> str:
    """Why a scale has no runs for a cell; or ''."""
    scale = project.config["scale"]
    if cell.committee == "mean" and "committee" not in project.scale:
        return f"committees are not part of the scale {scale}"
    if project.family(spec.dataset) is not None and spec.n_train is None:
        return f"N = {cell.n_train:,} is not part of the scale {scale}"
    no_data = project.why_no_data(spec.dataset)
    if no_data:
        return no_data
    left_out = cell.row not in column.get("only", {}).get(scale, [cell.row])
    return f"left out at the scale {scale}" if left_out else ""


def _repeats(project: Project, experiment: dict, row: dict) -> int:
    """How many runs a cell has: as many as the experiment asks for, as far as the scale goes.

    What the experiment, or before it the row, says of this very scale stands in place of both.
    """
    asked, limit = experiment.get("repeats", 1), project.scale["repeats"]
    exact = {**experiment.get("repeats_at", {}), **row.get("repeats_at", {})}
    if project.config["scale"] in exact:
        asked = limit = exact[project.config["scale"]]
    return min(asked, project.config["repeats"] or limit)


def _members(project: Project, spec: RunSpec) -> list[Run]:
    """The runs of a committee: first repeats of several seeds, which share the first split.

    So what tests one of them was seen by none of them; repeats have splits of their own. A scale
    without committees has one.
    """
    seeds = range(spec.seed, spec.seed + project.scale.get("committee", 1))
    return [_run(project, replace(spec, seed=seed), 0) for seed in seeds]


def _run(project: Project, spec: RunSpec, repeat: int) -> Run:
    """One repeat: its seed and split differ from the others', nothing else."""
    spec = replace(spec, repeat=repeat, seed=spec.seed + repeat, split_seed=repeat)
    fields = hyperparameters_class(spec).__dataclass_fields__
    defaults = {name: field.default for name, field in fields.items()}
    path = run_path(spec, abbreviations(spec), defaults)
    if path not in project.runs:
        split = split_path(spec)
        cutoff = spec.model.get("cutoff", defaults.get("cutoff"))
        neighbours = None
        if cutoff is not None:
            neighbours = str(project.neighbours_file(spec.dataset, cutoff))
        spec = replace(
            spec,
            data=str(project.data_file(spec.dataset)),
            split=str(project.results / "splits" / split),
            neighbours=neighbours,
            engine=project.config["engine"],
        )
        project.splits[split] = spec
        project.runs[path] = Run(path, project.results / "runs" / path, spec)
    elif project.runs[path].settings.scientific() != spec.scientific():
        raise ConfigError(f"{path}: two runs share this directory; change a seed of one of them")
    return project.runs[path]
