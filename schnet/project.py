"""From configuration files to the list of runs: which trainings exist, where they live, what needs them.

A table or figure of runs is a file in workflow/experiments; a scale file says how large and how long.
Every cell of a table becomes a list of runs (one per repeat); two cells that need the same training
share it. Snakemake and the command line both read the result, a ``Project``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml

from schnet.data.fetch import missing_in_mirror
from schnet.errors import ConfigError
from schnet.files import read_yaml
from schnet.schema import validate
from schnet.training.spec import RunSpec, make_spec

ROOT = Path(__file__).resolve().parent.parent
#: hyper-parameters and settings that name a run's MODEL directory, with their abbreviation and default
_SHORT = {"n_interactions": "T", "n_features": "F"}
_DEFAULT_CONFIG = {
    "mirror": None, "materials_project": "frozen", "data_dir": "data", "results_dir": "results", "device": "auto",
    "engine": "auto", "threads": 1, "protocol": None, "steps": None, "repeats": None, "run": {},
}  # fmt: skip


@dataclass
class Cell:
    """One cell of a table: the runs it averages over, and what to read from their metrics."""

    row: str
    column: str
    quantity: str
    part: str
    unit: str
    runs: list[str] = field(default_factory=list)
    missing: str = ""


@dataclass
class Project:
    config: dict
    scale: dict
    sources: dict
    experiments: dict[str, dict]
    cells: dict[str, list[Cell]]
    runs: dict[str, dict]  # run directory (relative to results/SCALE/runs) -> settings
    splits: dict[str, dict]  # split file (relative) -> what to split and how

    @property
    def results(self) -> Path:
        return Path(self.config["results_dir"]) / self.config["scale"]

    @property
    def data(self) -> Path:
        """Converted files; made-up, mirrored and upstream data never share a folder."""
        kind = "demo" if self.scale["data"] == "reference" else "mirror" if self.config["mirror"] else "upstream"
        return Path(self.config["data_dir"]) / kind

    def datasets(self) -> list[str]:
        return sorted({r["dataset"] for r in self.runs.values()})

    def runs_of(self, experiment: str) -> list[str]:
        return list(dict.fromkeys(r for cell in self.cells[experiment] for r in cell.runs))


def load_config(values: dict | None = None, root: Path = ROOT) -> dict:
    """The configuration: defaults, or config.yaml, with ``values`` (command line) on top; validated."""
    values = dict(read_yaml(root / "config.yaml") if values is None else values)
    if values.get("run"):  # --config run='{ema: 0.999}' arrives with all values as text
        values["run"] = _typed(values["run"])
    validate(values, "config", "config.yaml")
    return {**_DEFAULT_CONFIG, **{k: v for k, v in values.items() if v is not None or k in ("mirror",)}}


def _typed(value):
    """Text inside a dictionary as the YAML it is."""
    if isinstance(value, dict):
        return {k: _typed(v) for k, v in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def load_scale(name: str, root: Path = ROOT) -> dict:
    path = root / "workflow" / "scales" / f"{name}.yaml"
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        near = get_close_matches(name, known, 1)
        raise ConfigError(f"config.yaml: scale: no scale {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"))
    scale = read_yaml(path)
    validate(scale, "scale", path)
    validate(scale["run"], "run", f"{path}: run")
    for key, family in scale["families"].items():
        validate(family.get("run", {}), "run", f"{path}: families.{key}.run")
    return scale


def load_experiments(root: Path = ROOT) -> dict[str, dict]:
    found = {}
    for path in sorted((root / "workflow" / "experiments").glob("*.yaml")):
        experiment = read_yaml(path)
        validate(experiment, "experiment", path)
        for kind in ("rows", "columns"):
            for entry in experiment[kind]:
                validate(entry.get("run", {}), "run", f"{path}: {kind} {entry['key']}: run")
            keys = [e["key"] for e in experiment[kind]]
            if len(set(keys)) != len(keys):
                raise ConfigError(f"{path}: {kind}: a key occurs twice")
        validate(experiment["run"], "run", f"{path}: run")
        found[path.stem] = experiment
    return found


def load_sources(root: Path = ROOT) -> dict:
    path = root / "workflow" / "sources.yaml"
    sources = read_yaml(path)
    validate(sources, "sources", path)
    return sources


def merge(*layers: dict) -> dict:
    """Later layers win; the dictionary ``model`` is merged key by key."""
    out: dict = {}
    for layer in layers:
        for key, value in layer.items():
            out[key] = {**out.get(key, {}), **value} if key == "model" else value
    return out


def family_of(dataset: str, scale: dict) -> str:
    """The entry of a scale file that speaks of a data set: its own name or the part before the first '_'."""
    for name in (dataset, dataset.split("_")[0]):
        if name in scale["families"]:
            return name
    raise ConfigError(f"data set {dataset!r} is in no family of the scale file ({', '.join(scale['families'])})")


def _number(x) -> str:
    return f"{x:g}"


def model_name(settings: dict) -> str:
    """Readable name of architecture and of everything that differs from the usual, e.g. schnet-T6-F64."""
    model = settings["model"]
    parts = [settings["architecture"]] + [f"{short}{model[key]}" for key, short in _SHORT.items() if key in model]
    if settings.get("forces"):
        parts.append(f"rho{_number(settings['rho'])}")
    if model.get("readout", "sum") == "dipole":
        parts.append("dipole")
    if settings["protocol"] != "paper":
        parts.append(settings["protocol"])
    return "-".join(parts)


def load_project(config: dict | None = None, root: Path = ROOT) -> Project:
    """Everything resolved. Raises ConfigError for whatever does not fit together."""
    config = load_config(config, root)
    scale, sources, experiments = load_scale(config["scale"], root), load_sources(root), load_experiments(root)
    validate(config["run"], "run", "config.yaml: run")
    project = Project(config, scale, sources, experiments, {}, {}, {})
    for name, experiment in experiments.items():
        project.cells[name] = [
            _cell(project, name, experiment, row, column)
            for row in experiment["rows"]
            for column in experiment["columns"]
            if not column.get("quoted") and not row.get("quoted")
        ]
    return project


def _cell(project: Project, name: str, experiment: dict, row: dict, column: dict) -> Cell:
    config, scale = project.config, project.scale
    wanted = merge(
        {"protocol": "paper", "rho": 0.01, "architecture": "schnet", "model": {}}, experiment["run"], row.get("run", {}), column.get("run", {})
    )
    dataset = wanted["dataset"]
    where = f"workflow/experiments/{name}.yaml: {row['key']}, {column['key']}"
    if dataset not in project.sources:
        near = get_close_matches(dataset, project.sources, 1)
        raise ConfigError(f"{where}: no data set {dataset!r} in workflow/sources.yaml" + (f"; did you mean {near[0]!r}?" if near else ""))
    unit = column.get("unit") or row.get("unit")
    quantity = column.get("quantity") or row.get("quantity") or wanted["target"]
    cell = Cell(row["key"], column["key"], quantity, column.get("part", "test"), unit)
    family = scale["families"][family_of(dataset, scale)]
    size = family["n_train"].get(str(wanted["n_train"]), family["n_train"].get(wanted["n_train"]))
    if size is None:
        cell.missing = f"N = {wanted['n_train']:,} is not part of the scale {config['scale']}"
        return cell
    if scale["data"] == "upstream":
        absent = missing_in_mirror(project.sources[dataset], config["mirror"])
        if absent:
            cell.missing = f"{', '.join(absent[:2])} is not in the mirror"
            return cell
    settings = merge(wanted, scale["run"], family.get("run", {}), {"n_validation": family["n_validation"], "n_train": size})
    if "steps" in family:
        settings["steps"] = family["steps"]
    # what the experiment asks for explicitly (rho, model, seed, …) wins over the scale's defaults
    settings = merge(settings, {k: v for k, v in row.get("run", {}).items() if k not in ("n_train",)})
    settings = merge(settings, {k: v for k, v in column.get("run", {}).items() if k not in ("n_train",)})
    settings = merge(settings, config["run"])
    longer = column.get("times_steps", 1)
    settings["steps"] = longer * settings.get("steps", RunSpec.steps)
    if config["protocol"]:
        settings["protocol"] = config["protocol"]
    if config["steps"]:
        settings["steps"] = min(settings["steps"], config["steps"])
    settings["engine"] = config["engine"]
    settings["scale"] = config["scale"]
    repeats = min(experiment.get("repeats", 1), config["repeats"] or scale["repeats"])
    what = "+".join([settings["target"]] + ([settings["forces"]] if settings.get("forces") else []))
    for repeat in range(repeats):
        s = dict(settings)
        n_validation, strategy = s.pop("n_validation"), s.pop("split_strategy", "random")
        n_train = s.pop("n_train")
        split = f"{dataset}/n{n_train}-v{n_validation}-{strategy}-seed{repeat}.npz"
        project.splits[split] = {"dataset": dataset, "n_train": n_train, "n_validation": n_validation, "strategy": strategy, "seed": repeat}
        tail = "" if strategy == "random" else f"-{strategy}"
        name = model_name(s) + (f"-{longer}x" if longer > 1 else "")
        directory = f"{dataset}/{what}/{name}/n{n_train}{tail}/rep{repeat}"
        s |= {"seed": repeat, "repeat": repeat, "data": str(project.data / f"{dataset}.h5"), "split": str(project.results / "splits" / split)}
        if settings.get("seed"):
            s["seed"] = settings["seed"] + repeat
        spec = make_spec(s, where).to_dict()
        if project.runs.setdefault(directory, spec) != spec:
            different = [k for k in spec if project.runs[directory][k] != spec[k]]
            raise ConfigError(f"{where}: another cell needs {directory} with other settings ({', '.join(different)})")
        cell.runs.append(directory)
    return cell
