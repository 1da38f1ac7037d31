"""What can be known to be wrong before any job starts."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache

from schnet.data.store import Property
from schnet.errors import ConfigError
from schnet.methods import check_method, hyperparameters_of_method, method
from schnet.models import architectures, check_hyperparameters, hyperparameters_of
from schnet.run import RunSpec
from schnet.units import UNITS, factor
from schnet.workflow import known_or_nearest


@cache
def properties_of(module: str) -> dict[str, Property]:
    """The properties that a data set's module says it converts (its PROPERTIES), by name."""
    try:
        return importlib.import_module(module).PROPERTIES
    except ImportError as error:
        raise ConfigError(f"workflow/sources.yaml: module {module!r}: {error}") from error
    except AttributeError as error:
        raise ConfigError(f"{module}: has no PROPERTIES, a dictionary of Property") from error


def hyperparameters_class(spec: RunSpec):
    """The dataclass of the hyper-parameters in ``spec.model``."""
    if spec.method == "neural":
        return hyperparameters_of(spec.architecture)
    return hyperparameters_of_method(spec.method)


def hyperparameter_names(settings: dict, where: str) -> list[str]:
    """Hyper-parameters of the method and architecture that settings name.

    Raises ConfigError for an unknown one.
    """
    kept = {k: settings[k] for k in ("method", "architecture")} | {"dataset": "", "target": ""}
    try:
        return list(hyperparameters_class(RunSpec(**kept)).__dataclass_fields__)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def abbreviations(spec: RunSpec) -> dict[str, str]:
    """The hyper-parameters that the name of a run always has, with their letters."""
    return hyperparameters_of(spec.architecture).SHORT if spec.method == "neural" else {}


def own_hyperparameters(spec: RunSpec) -> dict:
    """The hyper-parameters of a run that are not default: said or not said, it is the same run.

    Raises ConfigError for an unknown one.
    """
    known = hyperparameters_class(spec).__dataclass_fields__
    own = {}
    for name, value in spec.model.items():
        known_or_nearest(name, known, "hyper-parameter", "model")
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and "float" in str(known[name].type):
            value = float(value)
        if value != known[name].default:
            own[name] = value
    return own


def check_overrides(model: dict, runs):
    """Raise ConfigError for a hyper-parameter in the configuration that no run has."""
    known = {
        name for run in runs for name in hyperparameters_class(run.settings).__dataclass_fields__
    }
    for name in model:
        known_or_nearest(name, sorted(known), "hyper-parameter", "config.yaml: run: model")


def check_scale(scale: dict, where: str):
    """Raise ConfigError for an architecture that does not exist."""
    layers = {where: scale}
    layers |= {f"{where}: families: {name}": layer for name, layer in scale["families"].items()}
    for place, layer in layers.items():
        for name in layer.get("architectures", {}):
            known_or_nearest(name, architectures(), "architecture", f"{place}: architectures")


def check_scale_names(experiment: dict, scales: list[str], where: str):
    """Raise ConfigError where ``repeats_at:`` or ``only:`` name no scale, or ``only:`` no row."""
    rows = [row["key"] for row in experiment["rows"]]
    layers = {where: experiment}
    layers |= {f"{where}: rows {row['key']}": row for row in experiment["rows"]}
    for place, layer in layers.items():
        for scale in layer.get("repeats_at", {}):
            known_or_nearest(scale, scales, "scale", f"{place}: repeats_at")
    for column in experiment["columns"]:
        place = f"{where}: columns {column['key']}: only"
        for scale, keys in column.get("only", {}).items():
            known_or_nearest(scale, scales, "scale", place)
            for key in keys:
                known_or_nearest(key, rows, "row", place)


def check_derived(experiment: dict, where: str):
    """Raise ConfigError for derived rows of nothing, or with what has no effect on them."""
    derived = [row for row in experiment["rows"] if row.get("derived")]
    plain = [r for r in experiment["rows"] if not (r.keys() & {"derived", "extension", "quoted"})]
    if derived and not plain:
        raise ConfigError(f"{where}: rows: derived ones need a row that they are computed from")
    for row in derived:
        for key in ("unit", "also_unit", "quantity", "run", "quoted"):
            if key in row:
                message = f"{key}: a derived row has none; leave it out"
                raise ConfigError(f"{where}: rows {row['key']}: {message}")
    for column in experiment["columns"]:
        if derived and column.get("unit"):
            message = f"unit: that of the row {derived[0]['key']} differs; give units to rows"
            raise ConfigError(f"{where}: columns {column['key']}: {message}")


def check_spec(spec: RunSpec, source: dict, where: str):
    """Raise ConfigError for settings that no training can have.

    A method, architecture, hyper-parameter or target unheard of; forces of a dipole moment.
    """
    try:
        if spec.method == "neural":
            check_hyperparameters(spec.architecture, spec.model)
        else:
            check_method(spec.method, spec.model, spec.forces)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if spec.forces and spec.model.get("readout") == "dipole":
        raise ConfigError(f"{where}: forces of a dipole moment: it is not an energy")
    properties = properties_of(source["module"])
    scalars = [name for name, p in properties.items() if not p.per_atom]
    known_or_nearest(spec.target, scalars, f"target of {spec.dataset} called", where)
    if spec.forces:
        per_atom = [name for name, p in properties.items() if p.per_atom]
        known_or_nearest(spec.forces, per_atom, f"forces of {spec.dataset} called", where)


def check_batch(spec: RunSpec, where: str):
    """Raise ConfigError where a batch takes more structures than there are to train on."""
    if spec.method == "neural" and spec.n_train and spec.n_train < spec.batch_size:
        raise ConfigError(
            f"{where}: {spec.n_train} structures to train are fewer than one batch "
            f"(batch_size: {spec.batch_size})"
        )


def check_committee(spec: RunSpec, where: str):
    """Raise ConfigError for a committee of a method that gives the same model for every seed."""
    if not method(spec.method).HISTORY:
        raise ConfigError(
            f"{where}: committee: its members would differ in seed alone, on which {spec.method} "
            "does not depend"
        )


def check_names(declared: dict[str, Iterable[str]]):
    """Raise ConfigError for two files of one name, which is the target of both.

    Args:
        declared: names by the folder of their files in workflow/.
    """
    there: dict[str, str] = {}
    for folder, names in declared.items():
        for name in names:
            if name in there:
                other = f"workflow/{there[name]}/{name}.yaml"
                raise ConfigError(
                    f"workflow/{folder}/{name}.yaml: has the name of {other}, and both would be "
                    "the target of `snakemake NAME`; rename one"
                )
            there[name] = folder


def check_claims(experiment: dict, where: str):
    """Raise ConfigError for a claim about rows or columns that an experiment does not have."""
    rows = [row["key"] for row in experiment["rows"]]
    columns = [column["key"] for column in experiment["columns"]]
    for claim in experiment.get("claims", []):
        place = f"{where}: claim {claim['text']!r}"
        known_or_nearest(claim["smallest"], rows + columns, "row or column", place)
        compared, places = (rows, columns) if claim["smallest"] in rows else (columns, rows)
        for key in claim["among"]:
            known_or_nearest(key, compared, "row or column", place)
        named = list(claim.get("within", []))
        if "more_than" in claim:
            named.append(claim["more_than"])
        for key in named:
            known_or_nearest(key, places, "row or column", place)


def check_cell(spec: RunSpec, source: dict, quantity: str, unit: str | None, where: str):
    """Raise ConfigError for a quantity that the runs of a cell do not have, or an unfit unit."""
    properties = properties_of(source["module"])
    measured = [spec.target, *(name for name, p in properties.items() if p.per_atom)]
    known_or_nearest(quantity, measured, "quantity", where)
    if unit is None:
        return
    known_or_nearest(unit, UNITS, "unit", where)
    try:
        factor(properties[quantity].unit, unit)
    except ValueError as error:
        raise ConfigError(f"{where}: {quantity}: {error}") from error
