"""Errors of a fitted model on every part of its split; every prediction is kept."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from schnet import methods
from schnet.data.store import Store
from schnet.files import write_json
from schnet.hdf5 import atomic_hdf5
from schnet.methods import Predictor
from schnet.record import Inputs, finished_run, open_inputs_of
from schnet.run import METRICS_FILE, PREDICTIONS_FILE, RunSpec
from schnet.units import UNITS

CHUNK = 2048  # structures in memory at a time


def predict(
    predictor: Predictor, inputs: Inputs, indices, target: str, forces: str | None
) -> dict[str, np.ndarray]:
    """True and predicted values of structures of a data set.

    Args:
        predictor: of any method.
        inputs: the opened data.
        indices: of M structures.
        target, forces: names of properties; forces: None where they are not wanted.

    Returns:
        true, predicted [M] and, with forces, forces_true, forces_predicted [N, 3] float32 and
        n_atoms [M].
    """
    names = [target] + ([forces] if forces else [])
    out = defaultdict(list)
    for at in range(0, len(indices), CHUNK):
        data = inputs.load(
            indices[at : at + CHUNK],
            names,
            cutoff=predictor.cutoff,
            device=predictor.device,
            dtype=predictor.dtype,
        )
        values, predicted_forces = predictor.predict(data, forces is not None)
        out["true"].append(data.properties[target].cpu().numpy())
        out["predicted"].append(values)
        if forces:
            out["forces_true"].append(data.properties[forces].float().cpu().numpy())
            out["forces_predicted"].append(predicted_forces)
            out["n_atoms"].append(data.counts.cpu().numpy())
    return {key: np.concatenate(parts) for key, parts in out.items()}


def summary(error: np.ndarray, unit: str, ids=None) -> dict:
    """Mean absolute, root mean square, mean and extreme errors of one quantity.

    Args:
        error: predicted minus true values, [M].
        unit: theirs.
        ids: of the structures that they belong to; None: the extremes are left out.
    """
    absolute = np.abs(error)
    out = {
        "mae": float(absolute.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "bias": float(error.mean()),
        "unit": unit,
        "n": int(error.size),
    }
    if ids is not None:
        order = np.argsort(absolute, kind="stable")
        out["smallest"] = [{"id": str(ids[k]), "error": float(error[k])} for k in order[:3]]
        out["largest"] = [{"id": str(ids[k]), "error": float(error[k])} for k in order[::-1][:5]]
    return out


def errors(
    predictions: dict[str, np.ndarray], store: Store, target: str, forces: str | None, ids
) -> dict[str, dict]:
    """Summaries of the errors of a property and, where asked for, of forces, by quantity."""
    difference = predictions["predicted"] - predictions["true"]
    out = {target: summary(difference, store.properties[target].unit, ids)}
    if forces:
        difference = predictions["forces_predicted"] - predictions["forces_true"]
        out["forces"] = summary(difference.ravel(), store.properties[forces].unit)
    return out


def deviation(store: Store, target: str, indices, true: np.ndarray) -> float:
    """Standard deviation of a target over structures, to judge an error by.

    Of total energies it is that of what is left when single-atom energies are removed (atomization
    energies, up to the sign), as in the comparisons that divide by it (docs/protocol.md).

    Args:
        store: the data. target: name of a property.
        indices: of M structures. true: their values, [M] in the property's unit.
    """
    references = store.atomrefs.get(target)
    if references is None or UNITS[store.properties[target].unit][0] != "energy":
        return float(np.std(true))
    with store.open() as h5:
        atoms = references[h5["atomic_numbers"][:]]
    # totals[m] is the sum over all atoms before structure m
    totals = np.concatenate([[0.0], np.cumsum(atoms)])[store.offsets]
    return float(np.std(true - np.diff(totals)[indices]))


def judged_forces(spec: RunSpec, store: Store, predictor: Predictor) -> str | None:
    """The forces by which a model is judged, or None.

    Models of energies alone are judged by their forces too (Table IV), where the data have some and
    the method can predict them.
    """
    if spec.forces:
        return spec.forces
    return store.forces_of(spec.target) if predictor.forces else None


def _write_predictions(group: h5py.Group, indices, predictions: dict, unit: str) -> None:
    group.attrs["unit"] = unit
    group["index"] = indices
    for key, values in predictions.items():
        small = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        group.create_dataset(key, data=values, **(small if key.startswith("forces") else {}))


def _short(quantities: dict[str, dict]) -> dict[str, dict]:
    """Mean absolute errors alone."""
    return {name: {"mae": v["mae"], "unit": v["unit"]} for name, v in quantities.items()}


def evaluate(
    folder,
    *,
    threads: int = 1,
    device: str = "cpu",
    engine: str = "auto",
    data: str | None = None,
    split: str | None = None,
    neighbours: str | None = None,
    keep_checkpoint: bool = False,
) -> dict:
    """Predict validation and test parts with the model of a run.

    Writes predictions.h5 and metrics.json into the run's directory, and deletes the checkpoint: the
    run is complete. Where the model file holds other weights as well (those that are no average),
    their test errors stand under ``alternatives``.

    Args:
        folder: the directory of a finished run.
        threads, device, engine: what computes, see schnet.engine.
        data, split, neighbours: files in place of those that the run was made from, with the same
            content.
        keep_checkpoint: so that the training, asked for again, is back in seconds.

    Returns:
        The content of metrics.json.

    Raises:
        DataError: data or split are not those that the run was made from.
    """
    folder = Path(folder)
    spec, about = finished_run(folder, data=data, split=split, neighbours=neighbours)
    inputs = open_inputs_of(folder, spec, about)
    store, ids = inputs.store, inputs.store.ids()
    tested = {name: v for name, v in inputs.parts.items() if name != "train" and len(v)}
    load = partial(methods.load, folder, spec.method, threads=threads, device=device, engine=engine)
    main = load()
    forces = judged_forces(spec, store, main)
    metrics: dict = {"target": spec.target, "method": spec.method}
    if "weights" in about["result"]:
        metrics["weights"] = about["result"]["weights"]
    metrics |= {"parts": {}, "alternatives": {}}
    predictions = {
        name: predict(main, inputs, indices, spec.target, forces)
        for name, indices in tested.items()
    }
    with atomic_hdf5(folder / PREDICTIONS_FILE) as h5:
        h5.attrs["target"] = spec.target
        for name, found in predictions.items():
            unit = store.properties[spec.target].unit
            _write_predictions(h5.create_group(name), tested[name], found, unit)
    for name, found in predictions.items():
        quantities = errors(found, store, spec.target, forces, ids[tested[name]])
        spread = deviation(store, spec.target, tested[name], found["true"])
        quantities[spec.target]["deviation"] = spread
        metrics["parts"][name] = quantities
    for weights in main.alternatives:
        other = load(weights=weights)
        results = metrics["alternatives"][weights] = {}
        for name, indices in tested.items():
            if name.startswith("test"):
                found = predict(other, inputs, indices, spec.target, forces)
                results[name] = _short(errors(found, store, spec.target, forces, ids[indices]))
    metrics["engine"] = main.name
    write_json(folder / METRICS_FILE, metrics)
    if not keep_checkpoint:
        (folder / "checkpoint.pt").unlink(missing_ok=True)
    return metrics
