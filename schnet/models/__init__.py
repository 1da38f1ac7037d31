"""Architectures behind one contract, and their files.

A model is a torch.nn.Module built from a ``Hyperparameters`` dataclass with ``forward(batch)``,
``energy_and_forces(batch)``, ``offset(batch)``, ``set_offsets(...)`` and ``describe()``; a new one is a
new file here and a line in MODELS.
"""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from pathlib import Path

import torch

from schnet.errors import ConfigError, ModelError
from schnet.files import atomic
from schnet.models import schnet

MODELS = {"schnet": (schnet.SchNet, schnet.Hyperparameters)}
FORMAT = "schnet-model"


def build(name: str, hyperparameters: dict):
    """A freshly initialised model; ConfigError with the nearest valid name for a typo."""
    if name not in MODELS:
        raise ConfigError(f"model: no architecture {name!r}; known: {', '.join(MODELS)}")
    cls, parameters = MODELS[name]
    known = [f.name for f in dataclasses.fields(parameters)]
    for key in hyperparameters:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ConfigError(
                f"model: unknown hyper-parameter {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
            )
    return cls(parameters(**hyperparameters))


def save_model(path, model, *, target: str, unit: str, force_unit: str | None = None, provenance: dict | None = None, alternatives=None):
    """Write a model file: weights, hyper-parameters, offsets, units, provenance; loads with weights_only=True."""
    content = dict(
        format=FORMAT,
        version=1,
        architecture=model.name,
        hyperparameters=model.describe(),
        state={k: v.detach().cpu().clone() for k, v in model.state_dict().items()},
        alternatives=alternatives or {},
        target=target,
        unit=unit,
        force_unit=force_unit,
        provenance=provenance or {},
    )
    with atomic(path) as temporary, open(temporary, "wb") as f:  # given a path, torch would store its name
        torch.save(content, f)


def read_model_file(path) -> dict:
    """The content of a model file; ModelError when it is missing, not one of ours, or not plain tensors."""
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path}: no such model file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120]
        raise ModelError(f"{path}: refused, not a model file of plain tensors ({reason}); never load it with pickle") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path}: not a SchNet model file; use the model.pt of a run or `schnet import-tf`")
    return content


def load_model(path, *, weights: str | None = None):
    """A ready model in evaluation mode from a model file; ``weights``: an alternative set kept in the file ("raw").

    The model carries ``target``, ``unit``, ``force_unit`` and ``provenance`` as attributes.
    """
    content = read_model_file(path)
    model = build(content["architecture"], content["hyperparameters"])
    state = content["state"]
    if weights is not None:
        if weights not in content["alternatives"]:
            raise ModelError(f"{path}: holds no weights {weights!r}; it has {', '.join(content['alternatives']) or 'none'}")
        state = content["alternatives"][weights]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path}: the weights do not fit the architecture ({str(error).splitlines()[-1].strip()})") from error
    for key in ("target", "unit", "force_unit", "provenance"):
        setattr(model, key, content[key])
    return model.eval().requires_grad_(False)
