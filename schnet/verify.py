"""Does the present code still give the numbers of a finished run?

A training is replayed to its first row of history.csv, any other fit is done again, both in a
temporary folder; test structures are predicted anew; and metrics.json is computed again from
predictions.h5 or, where that was not kept, compared with the new predictions. Where the model was
not kept either, only the beginning of its training is replayed; any other fit, done again, gives a
model. What was found is kept beside the run, in verified.json. Where errors cannot be computed
again, a metrics.json that has changed since is refused.
"""

from __future__ import annotations

import csv
import datetime
import logging
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from schnet import methods, provenance
from schnet.errors import ConfigError, DataError
from schnet.evaluation import errors, judged_forces, predict
from schnet.files import file_digest, read_json, write_json
from schnet.methods import Predictor
from schnet.record import Inputs, finished_run, open_inputs_of
from schnet.run import METRICS_FILE, MODEL_FILE, RUN_FILE, RunSpec, read_metrics
from schnet.training.loop import Trainer

log = logging.getLogger("schnet")
FILE = "verified.json"
STEPS = 5000  # replayed at most: the longest validation interval of the protocols
STRUCTURES = 5000  # predicted at most
#: largest relative differences that count as the same: in a history (rounding on another machine
#: grows from step to step), of a fit done again (an iterative solver begins at random and ends
#: within a tolerance of its own) and of predictions (both by their root mean square error), between
#: two files
TOLERANCE_HISTORY = 0.05
TOLERANCE_FIT = 0.05
TOLERANCE_PREDICTIONS = 0.01
TOLERANCE_FILES = 1e-6
STANDARD_ERRORS = 5  # of a sample, within which the mean over all has to lie
#: of a training; other fits have none
HISTORY_FILE = "history.csv"
#: files that a verification is about; when one changes, it holds no longer
ABOUT = (RUN_FILE, METRICS_FILE, HISTORY_FILE)


@dataclass
class Check:
    """One comparison.

    Attributes:
        what: was compared.
        difference: largest relative difference.
        tolerance: above which it does not come out.
        where: of the largest difference.
    """

    what: str
    difference: float
    tolerance: float
    where: str = ""

    @property
    def ok(self) -> bool:
        """Whether it comes out."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        sign = f"≤ {self.tolerance:.2g}" if self.ok else f"> {self.tolerance:.2g} ({self.where})"
        return f"{self.what} {self.difference:.1e} {sign}"


def _relative(new: float, old: float) -> float:
    """|new - old| as a fraction of the larger one."""
    if new == old:
        return 0.0
    return abs(new - old) / max(abs(new), abs(old))


def _worst(what: str, tolerance: float, differences: dict[str, float]) -> Check:
    """The check with the largest of some differences, by place; one that is no number is larger."""
    known = {place: math.inf if math.isnan(d) else d for place, d in differences.items()}
    place = max(known, key=known.__getitem__)
    return Check(what, known[place], tolerance, place)


# ---- the fit -------------------------------------------------------------------------------------
def replay_training(
    folder: Path, spec: RunSpec, *, steps: int, threads: int, device: str
) -> Check | None:
    """Train up to the first row of history.csv and compare; None if that takes too many steps."""
    file = folder / HISTORY_FILE
    if not file.exists():
        raise DataError(f"{file}: no such file; put it back or train again")
    try:
        with open(file, encoding="utf-8", newline="") as f:
            first = {key: float(value) for key, value in next(csv.DictReader(f)).items()}
        last = int(first["step"])
    except (OSError, StopIteration, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{file}: has no first row of numbers; train again") from error
    if last > steps:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer(spec, temporary, threads=threads, device=device)
        while trainer.state.step < last:
            trainer.train_step()
        trainer.validate()
    row = trainer.state.history[0]
    keys = [key for key in first if key != "seconds"]
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{file}: has columns that this code does not write: {', '.join(missing)}")
    differences = {
        f"{key} at step {last}": _relative(float(f"{row[key]:.6g}"), first[key]) for key in keys
    }
    return _worst("history", TOLERANCE_HISTORY, differences)


def fit_again(spec: RunSpec, *, threads: int, device: str) -> Predictor:
    """The model of a method without gradient steps, fitted anew; nothing of it is kept."""
    with tempfile.TemporaryDirectory() as temporary:
        methods.fit(spec, temporary, threads=threads, device=device)
        return methods.load(temporary, spec.method, threads=threads, device=device)


def compare_fits(spec: RunSpec, inputs: Inputs, indices, old: Predictor, new: Predictor) -> Check:
    """Compare the predictions of two fits for some structures."""
    before, after = (predict(p, inputs, indices, spec.target, None) for p in (old, new))
    difference = np.abs(after["predicted"] - before["predicted"]).max()
    scale = _typical(before["predicted"] - before["true"])
    return Check("refit", float(difference) / scale, TOLERANCE_FIT, "largest")


# ---- the evaluation ------------------------------------------------------------------------------
def _typical(error: np.ndarray) -> float:
    """Root mean square error; 1 where all errors are zero."""
    return float(np.sqrt((error.astype(float) ** 2).mean())) or 1.0


def _test_parts(inputs: Inputs) -> dict[str, np.ndarray]:
    return {k: v for k, v in inputs.parts.items() if k.startswith("test") and len(v)}


def compare_predictions(
    file: Path,
    inputs: Inputs,
    predictor: Predictor,
    target: str,
    forces: str | None,
    limit: int,
    tolerance: float,
) -> Check:
    """Predict test structures, at most ``limit`` in all, and compare with predictions.h5."""
    differences = {}
    parts = _test_parts(inputs)
    with h5py.File(file, "r") as h5:
        for name, indices in parts.items():
            count = min(len(indices), max(1, limit // len(parts)))
            if name not in h5 or not np.array_equal(h5[name]["index"][:count], indices[:count]):
                raise DataError(f"{file}: is of another split; evaluate the run again")
            if forces and "forces_predicted" not in h5[name]:
                raise DataError(f"{file}: holds no forces; evaluate the run again")
            new = predict(predictor, inputs, indices[:count], target, forces)
            for key, true in (("predicted", "true"), ("forces_predicted", "forces_true")):
                if key in new:
                    largest = float(np.abs(new[key] - h5[name][key][: len(new[key])]).max())
                    scale = _typical(new[key] - new[true])
                    differences[f"{key}, {name}"] = largest / scale
    return _worst("predictions", tolerance, differences)


def compare_extremes(
    metrics: dict, inputs: Inputs, predictor: Predictor, target: str, tolerance: float
) -> Check:
    """Predict the structures that metrics.json names and compare their errors with those there."""
    ids = {name: k for k, name in enumerate(inputs.store.ids())}
    differences = {}
    for part in _test_parts(inputs):
        quantity = metrics["parts"][part][target]
        named = quantity["smallest"] + quantity["largest"]
        unknown = [entry["id"] for entry in named if entry["id"] not in ids]
        if unknown:
            raise DataError(f"metrics.json: {unknown[0]!r} is no structure of {inputs.store.path}")
        new = predict(predictor, inputs, [ids[e["id"]] for e in named], target, None)
        error = new["predicted"] - new["true"]
        difference = np.abs(error - [e["error"] for e in named])
        for entry, value in zip(named, difference, strict=True):
            differences[f"{entry['id']}, {part}"] = float(value) / (quantity["rmse"] or 1.0)
    return _worst("named structures", tolerance, differences)


def compare_sample(
    metrics: dict,
    inputs: Inputs,
    predictor: Predictor,
    target: str,
    forces: str | None,
    limit: int,
    tolerance: float,
) -> list[Check]:
    """Predict test structures, at most ``limit`` of a part, and compare their mean errors.

    All structures of a part have to give the mean absolute errors in metrics.json; some, spread
    over the part, such that lie within ``STANDARD_ERRORS`` of them. ``tolerance`` comes on top.
    """
    checks = []
    for part, indices in _test_parts(inputs).items():
        every = max(1, math.ceil(len(indices) / limit))
        some = indices[::every]
        new = predict(predictor, inputs, some, target, forces)
        errors = {target: np.abs(new["predicted"] - new["true"])}
        if forces:
            errors[forces] = _mean_force_errors(new)
        for quantity, error in errors.items():
            recorded, mean = metrics["parts"][part][quantity]["mae"], float(error.mean())
            chance = 0.0
            if every > 1:
                standard_error = float(error.std()) / math.sqrt(len(error))
                chance = STANDARD_ERRORS * standard_error / (max(recorded, mean) or 1.0)
            difference = _relative(mean, recorded)
            what = f"{quantity} error of {len(error):,} structures"
            checks.append(Check(what, difference, tolerance + chance, part))
    return checks


def _mean_force_errors(predicted: dict[str, np.ndarray]) -> np.ndarray:
    """Mean absolute error of force components, one per structure.

    Weighted with its number of atoms, so that their mean is that over all components.
    """
    sizes = predicted["n_atoms"]
    error = np.abs(predicted["forces_predicted"] - predicted["forces_true"]).mean(axis=1)
    sums = np.add.reduceat(error, np.cumsum(sizes) - sizes)
    return sums / sizes.mean()


def compare_metrics(file: Path, metrics: dict, spec: RunSpec, inputs: Inputs) -> Check:
    """Compute the errors in metrics.json again from predictions.h5 and compare."""
    ids, differences = inputs.store.ids(), {}
    with h5py.File(file, "r") as h5:
        for name, group in h5.items():
            found = {key: values[:] for key, values in group.items()}
            forces = None
            if "forces_predicted" in found:
                forces = spec.forces or inputs.store.forces_of(spec.target)
            new = errors(found, inputs.store, spec.target, forces, ids[found["index"]])
            for quantity, values in new.items():
                old = metrics["parts"].get(name, {}).get(quantity, {})
                for key in ("mae", "rmse", "n"):
                    place = f"{quantity} {key}, {name}"
                    differences[place] = _relative(values[key], old.get(key, math.nan))
    return _worst("metrics", TOLERANCE_FILES, differences)


# ---- the whole run -------------------------------------------------------------------------------
def _with_model(
    folder: Path,
    spec: RunSpec,
    inputs: Inputs,
    predictor: Predictor,
    limit: int,
    tolerance: float,
) -> list[Check]:
    """What is found about the errors of a run whose model is there, or was fitted again."""
    metrics = read_metrics(folder)
    file = folder / "predictions.h5"
    forces = judged_forces(spec, inputs.store, predictor)
    if not file.exists():
        named = compare_extremes(metrics, inputs, predictor, spec.target, tolerance)
        some = compare_sample(metrics, inputs, predictor, spec.target, forces, limit, tolerance)
        return [named, *some]
    return [
        compare_predictions(file, inputs, predictor, spec.target, forces, limit, tolerance),
        compare_metrics(file, metrics, spec, inputs),
    ]


def verify(
    folder,
    *,
    threads: int = 1,
    device: str = "cpu",
    steps: int = STEPS,
    structures: int = STRUCTURES,
    data: str | None = None,
    split: str | None = None,
    neighbours: str | None = None,
) -> bool:
    """Replay the beginning of a run and its evaluation with the present code.

    Writes verified.json into the run's directory, changes nothing else there, and prints a line.

    Args:
        folder: the directory of a finished and evaluated run; its model may be missing.
        threads, device: what computes.
        steps: a training whose first row of history.csv lies further is not replayed.
        structures: of the test part, predicted at most.
        data, split, neighbours: files in place of those that the run was made from, with the same
            content.

    Returns:
        Whether the numbers come out.

    Raises:
        DataError: data or split are not those that the run was made from, nothing of the run is
            left that could be compared, or metrics.json has changed and cannot be tested.
    """
    folder = Path(folder)
    spec, about = finished_run(folder, data=data, split=split, neighbours=neighbours)
    inputs = open_inputs_of(folder, spec, about)
    if not (folder / METRICS_FILE).exists():
        raise DataError(f"{folder}: has no metrics.json; evaluate the run first")
    predictor, tolerance = None, TOLERANCE_PREDICTIONS
    if (folder / MODEL_FILE).exists():
        predictor = methods.load(folder, spec.method, threads=threads, device=device)
    checks, not_done = [], []
    if methods.method(spec.method).HISTORY:
        replayed = replay_training(folder, spec, steps=steps, threads=threads, device=device)
        checks += [replayed] if replayed else []
        if replayed is None:
            not_done.append(f"history not replayed: its first row is beyond step {steps:,}")
    else:
        fitted = fit_again(spec, threads=threads, device=device)
        if predictor is None:
            predictor, tolerance = fitted, TOLERANCE_FIT
        else:
            some = next(iter(_test_parts(inputs).values()), inputs.parts["validation"])[:structures]
            checks.append(compare_fits(spec, inputs, some, predictor, fitted))
    if predictor is None:
        _check_unchanged(folder)
        not_done.append("errors not computed again: the model was not kept")
    else:
        checks += _with_model(folder, spec, inputs, predictor, structures, tolerance)
    if not checks:
        raise DataError(f"{'; '.join(not_done)}; nothing is left to compare")
    ok = all(check.ok for check in checks)
    found = {
        "ok": ok,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": provenance.code(),
        "hardware": provenance.hardware(device),
        "packages": provenance.packages(),
        "differences": {check.what: check.difference for check in checks},
        "files": {name: file_digest(folder / name) for name in ABOUT if (folder / name).exists()},
    }
    write_json(folder / FILE, found)
    result = "comes out" if ok else "does not come out"
    print(f"{folder}: {result}: {'; '.join([', '.join(map(str, checks)), *not_done])}")
    return ok


def _read_found(folder: Path) -> dict | None:
    """Content of verified.json, or None where there is none.

    Raises ConfigError where it is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise ConfigError(f"{file}: is not what verify writes; delete it and verify the run again")
    return found


def _check_unchanged(folder: Path) -> None:
    """Raise DataError where metrics.json is not the one of the run's last verification."""
    found = _read_found(folder)
    if found is not None and found["files"].get(METRICS_FILE) != file_digest(folder / METRICS_FILE):
        raise DataError(
            f"{folder / METRICS_FILE}: has changed since the run was verified; without its model, "
            "which was not kept, errors cannot be computed again: put the file back"
        )


def is_current(folder) -> bool | None:
    """What ``verify`` has found about a run with the code at hand.

    Returns:
        True: its numbers came out. False: they did not. None: it was not verified, or with other
        code, or the run has changed since.

    Raises:
        ConfigError: verified.json is damaged.
    """
    folder = Path(folder)
    found = _read_found(folder)
    if found is None or found.get("code") != provenance.code():
        return None
    for name, digest in found["files"].items():
        if not (folder / name).exists() or file_digest(folder / name) != digest:
            return None
    return bool(found.get("ok"))
