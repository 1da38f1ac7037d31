"""Model files: weights, hyper-parameters, offsets, elements, units and provenance."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from types import NoneType

import torch

from schnet.errors import ModelError, first_line
from schnet.files import atomic
from schnet.models.contract import MAX_Z, Model
from schnet.models.registry import build

FORMAT = "schnet-model"
#: targets of files without ``kind`` that are total energies of a structure
ENERGIES = ("energy", "U0")
#: what every model file has, and of which type
CONTENT: dict[str, type | tuple[type, ...]] = {
    "architecture": str,
    "hyperparameters": dict,
    "state": dict,
    "alternatives": dict,
    "target": str,
    "unit": str,
    "force_unit": (str, NoneType),
    "provenance": dict,
}


def kind_of(target: str, force_unit: str | None) -> str:
    """What a target is where that is not recorded: "energy" for total energies, else "other"."""
    return "energy" if force_unit is not None or target in ENERGIES else "other"


def save_model(
    path,
    model: Model,
    *,
    target: str,
    unit: str,
    force_unit: str | None = None,
    kind: str | None = None,
    provenance: dict | None = None,
    alternatives: dict | None = None,
) -> None:
    """Write a model file, which loads with ``weights_only=True``.

    Args:
        path: the file.
        model: the model; its weights, hyper-parameters, offsets and elements are written.
        target: name of the property that it predicts.
        unit: of the property.
        force_unit: of the forces, where it was trained on them.
        kind: what the property is (``Property.kind``); None: guessed from its name.
        provenance: anything plain that tells how the model came about.
        alternatives: other state dictionaries of the same model by name ("raw").

    Example:
        >>> from schnet import SchNet, load_model
        >>> save_model("untrained.pt", SchNet(), target="energy", unit="eV")
        >>> load_model("untrained.pt").unit
        'eV'
    """
    content = dict(
        format=FORMAT,
        version=1,
        architecture=model.name,
        hyperparameters=model.describe(),
        state={k: v.detach().cpu().clone() for k, v in model.state_dict().items()},
        alternatives=alternatives or {},
        # interned: pickle writes equal texts differently, by whether they are one object, and files
        # of the same model should be the same
        target=sys.intern(target),
        unit=unit,
        force_unit=force_unit,
        kind=sys.intern(kind or kind_of(target, force_unit)),
        provenance=provenance or {},
    )
    write_tensors(path, content)


def write_tensors(path, content: dict) -> None:
    """Write what `read_tensors` reads, whole or not at all; the same content as the same bytes.

    Raises:
        SchNetError: the disk is full, or the directory cannot be written.
    """
    # in memory first: torch hides the reason when it cannot write, and stores the name of a path
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_tensors(path, device="cpu") -> dict:
    """A dictionary of plain tensors, numbers and text that torch.save has written.

    Raises:
        ValueError: the file is damaged, or holds something else; the message is one line.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # PyTorch does not look at the checksums
            damaged = archive.testzip()
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # what a damaged file raises may be anything
        raise ValueError(first_line(error)) from error
    if damaged or not isinstance(content, dict):
        raise ValueError(f"{damaged} is damaged" if damaged else "holds no names")
    return content


def read_model_file(path) -> dict:
    """The content of a model file.

    Raises:
        ModelError: it is missing, damaged, not one of ours, or holds more than plain tensors.
    """
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{path}: no such model file")
    try:
        content = read_tensors(path)
    except ValueError as error:
        raise ModelError(
            f"{path}: refused, not a model file of plain tensors ({error}); "
            "never load it with pickle"
        ) from error
    if isinstance(content.get("method"), str):
        raise ModelError(
            f"{path}: is a model of the method {content['method']}; here networks are taken, and "
            "`schnet evaluate` judges those of all methods"
        )
    if content.get("format") != FORMAT:
        raise ModelError(
            f"{path}: not a SchNet model file; use the model.pt of a run or `schnet import-tf`"
        )
    for key, kind in CONTENT.items():
        if key not in content or not isinstance(content[key], kind):
            raise ModelError(f"{path}: its {key} is missing or damaged; train or import it again")
    return content


def load_model(path, *, weights: str | None = None) -> Model:
    """A ready model in evaluation mode from a model file.

    Args:
        path: the file.
        weights: an alternative set of weights kept in the file ("raw"); None: those of the model.

    Returns:
        The model, with the attributes ``target``, ``unit``, ``force_unit``, ``kind`` and
        ``provenance`` of the file.

    Raises:
        ModelError: the file cannot be used, or has no such weights.

    Example:
        >>> from schnet import find_model
        >>> model = load_model(find_model("md17_ethanol"))
        >>> model.target, model.unit, model.force_unit
        ('energy', 'kcal/mol', 'kcal/mol/Å')
    """
    return make_model(read_model_file(path), path, weights=weights)


def make_model(content: dict, path, *, weights: str | None = None) -> Model:
    """The model of a file that was read (see ``read_model_file`` and ``load_model``)."""
    model = build(content["architecture"], content["hyperparameters"])
    state = content["state"]
    if weights is not None:
        if weights not in content["alternatives"]:
            there = ", ".join(content["alternatives"]) or "none"
            raise ModelError(f"{path}: holds no weights {weights!r}; it has {there}")
        state = content["alternatives"][weights]
    # files of earlier versions do not tell the elements: nowhere true means unknown
    state = {"elements": torch.zeros(MAX_Z, dtype=torch.bool), **state}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path}: the weights do not fit the architecture ({reason})") from error
    model.target, model.unit = content["target"], content["unit"]
    model.provenance = content["provenance"]
    texts = (content.get(key) for key in ("force_unit", "kind"))
    model.force_unit, kind = (text if isinstance(text, str) else None for text in texts)
    model.kind = kind or kind_of(model.target, model.force_unit)
    return model.eval().requires_grad_(False)
