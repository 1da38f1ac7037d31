"""From configuration files to the list of runs: which exist, where they live, what needs them.

A table or scan is a file in workflow/experiments; a scale file says how large and how long.
Every cell of a table becomes a list of runs (one per repeat); two cells that need the same training
share it. Snakemake and the command line both read the result, a ``Project``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from schnet.data.mirror import check_mirror, missing_in_mirror
from schnet.figures import check_figure
from schnet.project.cells import Cell, cell_of, is_computed
from schnet.project.checks import (
    check_claims,
    check_derived,
    check_names,
    check_overrides,
    check_scale,
    check_scale_names,
)
from schnet.project.simulations import Simulation, resolve
from schnet.run import Run, RunSpec
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

    def figures_in_order(self) -> list[str]:
        """Names of the figures: the paper's by their numbers, then the rest."""

        def place(name: str) -> tuple:
            number = name.removeprefix("figure_")
            if number != name and number.isdigit():
                return False, int(number), name
            return True, 0, name

        return sorted(self.figures, key=place)

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
            cell_of(project, name, row, column)
            for row in experiment["rows"]
            for column in experiment["columns"]
            if is_computed(name, experiment, row, column)
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
