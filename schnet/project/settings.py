"""The settings of one cell of a table, from the layers that speak of it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from schnet.run import protocol_settings

#: hyper-parameters that all share: they stay when a row or column names another one
SHARED_HYPERPARAMETERS = {"method": ("readout",), "architecture": ("readout", "cutoff")}
DEFAULTS = {"protocol": "paper", "method": "neural", "architecture": "schnet", "model": {}}


def merge(*layers: dict) -> dict:
    """Settings of several layers; later ones win, ``model`` is merged key by key.

    A hyper-parameter set to null is dropped, which leaves the architecture's own default. A layer
    that names another method or architecture drops the hyper-parameters that only the former has.
    """
    out: dict = {}
    for layer in layers:
        for key, shared in SHARED_HYPERPARAMETERS.items():
            if _differs(layer, out, key):
                out["model"] = {k: v for k, v in out.get("model", {}).items() if k in shared}
        for key, value in layer.items():
            if key == "model":
                merged = out.get("model", {}) | value
                out["model"] = {k: v for k, v in merged.items() if v is not None}
            else:
                out[key] = value
    return out


def _differs(layer: dict, below: dict, key: str) -> bool:
    return key in layer and key in below and layer[key] != below[key]


def settings_of_cell(
    config: dict,
    scale: dict,
    family: dict,
    experiment: dict,
    row: dict,
    column: dict,
    hyperparameters: Callable[[dict], Collection[str]],
) -> dict:
    """Every setting of the runs behind a cell, repeats and paths aside.

    What speaks last wins: the scale, its family of data sets, the protocol, the scale's adjustments
    of that protocol and of the architecture, the family's of the architecture, the experiment, its
    row, its column, ``run:`` in the configuration. Sizes and steps of a scale stand for those of
    the paper, so ``n_train`` of an experiment is looked up there.

    Args:
        config, scale, family, experiment, row, column: the layers.
        hyperparameters: names of those that settings with a method and an architecture can have;
            others in the configuration's ``run:`` are meant for other cells.
    """
    wanted = merge(
        DEFAULTS, experiment["run"], row.get("run", {}), column.get("run", {}), config["run"]
    )
    default_protocol = scale["run"].get("protocol", DEFAULTS["protocol"])
    protocol = config["protocol"] or _explicit_protocol(experiment, row, column, config)
    protocol = protocol or default_protocol
    sizes = {"n_train": size_at_scale(family, wanted), "n_validation": family["n_validation"]}
    lengths = {"steps": family["steps"]} if "steps" in family else {}
    settings = merge(
        DEFAULTS,
        scale["run"],
        sizes | lengths,
        family.get("run", {}),
        protocol_settings(protocol, wanted["dataset"]),
        scale.get("protocols", {}).get(protocol, {}),
        scale.get("architectures", {}).get(wanted["architecture"], {}),
        family.get("architectures", {}).get(wanted["architecture"], {}),
        without_size(experiment["run"]),
        without_size(row.get("run", {})),
        without_size(column.get("run", {})),
        {k: v for k, v in config["run"].items() if k != "model"},
        {"protocol": protocol},
    )
    known = hyperparameters(settings)
    overrides = {k: v for k, v in config["run"].get("model", {}).items() if k in known}
    settings = merge(settings, {"model": overrides})
    if config["steps"] and "steps" in settings:
        settings["steps"] = min(settings["steps"], config["steps"])
    if "times_steps" in column:
        settings["steps"] = max(1, round(column["times_steps"] * settings["steps"]))
    return settings


def _explicit_protocol(experiment, row, column, config) -> str | None:
    """The protocol that an experiment asks for by name, or None."""
    layers = (config["run"], column.get("run", {}), row.get("run", {}), experiment["run"])
    return next((layer["protocol"] for layer in layers if "protocol" in layer), None)


def without_size(layer: dict) -> dict:
    """A layer's settings but for the size, which the scale decides."""
    return {k: v for k, v in layer.items() if k != "n_train"}


def size_at_scale(family: dict, wanted: dict) -> int | None:
    """The number of training structures that stands for the paper's at this scale, or None."""
    sizes = family["n_train"]
    n_train = wanted["n_train"]
    return sizes.get(n_train, sizes.get(str(n_train)))
