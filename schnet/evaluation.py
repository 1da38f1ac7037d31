"""Errors of a trained model on every part of its split; every prediction is kept."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import torch

from schnet.data.splits import load_split, split_digest
from schnet.data.store import Store
from schnet.data.structures import load
from schnet.engine.inference import Predictor
from schnet.errors import DataError
from schnet.files import atomic, read_yaml, write_json
from schnet.models import load_model, read_model_file

CHUNK = 2048  # structures in memory at a time
BATCH = 256


def predict(predictor: Predictor, store: Store, indices, target: str, forces: str | None):
    """Predict structures of a store in chunks; yields (true, predicted, true forces, predicted forces, atoms per structure)."""
    cutoff = predictor.model.hyperparameters.cutoff
    names = [target] + ([forces] if forces else [])
    for at in range(0, len(indices), CHUNK):
        data = load(store, indices[at : at + CHUNK], names, cutoff=cutoff, device=predictor.device)
        energy, force = [], []
        for part in torch.arange(len(data), device=predictor.device).split(BATCH):
            e, f = predictor(data.batch(part), forces is not None)
            energy.append(e.cpu())
            if f is not None:
                force.append(f.cpu())
        yield (
            data.properties[target].cpu().numpy(),
            torch.cat(energy).numpy(),
            data.properties[forces].cpu().numpy() if forces else None,
            torch.cat(force).numpy() if forces else None,
            data.counts.cpu().numpy(),
        )


def summary(error: np.ndarray, unit: str, ids=None) -> dict:
    """Mean absolute, root mean square and largest errors of one quantity, with the structures they belong to."""
    absolute = np.abs(error)
    out = {"mae": float(absolute.mean()), "rmse": float(np.sqrt((error**2).mean())), "bias": float(error.mean()), "unit": unit, "n": int(error.size)}
    if ids is not None:
        order = np.argsort(absolute, kind="stable")
        out["smallest"] = [{"id": str(ids[k]), "error": float(error[k])} for k in order[:3]]
        out["largest"] = [{"id": str(ids[k]), "error": float(error[k])} for k in order[::-1][:5]]
    return out


def evaluate(run_dir, *, threads: int = 1, device: str = "cpu", engine: str = "auto"):
    """Predict validation and test parts with the model of a run; writes predictions.h5 and metrics.json.

    The averaged weights, where there are any, are the model; errors of the raw weights stand beside them.
    Raises DataError when data or split are not those the run was trained on.
    """
    run_dir = Path(run_dir)
    run = read_yaml(run_dir / "run.yaml")
    spec = run["run"]
    store = Store(spec["data"])
    if store.digest != run["data"]["digest"] or split_digest(spec["split"]) != run["data"]["split_digest"]:
        raise DataError(f"{run_dir}: was trained on other data or another split than {spec['data']} and {spec['split']} are now; train again")
    parts = load_split(spec["split"], store)
    target, forces = spec["target"], spec["forces"]
    if forces is None and "forces" in store.properties and store.properties[target].description == "total energy":
        forces = "forces"  # energy-only models are judged by their forces as well (Table IV)
    unit = store.properties[target].unit
    torch.set_num_threads(threads)
    metrics = {"target": target, "weights": run["result"]["weights"], "parts": {}, "alternatives": {}}
    ids = store.ids()
    tested = {name: v for name, v in parts.items() if name != "train"}
    with atomic(run_dir / "predictions.h5") as temporary, h5py.File(temporary, "w") as h5:
        predictor = Predictor(load_model(run_dir / "model.pt"), device=device, threads=threads, engine=engine)
        metrics["engine"] = predictor.engine.name
        for name, indices in tested.items():
            chunks = list(predict(predictor, store, indices, target, forces))
            if not chunks:
                continue
            true, predicted = (np.concatenate([c[k] for c in chunks]) for k in (0, 1))
            group = h5.create_group(name)
            group.attrs["unit"] = unit
            group["index"] = indices
            group["true"], group["predicted"] = true, predicted
            metrics["parts"][name] = {target: summary(predicted - true, unit, ids[indices])}
            if forces:
                f_true, f_predicted = (np.concatenate([c[k] for c in chunks]).astype("f4") for k in (2, 3))
                options = dict(compression="gzip", compression_opts=1, shuffle=True)
                group.create_dataset("forces_true", data=f_true, **options)
                group.create_dataset("forces_predicted", data=f_predicted, **options)
                group["n_atoms"] = np.concatenate([c[4] for c in chunks])
                metrics["parts"][name]["forces"] = summary((f_predicted - f_true).ravel(), store.properties[forces].unit)
        h5.attrs["target"] = target
    for name in read_model_file(run_dir / "model.pt")["alternatives"]:
        predictor = Predictor(load_model(run_dir / "model.pt", weights=name), device=device, threads=threads, engine=engine)
        results = metrics["alternatives"][name] = {}
        for part, indices in tested.items():
            if not part.startswith("test"):
                continue
            chunks = list(predict(predictor, store, indices, target, forces))
            error = np.concatenate([c[1] - c[0] for c in chunks])
            results[part] = {target: {"mae": float(np.abs(error).mean()), "unit": unit}}
            if forces:
                error = np.concatenate([(c[3] - c[2]).ravel() for c in chunks])
                results[part]["forces"] = {"mae": float(np.abs(error).mean()), "unit": store.properties[forces].unit}
    write_json(run_dir / "metrics.json", json.loads(json.dumps(metrics)))
    (run_dir / "checkpoint.pt").unlink(missing_ok=True)  # the run is complete
    return metrics
