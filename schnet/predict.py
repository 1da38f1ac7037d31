"""Predictions for any file ASE can read, and their errors where it holds labels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.io import write
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from schnet.data.own import ASE_UNIT, scalar_labels, vector_labels
from schnet.data.structures import from_atoms, read_images
from schnet.engine.inference import Predictor
from schnet.errors import ConfigError, DataError, known_or_nearest
from schnet.files import atomic
from schnet.models import Model, load_model
from schnet.trained import find_model
from schnet.training_range import cautions, distances_of
from schnet.units import UNITS, factor

BATCH = 64
ANOTHER_ZERO = 10  # mean error in standard deviations that is worth a word
SHOWN = 20  # rows of the table on the terminal


@dataclass
class Predicted:
    """What a model says of structures.

    Attributes:
        model: the model.
        images: copies of the structures with their labels and, as ``schnet_TARGET``,
            ``schnet_unit`` and arrays ``schnet_forces``, the predictions.
        table: a row for each: file, index, formula, prediction and, where there are labels, label.
        labels: by quantity, ``target`` or ``forces``: true and predicted values [M], their unit.
        distances: smallest and largest distance of two atoms (within the cutoff) in Å.
    """

    model: Model
    images: list[Atoms] = field(default_factory=list)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    labels: dict[str, tuple[np.ndarray, np.ndarray, str]] = field(default_factory=dict)
    distances: tuple[float, float] = (np.inf, 0.0)


def predict(
    model, files, *, unit: str | None = None, threads: int = 1, device: str = "cpu"
) -> Predicted:
    """Predict all structures of files.

    Args:
        model: model file, or a name that `schnet models` lists.
        files: any that ASE reads.
        unit: of the energies among their labels (forces: per Å); None: eV for the results that ASE
            reads, the model's for other labels.
        threads: of the C++ engine.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: no such unit.
        DataError: structures cannot be read, or the model cannot predict one of them.
    """
    if unit is not None:
        known_or_nearest(unit, list(UNITS), "unit", "--unit")
    network = load_model(find_model(model))
    predictor = Predictor(network, threads=threads, device=device)
    out = Predicted(network)
    rows: list[dict] = []
    force_name = _force_label(network)
    forces: list[tuple[np.ndarray, np.ndarray]] = []
    for file in files:
        images = read_images(file)
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            done, (shortest, longest) = _predict_named(predictor, some, file, start)
            out.distances = min(out.distances[0], shortest), max(out.distances[1], longest)
            for index, (atoms, image) in enumerate(zip(some, done, strict=True), start):
                rows.append(_row(network, str(file), index, atoms, image, unit))
                force_labels = vector_labels(atoms).get(force_name)
                if force_labels is not None and "schnet_forces" in image.arrays:
                    scale = _force_scale(atoms, network, force_name, unit)
                    forces.append((scale * force_labels, image.arrays["schnet_forces"]))
            out.images += done
    out.table = pd.DataFrame(rows)
    if "label" in out.table:
        labelled = out.table.dropna(subset="label")
        values = labelled["label"].to_numpy(), labelled[network.target].to_numpy()
        out.labels[network.target] = (*values, network.unit)
    if forces:
        true, predicted = (np.concatenate(part).ravel() for part in zip(*forces, strict=True))
        out.labels["forces"] = true, predicted, str(network.force_unit)
    return out


def _force_label(model: Model) -> str:
    """What the forces are called that the model was trained on."""
    run = json.loads(model.provenance.get("run", "{}"))
    return run.get("forces") or "forces"


def _predict_named(predictor: Predictor, images: list[Atoms], file, start: int):
    """See `_predict`; DataError names the file and the first structure that cannot be predicted."""
    try:
        return _predict(predictor, images)
    except DataError:
        for index, atoms in enumerate(images, start):
            try:
                _predict(predictor, [atoms])
            except DataError as error:
                raise DataError(f"{file}, structure {index}: {error}") from error
        raise


def _predict(predictor: Predictor, images: list[Atoms]):
    """Copies of the structures with the predictions in them, and their range of distances."""
    model = predictor.model
    data = from_atoms(
        images,
        cutoff=model.hyperparameters.cutoff,
        device=predictor.device,
        dtype=predictor.dtype,
    )
    batch = data.batch(torch.arange(len(data)))
    values, forces = predictor(batch, forces=model.force_unit is not None)
    out = []
    for k, atoms in enumerate(images):
        image = atoms.copy()
        image.calc = atoms.calc
        image.info[f"schnet_{model.target}"] = float(values[k])
        image.info["schnet_unit"] = model.unit
        if forces is not None:
            rows = slice(data.offsets[k], data.offsets[k + 1])
            image.arrays["schnet_forces"] = forces[rows].cpu().double().numpy()
        out.append(image)
    return out, distances_of(batch)


def _row(model: Model, file: str, index: int, atoms: Atoms, image: Atoms, unit: str | None) -> dict:
    """One line of the table, in the model's unit."""
    row = {
        "file": file,
        "index": index,
        "formula": atoms.get_chemical_formula(),
        model.target: image.info[f"schnet_{model.target}"],
        "unit": model.unit,
    }
    label = scalar_labels(atoms).get(model.target)
    if label is not None:
        row["label"] = label * _label_scale(atoms, model, unit)
    return row


def _is_result(atoms: Atoms, name: str) -> bool:
    """Whether a label is the result of a calculator, and so in ASE's unit unless that is said."""
    return atoms.calc is not None and name in atoms.calc.results


def _label_scale(atoms: Atoms, model: Model, unit: str | None) -> float:
    """From a label's unit to the model's."""
    if UNITS[model.unit][0] != "energy":
        return 1.0
    usual = ASE_UNIT if _is_result(atoms, model.target) else model.unit
    return factor(unit or usual, model.unit)


def _force_scale(atoms: Atoms, model: Model, name: str, unit: str | None) -> float:
    """From the unit of force labels to the model's."""
    usual = f"{ASE_UNIT}/Å" if _is_result(atoms, name) else str(model.force_unit)
    return factor(f"{unit}/Å" if unit else usual, str(model.force_unit))


# ---- what is written and said ----
def _format(path) -> str:
    """ASE's name of the format that a file's name says.

    Raises:
        ConfigError: it says none that structures are written in.
    """
    try:
        name = filetype(str(path), read=False)
    except UnknownFileTypeError:
        name = ""
    if name not in ioformats or not ioformats[name].can_write:
        raise ConfigError(f"{path}: its name says no format; use .extxyz, .traj, .db or .csv")
    # plain xyz has no room for labels
    return "extxyz" if name == "xyz" else name


def check_output(path) -> None:
    """Raise ConfigError for a file whose name says no format to write predictions in."""
    if Path(path).suffix != ".csv":
        _format(path)


def write_predicted(predicted: Predicted, path) -> None:
    """Write structures in the format that a file's name says, or the table for .csv.

    Raises:
        ConfigError: see `check_output`.
    """
    check_output(path)
    with atomic(path) as temporary:
        if Path(path).suffix == ".csv":
            predicted.table.to_csv(temporary, index=False)
            return
        write(temporary, predicted.images, format=_format(path))


def report(predicted: Predicted, *, table: bool) -> None:
    """Print the errors against labels, doubts, and with ``table`` the predictions."""
    model = predicted.model
    if table:
        print(predicted.table.head(SHOWN).to_string(index=False))
        if len(predicted.table) > SHOWN:
            print(f"… {len(predicted.table) - SHOWN:,} more; -o FILE writes all")
    for quantity, (true, value, unit) in predicted.labels.items():
        error = value - true
        print(
            f"{quantity}: MAE {np.abs(error).mean():.4g}, "
            f"RMSE {np.sqrt((error**2).mean()):.4g} {unit} against {len(true):,} labels"
        )
        if len(error) > 1 and abs(error.mean()) > ANOTHER_ZERO * error.std():
            print(
                f"caution: all predictions of {quantity} differ from the labels by about "
                f"{error.mean():.4g} {unit}; are these counted from the same zero?"
            )
    for text in cautions(model, predicted.images, predicted.distances).values():
        print(f"caution: {text}")


def draw_parity(predicted: Predicted, path) -> None:
    """Predicted against labelled values, a panel for each quantity.

    Raises:
        DataError: the structures have no labels.
    """
    from matplotlib import rc_context

    from schnet.figures import predicted_true, style
    from schnet.figures.results import Predictions

    if not predicted.labels:
        raise DataError("the structures have no labels to draw predictions against")
    with rc_context(style.settings()):
        count = len(predicted.labels)
        picture, axes = style.panels(count, columns=2, width=3.2, height=3.0)
        for ax, (name, (true, value, unit)) in zip(axes, predicted.labels.items(), strict=True):
            found = Predictions(name, true, value, unit)
            predicted_true.panel(ax, found, predicted_true.OPTIONS)
            ax.set_title(name)
        with atomic(path) as temporary:
            picture.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png")
