"""The files that say what the workflow does: config.yaml and workflow/, read and validated."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import yaml

from schnet.errors import ConfigError, known_or_nearest
from schnet.files import read_yaml
from schnet.schema import validate
from schnet.workflow.scans import expand_scans

CONFIG = "config.yaml"
DEFAULT_CONFIG: dict = {
    "mirror": None,
    "materials_project": "frozen",
    "data_dir": "data",
    "results_dir": "results",
    "device": "auto",
    "engine": "auto",
    "threads": 1,
    "protocol": None,
    "steps": None,
    "repeats": None,
    "run": {},
}
#: what says how something is computed, and is no reason to compute it again
EXECUTION_CONFIG = ("device", "engine", "threads")


def find_workflow(start: str | Path | None = None) -> Path:
    """The folder that holds config.yaml and workflow/.

    Args:
        start: that folder itself; None: the working directory or the nearest one above it.

    Raises:
        ConfigError: there is none.
    """
    here = Path(start or ".").resolve()
    candidates = [here] if start else [here, *here.parents]
    for folder in candidates:
        if (folder / "workflow" / "experiments").is_dir():
            return folder
    raise ConfigError(
        f"{here}: no folder with workflow/ here or above; "
        "change to a checkout of the workflow or name one with --workflow"
    )


#: settings of a run that the workflow decides by itself, and where to say them instead
DECIDED = {
    "split_seed": "repeats: or seed:",
    "repeat": "repeats:",
    "data": "data_dir:",
    "split": "split_strategy:",
    "neighbours": "a model's cutoff:",
    "engine": "engine: in config.yaml",
}


def check_run(settings, where: str):
    """Validate settings of runs in a configuration file, and refuse those that have no effect."""
    validate(settings, "run", where)
    for key, instead in DECIDED.items():
        if key in settings:
            raise ConfigError(f"{where}: {key}: is decided by the workflow; use {instead}")


def load_config(root: Path, values: dict | None = None) -> dict:
    """The configuration: config.yaml, or ``values`` in its place, over the defaults; validated."""
    values = read_yaml(root / CONFIG) if values is None else values
    validate(values, "config", CONFIG)
    values = dict(values)
    if values.get("run"):  # --config run='{ema: 0.999}' arrives with all values as text
        values["run"] = _typed(values["run"])
    check_run(values.get("run") or {}, f"{CONFIG}: run")
    for key in ("data_dir", "results_dir", "mirror"):
        _check_path(values.get(key), f"{CONFIG}: {key}")
    for key in ("data_dir", "results_dir"):
        if values.get(key):  # data/ and data are the same folder
            values[key] = os.path.normpath(values[key])
    given = {k: v for k, v in values.items() if v is not None}
    return DEFAULT_CONFIG | given


def _check_path(path: str | None, where: str):
    """Raise ConfigError for a path that programs between here and its file would misread."""
    for character in path or "":
        if unicodedata.category(character).startswith("C"):  # control, or no character at all
            raise ConfigError(f"{where}: {path!r} holds the character {character!r}; rename it")
        if character in "{}":
            raise ConfigError(f"{where}: {path!r}: braces are wildcards to Snakemake; rename it")
    if path and path.startswith("-"):
        raise ConfigError(f"{where}: {path!r} looks like an option; give the whole path")


def _typed(value):
    """Text inside a dictionary as the YAML it is."""
    if isinstance(value, dict):
        return {k: _typed(v) for k, v in value.items()}
    return yaml.safe_load(value) if isinstance(value, str) else value


def load_scale(root: Path, name: str) -> dict:
    """workflow/scales/NAME.yaml, validated."""
    folder = root / "workflow" / "scales"
    known_or_nearest(name, sorted(p.stem for p in folder.glob("*.yaml")), "scale", CONFIG)
    path = folder / f"{name}.yaml"
    scale = read_yaml(path)
    validate(scale, "scale", path)
    check_run(scale["run"], f"{path}: run")
    for part in ("protocols", "architectures"):
        for key, settings in scale.get(part, {}).items():
            check_run(settings, f"{path}: {part}.{key}")
    for key, family in scale["families"].items():
        check_run(family.get("run", {}), f"{path}: families.{key}.run")
    return scale


def load_experiments(root: Path) -> dict[str, dict]:
    """Every workflow/experiments/NAME.yaml by its name, validated, scans written out."""
    found = {}
    for path in sorted((root / "workflow" / "experiments").glob("*.yaml")):
        experiment = read_yaml(path)
        validate(experiment, "experiment", path)
        check_run(experiment["run"], f"{path}: run")
        if not (root / "workflow" / "published" / experiment.get("published", "")).exists():
            raise ConfigError(f"{path}: published: no file {experiment['published']!r}")
        for kind in ("rows", "columns"):
            experiment[kind] = expand_scans(experiment[kind], f"{path}: {kind}")
            for entry in experiment[kind]:
                check_run(entry.get("run", {}), f"{path}: {kind} {entry['key']}: run")
            keys = [e["key"] for e in experiment[kind]]
            twice = sorted({k for k in keys if keys.count(k) > 1})
            if twice:
                raise ConfigError(f"{path}: {kind}: the key {twice[0]!r} occurs twice")
        found[path.stem] = experiment
    return found


def load_sources(root: Path) -> dict:
    """workflow/sources.yaml, validated."""
    path = root / "workflow" / "sources.yaml"
    sources = read_yaml(path)
    validate(sources, "sources", path)
    return sources


def load_figures(root: Path) -> dict[str, dict]:
    """Every workflow/figures/NAME.yaml by its name, validated."""
    found = {}
    for path in sorted((root / "workflow" / "figures").glob("*.yaml")):
        found[path.stem] = read_yaml(path)
        validate(found[path.stem], "figure", path)
    return found


def load_simulations(root: Path) -> dict[str, dict]:
    """Every workflow/simulations/NAME.yaml by its name, validated."""
    found = {}
    for path in sorted((root / "workflow" / "simulations").glob("*.yaml")):
        found[path.stem] = read_yaml(path)
        validate(found[path.stem], "simulation", path)
    return found
