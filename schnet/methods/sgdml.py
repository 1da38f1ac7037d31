"""Gradient-domain machine learning of one molecule's forces, with its symmetries or without.

GDML: S. Chmiela et al., Sci. Adv. 3, e1603015 (2017); sGDML adds the permutations of equivalent
atoms: S. Chmiela et al., Nat. Commun. 9, 3887 (2018). Both are fitted and evaluated by the authors'
sgdml package: a Matérn kernel of the inverse distances, fitted to the forces alone; energies follow
up to a constant, which the training energies give. The kernel's width σ is chosen by the error of
the forces of validation frames, with models of some of the training frames: a fit costs the cube of
their number.

The kernel matrix has 3 n N rows for N frames of n atoms. Where it does not fit into ``memory_gb``
the package's iterative solver takes over, which needs less memory and more time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schnet.cost import Cost
from schnet.data.structures import Structures
from schnet.errors import ConfigError, DataError, SchNetError, first_line
from schnet.methods.mean import load_arrays, save_arrays
from schnet.record import Inputs, open_inputs, write_run_file
from schnet.run import RunSpec

__all__ = ["FORCES", "HISTORY", "Hyperparameters", "fit", "load", "memory_mb", "packages"]

log = logging.getLogger("schnet")
HISTORY = False
FORCES = True
#: of a fitted model, what predictions need (the names are the package's)
KEPT = ("z", "R_desc", "R_d_desc_alpha", "tril_perms_lin", "perms", "sig", "c", "std")
VALIDATION = 200  # frames at most that σ is chosen by


@dataclass(frozen=True)
class Hyperparameters:
    """What ``model:`` of an sGDML run can say.

    Attributes:
        symmetric: sGDML; False: GDML.
        sigma: widths σ to choose from, ascending; the search ends where the error rises.
        search_frames: training frames, at most, of the models that σ is chosen with.
        regularisation: λ.
        memory_gb: for the kernel matrix, beyond which it is solved iteratively.
    """

    symmetric: bool = True
    sigma: tuple[int, ...] = (10, 20, 30, 40, 50)
    search_frames: int = 250
    regularisation: float = 1e-10
    memory_gb: float = 8.0

    def __post_init__(self):
        grid = self.sigma if isinstance(self.sigma, list | tuple) else (self.sigma,)
        whole = all(type(sigma) is int for sigma in grid)
        if not grid or not whole or min(grid) < 1 or list(grid) != sorted(set(grid)):
            raise ConfigError(f"sigma: {self.sigma!r} are no ascending whole numbers from 1")
        object.__setattr__(self, "sigma", tuple(grid))
        if self.search_frames < 2:
            raise ConfigError(f"search_frames: {self.search_frames!r} is no whole number from 2")
        for name in ("regularisation", "memory_gb"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name}: {value!r} is not a positive number")


def _package():
    """The parts of the sgdml package that are used.

    Raises:
        SchNetError: it is not installed.
    """
    try:
        from sgdml.predict import GDMLPredict
        from sgdml.train import GDMLTrain
        from sgdml.utils.perm import find_perms
    except ImportError as error:
        raise SchNetError(
            f"method sgdml: the package is not there ({error}); pip install sgdml==1.0.3"
        ) from error
    logging.getLogger("sgdml").setLevel(logging.WARNING)  # it writes to the screen by itself
    return GDMLTrain, GDMLPredict, find_perms


@dataclass(frozen=True)
class _Frames:
    """M frames of one molecule of n atoms: positions and forces [M, n, 3], energies [M]."""

    numbers: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray


def _frames(inputs: Inputs, indices, run: RunSpec) -> _Frames:
    """Frames of a data set, in its units.

    Raises:
        DataError: they are not all of one molecule, its atoms in one order.
    """
    assert run.forces is not None
    data = inputs.load(indices, [run.target, run.forces], dtype=torch.float64)
    numbers = _one_molecule(data, run.data)
    shape = (len(data), len(numbers), 3)
    energies = data.properties[run.target].numpy()
    forces = data.properties[run.forces].numpy().reshape(shape)
    return _Frames(numbers, data.positions.numpy().reshape(shape), energies, forces)


def _one_molecule(data: Structures, where) -> np.ndarray:
    """The atomic numbers [n] that all structures have."""
    counts = data.counts.cpu().numpy()
    numbers = data.atomic_numbers.cpu().numpy()
    same = (counts == counts[0]).all()
    if same:
        table = numbers.reshape(len(counts), -1)
        same = bool((table == table[0]).all())
    if not same or data.cell is not None:
        raise DataError(f"{where}: sgdml takes frames of one molecule, its atoms in one order")
    return numbers[: counts[0]]


def _first(frames: _Frames, count: int) -> _Frames:
    """The first frames."""
    return _Frames(
        frames.numbers, frames.positions[:count], frames.energies[:count], frames.forces[:count]
    )


def _task(p: Hyperparameters, train: _Frames, sigma: int, permutations: np.ndarray) -> dict:
    """What the package is to fit."""
    return {
        "type": "t",
        "code_version": "",
        "dataset_name": "",
        "dataset_theory": "",
        "z": train.numbers,
        "R_train": train.positions,
        "F_train": train.forces,
        "E_train": train.energies,
        "idxs_train": np.arange(len(train.energies)),
        "md5_train": "",
        "idxs_valid": np.arange(0),
        "md5_valid": "",
        "sig": sigma,
        "lam": p.regularisation,
        "use_E": True,
        "use_E_cstr": False,
        "use_sym": p.symmetric,
        "perms": permutations,
    }


def _force_error(model: dict, frames: _Frames, threads: int) -> float:
    """Mean absolute error of the components of the forces."""
    _, forces = _evaluate(model, frames.positions, threads)
    return float(np.abs(forces - frames.forces).mean())


def _evaluate(model: dict, positions: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Energies [M] and forces [M, n, 3] at positions [M, n, 3]."""
    _, predict, _ = _package()
    predictor = predict(model, max_processes=threads)
    energies, forces = predictor.predict(positions.reshape(len(positions), -1))
    return energies, forces.reshape(positions.shape)


def _search(p: Hyperparameters, train: _Frames, validation: _Frames, threads: int) -> dict:
    """The model with the best σ, and what the search found under "chosen"."""
    trainer_class, _, find_perms = _package()
    identity = np.arange(len(train.numbers))[None]
    permutations = identity
    if p.symmetric:
        permutations = find_perms(train.positions, train.numbers, max_processes=threads)
    trainer = trainer_class(max_memory=p.memory_gb, max_processes=threads)

    def train_model(frames: _Frames, sigma: int) -> dict:
        try:
            return trainer.train(_task(p, frames, sigma, permutations))
        except (ValueError, MemoryError) as error:
            raise ConfigError(
                f"sgdml cannot fit {len(frames.energies):,} frames of {len(frames.numbers)} atoms "
                f"within memory_gb = {p.memory_gb:g} ({first_line(error)})"
            ) from error

    some = _first(train, p.search_frames)
    best: dict[str, Any] | None = None
    for sigma in p.sigma:
        model = train_model(some, sigma)
        error = _force_error(model, validation, threads)
        log.info("sigma %d: validation error of the forces %.4g", sigma, error)
        if best is not None and not error < best["error"]:
            break
        best = {"model": model, "error": error, "sigma": sigma}
    assert best is not None
    if len(some.energies) < len(train.energies):
        best["model"] = train_model(train, best["sigma"])
        best["error"] = _force_error(best["model"], validation, threads)
        frames = f"{len(train.energies):,} frames"
        log.info("sigma %d, %s: validation error %.4g", best["sigma"], frames, best["error"])
    solver = str(best["model"]["solver_name"])
    return best | {"solver": solver, "permutations": len(permutations)}


def packages(run: RunSpec) -> tuple[str, ...]:
    """What a fit needs."""
    return ("sgdml",)


def memory_mb(run: RunSpec) -> int:
    """Memory in MB for the kernel matrix, as far as its limit."""
    return round(1000 * Hyperparameters(**run.model).memory_gb)


def fit(run: RunSpec, out: Path, *, threads: int, device: str) -> None:
    """Fit and choose σ on the validation frames; see schnet.methods.fit."""
    p = Hyperparameters(**run.model)
    if not run.forces:
        raise ConfigError("forces: must name the forces that sgdml is fitted to")
    begin = Cost.now()
    inputs = open_inputs(run)
    if not len(inputs.parts["validation"]):
        raise ConfigError(f"{run.split}: has no validation structures to choose sigma by")
    train = _frames(inputs, inputs.parts["train"], run)
    validation = _frames(inputs, inputs.parts["validation"][:VALIDATION], run)
    if len(train.numbers) < 2:
        raise DataError(f"{run.data}: sgdml learns from distances, which single atoms do not have")
    best = _search(p, train, validation, threads)
    kept = {name: best["model"][name] for name in KEPT}
    save_arrays(out, "sgdml", run, {k: np.asarray(v) for k, v in kept.items()})
    chosen = {name: best[name] for name in ("sigma", "permutations", "solver")}
    result = {
        **vars(Cost.now() - begin),
        "parameters": int(train.forces.size),
        "chosen": chosen,
        "best_validation_error": best["error"],
    }
    write_run_file(out, run, inputs, result, threads=threads, device="cpu")


class Predictor:
    """Energies and forces of the molecule that the model was fitted to."""

    cutoff = None
    device, dtype = torch.device("cpu"), torch.float64
    forces = True
    alternatives: tuple[str, ...] = ()
    name = "sgdml"

    def __init__(self, arrays: dict, threads: int):
        """Args: what ``fit`` saved; processes to share the work."""
        scalars = {name: arrays[name].item() for name in ("sig", "c", "std")}
        self.model = arrays | scalars | {"type": "m", "use_E": True}
        self.threads = threads

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, np.ndarray]:
        """Energies [B] and forces [N, 3], float64.

        Raises:
            DataError: another molecule than that of the training.
        """
        numbers = _one_molecule(structures, "sgdml")
        if not np.array_equal(numbers, self.model["z"]):
            raise DataError("sgdml: the model was fitted to another molecule")
        shape = (len(structures), len(numbers), 3)
        positions = structures.positions.numpy().reshape(shape)
        energies, found = _evaluate(self.model, positions, self.threads)
        return energies, found.reshape(-1, 3)


def load(folder: Path, *, threads: int, **_) -> Predictor:
    """The fitted model of a run; see schnet.methods.load."""
    return Predictor(load_arrays(folder, "sgdml"), threads)
