"""From configuration files to the list of runs: which exist, where they live, what needs them.

A table or scan is a file in workflow/experiments; a scale file says how large and how long.
Every cell of a table becomes a list of runs (one per repeat); two cells that need the same training
share it. Snakemake and the command line both read the result, a ``Project``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from schnet.data.mirror import check_mirror, missing_in_mirror
from schnet.errors import ConfigError
from schnet.figures import check_figure
from schnet.methods import missing_packages
from schnet.project.checks import (
    abbreviations,
    check_batch,
    check_cell,
    check_claims,
    check_committee,
    check_derived,
    check_names,
    check_overrides,
    check_scale,
    check_scale_names,
    check_spec,
    hyperparameter_names,
    hyperparameters_class,
    own_hyperparameters,
)
from schnet.project.identity import run_path, split_path
from schnet.project.settings import settings_of_cell
from schnet.project.simulations import Simulation, resolve
from schnet.run import Run, RunSpec, make_spec
from schnet.workflow import (
    find_workflow,
    known_or_nearest,
    load_config,
    load_experiments,
    load_figures,
    load_scale,
    load_simulations,
    load_sources,
)

__all__ = ["Cell", "Project", "load_project"]


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


@dataclass
class Project:
    """Everything that the configuration files say, resolved.

    Attributes:
        root: the folder with config.yaml and workflow/.
        config, scale, sources, experiments, figures: the validated files.
        cells: by experiment.
        runs: by path.
        splits: settings of a run that needs the split, by the split's path.
        simulations: the jobs of every file in workflow/simulations.
    """

    root: Path
    config: dict
    scale: dict
    sources: dict
    experiments: dict[str, dict]
    figures: dict[str, dict]
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    splits: dict[str, RunSpec] = field(default_factory=dict)
    simulations: dict[str, list[Simulation]] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """results/SCALE"""
        return Path(self.config["results_dir"]) / self.config["scale"]

    @property
    def made_up(self) -> bool:
        """Whether the data are made on the spot: no number may stand beside a printed one."""
        return self.scale["data"] == "reference"

    @property
    def data(self) -> Path:
        """Converted files; made-up, mirrored and upstream data never share a folder."""
        kind = "mirror" if self.config["mirror"] else "upstream"
        if self.made_up:
            kind = "demo"
        return Path(self.config["data_dir"]) / kind

    def data_file(self, dataset: str) -> Path:
        """The converted data set."""
        return self.data / f"{dataset}.h5"

    def neighbours_file(self, dataset: str, cutoff: float) -> Path:
        """The neighbour lists of a data set within a cutoff in Å."""
        return self.data / "neighbours" / f"{dataset}-{float(cutoff)!r}.h5"

    def datasets(self) -> list[str]:
        """Names of the data sets that some run needs."""
        return sorted({run.dataset for run in self.runs.values()})

    def run(self, path: str) -> Run:
        """The run with a path. Raises ConfigError when the configuration has none."""
        known_or_nearest(path, self.runs, "run", "results")
        return self.runs[path]

    def experiments_in_order(self) -> list[str]:
        """Names of the experiments: the paper's tables, others with printed numbers, the rest."""

        def place(name: str) -> tuple:
            published = "published" in self.experiments[name]
            return not name.startswith("table_"), not published, name

        return sorted(self.experiments, key=place)

    def runs_of(self, experiment: str) -> list[Run]:
        """The runs that an experiment needs, each once, in the order of its cells."""
        runs = (run for cell in self.cells[experiment] for run in cell.runs)
        return list({run.path: run for run in runs}.values())

    def simulation(self, path: str) -> Simulation:
        """The simulation with a path. Raises ConfigError when there is none."""
        jobs = {job.path: job for jobs in self.simulations.values() for job in jobs}
        known_or_nearest(path, jobs, "simulation", "results")
        return jobs[path]

    def why_no_data(self, dataset: str) -> str:
        """Why a data set cannot be had at this scale; or ''."""
        scale, source = self.config["scale"], self.sources[dataset]
        if self.family(dataset) is None:
            return f"{dataset} is in no family of the scale {scale}"
        if self.made_up:
            return "" if "reference" in source else f"{dataset} cannot be made at the scale {scale}"
        if not source.get("files"):
            return f"{dataset} has no upstream files"
        absent = missing_in_mirror(source, self.config["mirror"])
        return f"{', '.join(absent[:2])} is not in the mirror" if absent else ""

    def family(self, dataset: str) -> dict | None:
        """What the scale says of a data set: the entry of its name, or of the part before '_'."""
        families = self.scale["families"]
        return families.get(dataset, families.get(dataset.split("_")[0]))


def load_project(config: dict | None = None, root: str | Path | None = None) -> Project:
    """The project of a workflow folder.

    Args:
        config: in place of config.yaml's content.
        root: the folder with workflow/; None: the working directory or one above.

    Raises:
        ConfigError: whatever does not fit together, with file, place and nearest valid name.
    """
    folder = find_workflow(root)
    resolved = load_config(folder, config)
    check_mirror(resolved["mirror"])
    project = Project(
        folder,
        resolved,
        load_scale(folder, resolved["scale"]),
        load_sources(folder),
        load_experiments(folder),
        load_figures(folder),
    )
    check_scale(project.scale, f"workflow/scales/{resolved['scale']}.yaml")
    scales = sorted(path.stem for path in (folder / "workflow" / "scales").glob("*.yaml"))
    for name, experiment in project.experiments.items():
        check_claims(experiment, f"workflow/experiments/{name}.yaml")
        check_derived(experiment, f"workflow/experiments/{name}.yaml")
        check_scale_names(experiment, scales, f"workflow/experiments/{name}.yaml")
        project.cells[name] = [
            _cell(project, name, row, column)
            for row in experiment["rows"]
            for column in experiment["columns"]
            if _is_computed(name, experiment, row, column)
        ]
    check_overrides(resolved["run"].get("model", {}), project.runs.values())
    declared = load_simulations(folder)
    for name in project.scale.get("simulations", {}):
        where = f"workflow/scales/{resolved['scale']}.yaml: simulations"
        known_or_nearest(name, declared, "simulation", where)
    project.simulations = {name: resolve(project, name, d) for name, d in declared.items()}
    check_names(
        {"experiments": project.experiments, "figures": project.figures, "simulations": declared}
    )
    for name, figure in project.figures.items():
        where = f"workflow/figures/{name}.yaml"
        check_figure(figure, where, project.experiments, declared, project.sources)
    return project


def _is_computed(name: str, experiment: dict, row: dict, column: dict) -> bool:
    """Whether a cell has runs. Raises ConfigError where a row names a column that is not there."""
    keys = [c["key"] for c in experiment["columns"]]
    computed = row.get("columns", keys)
    where = f"workflow/experiments/{name}.yaml: rows {row['key']}: columns"
    for key in computed:
        known_or_nearest(key, keys, "column", where)
    if column.get("quoted") or row.get("quoted") or row.get("derived"):
        return False
    return column["key"] in computed


def _cell(project: Project, name: str, row: dict, column: dict) -> Cell:
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
