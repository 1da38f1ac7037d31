"""Kinds of run: those of one kind take the same time for a gradient step, or for their fit."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

from schnet.project.checks import abbreviations, hyperparameters_class, own_hyperparameters
from schnet.run import RunSpec


class Kind(NamedTuple):
    """What decides the time of a gradient step, or of the whole fit of a method without steps.

    ``model`` tells the hyper-parameters: those that name a run, the readout, and what is not
    default. n_train is None for gradient steps, whose time does not depend on it.
    """

    dataset: str
    method: str
    architecture: str
    model: str
    forces: bool
    n_train: int | None

    def text(self) -> str:
        """For people."""
        what = self.architecture if self.method == "neural" else self.method
        parts = [f"{self.dataset:22}", f"{what:8}", self.model]
        if self.n_train is not None:
            parts.append(f"N={self.n_train:,}")
        parts.append("energy+forces" if self.forces else "one property")
        return " ".join(filter(None, parts))


def kind_of(settings: dict) -> Kind:
    """The kind of a run with these settings.

    Raises ConfigError for a method, an architecture or a hyper-parameter that does not exist.
    """
    method = settings.get("method", "neural")
    architecture = settings.get("architecture", "schnet")
    spec = RunSpec(
        settings["dataset"],
        settings["target"],
        method=method,
        architecture=architecture,
        model=settings.get("model", {}),
    )
    neural = method == "neural"
    return Kind(
        settings["dataset"],
        method,
        architecture if neural else "",
        _model_text(spec),
        bool(settings.get("forces")),
        None if neural else settings.get("n_train"),
    )


def _model_text(spec: RunSpec) -> str:
    """Hyper-parameters in short, those always named and those not default: ``T=6 F=64 sum``."""
    defaults = {f.name: f.default for f in fields(hyperparameters_class(spec))}
    model = own_hyperparameters(spec)
    parts = []
    for name, letter in abbreviations(spec).items():
        parts.append(f"{letter}={model.pop(name, defaults[name])}")
    readout = model.pop("readout", defaults.get("readout"))
    parts += [f"{name}={value}" for name, value in sorted(model.items())]
    return " ".join(filter(None, [*parts, readout]))
