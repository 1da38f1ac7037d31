"""The end of a training: the model file, and what it came to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from schnet.models import save_model
from schnet.record import Inputs
from schnet.run import RunSpec
from schnet.training.objective import Examples, Objective
from schnet.training.state import TrainingState


def _energy_constant(spec: RunSpec, objective: Objective, training: Examples) -> float:
    """What the present model's energies are too high by.

    The constant of integration does not enter a loss of forces alone (ρ = 0): it is fitted to the
    training structures afterwards.
    """
    if spec.forces and spec.rho == 0:
        return objective.errors(training)["bias"]
    return 0.0


def final_weights(
    spec: RunSpec, model, state: TrainingState, objective: Objective, training: Examples
) -> dict[str, dict[str, Tensor]]:
    """State dictionaries with the best weights of every kind, on the CPU; leaves one in the model.

    Args:
        spec, model, state, objective: of the training.
        training: the training examples.
    """
    mean = float(model.mean)
    structures = training.structures
    found = {}
    for kind, best in state.best.items():
        with state.using(best.weights):
            constant = _energy_constant(spec, objective, training)
            content = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        if model.hyperparameters.readout == "sum":
            constant /= float(structures.counts.double().mean())
        content["mean"] = torch.tensor(mean - constant, dtype=torch.float64)
        found[kind] = content
    model.load_state_dict(found[state.selected])
    return found


def write_model(
    path: Path,
    spec: RunSpec,
    model,
    inputs: Inputs,
    state: TrainingState,
    weights: dict[str, dict[str, Tensor]],
    trained_on: dict,
) -> None:
    """Write the model file of a training: the same bytes for the same run, wherever it lies.

    Args:
        trained_on: see `schnet.training_range`.
    """
    properties = inputs.store.properties
    save_model(
        path,
        model,
        target=spec.target,
        unit=properties[spec.target].unit,
        kind=properties[spec.target].kind,
        force_unit=properties[spec.forces].unit if spec.forces else None,
        provenance={
            "run": json.dumps(spec.scientific(), sort_keys=True),
            "data": inputs.store.digest,
            "split": inputs.split_digest,
            "periodic": inputs.store.periodic,
            "steps": state.step,
            **trained_on,
        },
        alternatives={kind: w for kind, w in weights.items() if kind != state.selected},
    )


def result_of(state: TrainingState, engine) -> dict:
    """What a training came to, for run.yaml."""
    best = state.best[state.selected]
    return {
        **vars(state.cost),
        "parameters": state.flat.tensor.numel(),
        "steps": state.step,
        "best_step": best.step,
        "best_validation_loss": best.loss,
        "weights": state.selected,
        "engine": engine.name,
    }
