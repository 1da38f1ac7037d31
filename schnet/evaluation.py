"""Errors of a trained model on every part of its split; every prediction is kept."""

from __future__ import annotations

import json
from collections import defaultdict
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


def predict(predictor: Predictor, store: Store, indices, target: str, forces: str | None) -> dict[str, np.ndarray]:
    """True and predicted values of structures of a store: true, predicted [M] and, when asked for, forces_true,
    forces_predicted [N, 3] float32 and n_atoms [M]."""
    cutoff = predictor.model.hyperparameters.cutoff
    names = [target] + ([forces] if forces else [])
    out = defaultdict(list)
    for at in range(0, len(indices), CHUNK):
        data = load(store, indices[at : at + CHUNK], names, cutoff=cutoff, device=predictor.device)
        out["true"].append(data.properties[target].cpu())
        if forces:
            out["forces_true"].append(data.properties[forces].float().cpu())
            out["n_atoms"].append(data.counts.cpu())
        for part in torch.arange(len(data)).split(BATCH):
            e, f = predictor(data.batch(part), forces is not None)
            out["predicted"].append(e.cpu())
            if forces:
                out["forces_predicted"].append(f.float().cpu())
    return {k: torch.cat(v).numpy() for k, v in out.items()}


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
        for name, indices in tested.items():
            if not len(indices):
                continue
            p = predict(predictor, store, indices, target, forces)
            group = h5.create_group(name)
            group.attrs["unit"] = unit
            group["index"] = indices
            group["true"], group["predicted"] = p["true"], p["predicted"]
            metrics["parts"][name] = {target: summary(p["predicted"] - p["true"], unit, ids[indices])}
            if forces:
                for k in ("forces_true", "forces_predicted"):
                    group.create_dataset(k, data=p[k], compression="gzip", compression_opts=1, shuffle=True)
                group["n_atoms"] = p["n_atoms"]
                metrics["parts"][name]["forces"] = summary((p["forces_predicted"] - p["forces_true"]).ravel(), store.properties[forces].unit)
        metrics["engine"] = predictor.engine.name
        h5.attrs["target"] = target
    for name in read_model_file(run_dir / "model.pt")["alternatives"]:
        predictor = Predictor(load_model(run_dir / "model.pt", weights=name), device=device, threads=threads, engine=engine)
        results = metrics["alternatives"][name] = {}
        for part, indices in tested.items():
            if part.startswith("test") and len(indices):
                p = predict(predictor, store, indices, target, forces)
                results[part] = {target: {"mae": float(np.abs(p["predicted"] - p["true"]).mean()), "unit": unit}}
                if forces:
                    error = np.abs(p["forces_predicted"] - p["forces_true"])
                    results[part]["forces"] = {"mae": float(error.mean(dtype=float)), "unit": store.properties[forces].unit}
    write_json(run_dir / "metrics.json", json.loads(json.dumps(metrics)))
    (run_dir / "checkpoint.pt").unlink(missing_ok=True)  # the run is complete
    return metrics
