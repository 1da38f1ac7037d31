"""Simulations with trained models: workflow/simulations, at the lengths of a scale."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from schnet.errors import ConfigError, known_or_nearest
from schnet.schema import validate

if TYPE_CHECKING:
    from schnet.project import Project

#: what a job of a kind writes last
RESULT = {"modes": "modes.npz", "pimd": "trajectory.h5"}
#: settings that need others to mean anything
NEEDED = {"modes": (), "pimd": ("steps",)}
KNOWN = {
    "modes": ("fmax", "tolerance"),
    "pimd": ("steps", "timestep", "temperature", "thermostat", "tau", "interval", "seed"),
}


@dataclass(frozen=True)
class ModelSource:
    """Where a model of a simulation comes from.

    Attributes:
        label: text for people.
        origin: which model it is, wherever its file lies.
        model: path of a model file, or the name of a calculator.
        is_file: whether it is a path.
    """

    label: str
    origin: str
    model: str
    is_file: bool = True


@dataclass(frozen=True)
class Simulation:
    """One job: a structure, models and settings.

    Attributes:
        name: of its file in workflow/simulations. kind: modes or pimd.
        path: NAME/KEY-DIGEST below results/SCALE/simulations; the digest is that of the
            structure, the models' origins and the settings.
        structure: file with the structure, as it is in the data.
        relaxed: folder where that is relaxed for all jobs with the same models.
        models: the first is the reference where there are several.
        settings: options of `schnet modes` or `schnet pimd`.
        folder: what it writes to.
        runtime: minutes that a cluster is asked for.
    """

    name: str
    kind: str
    path: str
    structure: Path
    relaxed: Path
    models: tuple[ModelSource, ...]
    settings: dict
    folder: Path
    runtime: int

    @property
    def result(self) -> Path:
        """The file that is there when it is finished."""
        return self.folder / RESULT[self.kind]

    @property
    def model_files(self) -> list[str]:
        """The models that are files."""
        return [source.model for source in self.models if source.is_file]

    def options(self) -> list[str]:
        """The settings as options of the command line."""
        pairs = ((f"--{key.replace('_', '-')}", str(value)) for key, value in self.settings.items())
        return [text for pair in pairs for text in pair]


def resolve(project: Project, name: str, declared: dict) -> list[Simulation]:
    """The jobs of a simulation at the project's scale; none where its data or models are not there.

    Raises:
        ConfigError: an unknown data set, experiment, row, column or setting; a missing setting.
    """
    where = f"workflow/simulations/{name}.yaml"
    adjusted = project.scale.get("simulations", {}).get(name, {})
    if adjusted:
        where = f"workflow/scales/{project.config['scale']}.yaml: simulations.{name}"
    both = declared | adjusted
    both["settings"] = declared.get("settings", {}) | adjusted.get("settings", {})
    validate(both, "simulation", where)
    dataset, kind = both["structure"], both["kind"]
    known_or_nearest(dataset, project.sources, "data set", where)
    for key in both["settings"]:
        known_or_nearest(key, KNOWN[kind], f"setting of {kind}", where)
    for key in NEEDED[kind]:
        if key not in both["settings"]:
            raise ConfigError(f"{where}: settings: {key} must be given")
    if project.why_no_data(dataset):
        return []
    models = [_model(project, key, entry, dataset, where) for key, entry in both["models"].items()]
    found = tuple(model for model in models if model is not None)
    if not found or (kind == "modes" and models[0] is None):
        return []
    if kind == "modes":
        return [_job(project, name, kind, "modes", both, found, {})]
    if len(both["models"]) > 1:
        raise ConfigError(f"{where}: models: {kind} takes one")
    beads = both.get("beads", [1])
    return [_job(project, name, kind, f"P{p}", both, found, {"beads": p}) for p in beads]


def _model(project: Project, name: str, entry: dict, dataset: str, where: str):
    """Where a model comes from; None where the scale has no such run."""
    if "calculator" in entry:
        calculator = entry["calculator"]
        return ModelSource(entry["label"], calculator, calculator, is_file=False)
    if "released" in entry:
        if project.made_up:
            raise ConfigError(f"{where}: models: {name}: nothing is released of made-up data")
        file = project.data / "released" / dataset / f"{entry['released']}.pt"
        return ModelSource(entry["label"], f"released {entry['released']}", str(file))
    known_or_nearest(entry["experiment"], project.experiments, "experiment", where)
    experiment = project.experiments[entry["experiment"]]
    for kind in ("row", "column"):
        known_or_nearest(entry[kind], [e["key"] for e in experiment[f"{kind}s"]], kind, where)
    for cell in project.cells[entry["experiment"]]:
        if (cell.row, cell.column) == (entry["row"], entry["column"]) and cell.runs:
            run = cell.runs[0]
            return ModelSource(entry["label"], run.path, str(run.model_file))
    return None


def _digest(*parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:6]


def _job(project: Project, name, kind, key, both, models, more) -> Simulation:
    settings = both["settings"] | more
    folder = project.results / "simulations"
    start = [both["structure"], [model.origin for model in models]]
    path = f"{name}/{key}-{_digest(*start, settings)}"
    return Simulation(
        name=name,
        kind=kind,
        path=path,
        structure=project.data / "structures" / f"{both['structure']}.extxyz",
        relaxed=folder / name / f"relaxed-{_digest(*start)}",
        models=models,
        settings=settings,
        folder=folder / path,
        runtime=both.get("runtime", 60),
    )
