"""Kernel ridge regression on sorted Coulomb matrices (Rupp et al., PRL 108, 058301, 2012).

A molecule is its Coulomb matrix, C_ii = 0.5 Z_i^2.4 and C_ij = Z_i Z_j / |r_i - r_j| (r in Å), rows
and columns sorted by the norm of the rows, padded with zeros to the largest molecule of the data
set. Matrices come from dscribe, the regression from scikit-learn. Width and regularisation are
chosen by the mean absolute error on the validation structures. It predicts no forces, and knows no
periodic images.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from schnet.data.structures import Structures
from schnet.errors import ConfigError, DataError
from schnet.methods.mean import READOUTS, Baseline, load_arrays, save_arrays
from schnet.record import Inputs, open_inputs, write_run_file
from schnet.run import RunSpec

__all__ = ["FORCES", "HISTORY", "Hyperparameters", "fit", "load", "memory_mb"]

log = logging.getLogger("schnet")
HISTORY = False
FORCES = False
KERNELS = ("laplacian", "gaussian")
LARGEST = 30_000  # training structures: a kernel matrix of 7 GB
MATRICES = 7  # of that size at a time: 6.1 to 6.4 measured with 4,000 and 6,000 structures
SAMPLE = 1000  # training structures for the median distance


def _numbers(name: str, values) -> tuple[float, ...]:
    """A grid of positive numbers, given as one number or several."""
    try:
        grid = tuple(float(v) for v in np.atleast_1d(values))
    except (TypeError, ValueError):
        grid = ()
    if not grid or not all(np.isfinite(v) and v > 0 for v in grid):
        raise ConfigError(f"{name}: {values!r} is no list of positive numbers")
    return grid


@dataclass(frozen=True)
class Hyperparameters:
    """What ``model:`` of a kernel run can say.

    Attributes:
        kernel: with the descriptors x, y of two molecules, ``laplacian`` exp(-γ' Σ|x - y|), or
            ``gaussian`` exp(-γ' Σ(x - y)²).
        gamma: values of γ to choose from, in units of the inverse median of that sum over pairs of
            training structures, so that one grid serves all data sets: γ' = γ / median.
        alpha: values of the regularisation to choose from (targets are divided by their spread).
        readout: ``sum`` for a target that grows with the number of atoms, ``mean`` otherwise; says
            what is subtracted before, see schnet.methods.mean.
    """

    kernel: str = "laplacian"
    gamma: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    alpha: tuple[float, ...] = (1e-9, 1e-7, 1e-5, 1e-3, 1e-1)
    readout: str = "sum"

    def __post_init__(self):
        if self.kernel not in KERNELS:
            raise ConfigError(f"kernel: {self.kernel!r} is none of {', '.join(KERNELS)}")
        if self.readout not in READOUTS:
            raise ConfigError(f"readout: {self.readout!r} is none of {', '.join(READOUTS)}")
        object.__setattr__(self, "gamma", _numbers("gamma", self.gamma))
        object.__setattr__(self, "alpha", _numbers("alpha", self.alpha))


def descriptors(structures: Structures, n_atoms: int) -> np.ndarray:
    """Sorted Coulomb matrices, [M, n_atoms²] float64.

    Args:
        structures: M molecules.
        n_atoms: size of the padded matrices.

    Raises:
        DataError: a molecule is larger than that.
    """
    from ase import Atoms
    from dscribe.descriptors import CoulombMatrix

    largest = int(structures.counts.max())
    if largest > n_atoms:
        raise DataError(
            f"a molecule has {largest} atoms; this model's Coulomb matrices have {n_atoms} rows"
        )
    numbers = structures.atomic_numbers.cpu().numpy()
    positions = structures.positions.cpu().numpy()
    cuts = structures.offsets.cpu().numpy()
    molecules = [Atoms(numbers[a:b], positions[a:b]) for a, b in pairwise(cuts)]
    matrix = CoulombMatrix(n_atoms_max=n_atoms, permutation="sorted_l2")
    return matrix.create(molecules).reshape(len(molecules), n_atoms**2)


def distances(kernel: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What a kernel is the exponential of: Σ|x - y| or Σ(x - y)² of all pairs, [len(x), len(y)]."""
    from sklearn.metrics.pairwise import euclidean_distances, manhattan_distances

    if kernel == "laplacian":
        return manhattan_distances(x, y)
    return euclidean_distances(x, y, squared=True)


@dataclass(frozen=True)
class _Fitted:
    """A choice of hyper-parameters, what it gave, and the weights of the training structures."""

    gamma: float
    alpha: float
    error: float
    coefficients: np.ndarray


def _choose(p: Hyperparameters, median: float, train, validation, y_train, y_validation) -> _Fitted:
    """The best point of the grid.

    Args:
        p: the grid.
        median: of the distances.
        train, validation: distances [N, N] and [V, N].
        y_train, y_validation: targets [N] and [V] without baseline, divided by their spread.
    """
    from sklearn.kernel_ridge import KernelRidge

    found = []
    for gamma in p.gamma:
        similar, similar_validation = (np.exp(-gamma / median * d) for d in (train, validation))
        for alpha in p.alpha:
            # an ill-conditioned kernel matrix makes scikit-learn warn and take least squares
            ridge = KernelRidge(alpha=alpha, kernel="precomputed").fit(similar, y_train)
            error = float(np.abs(ridge.predict(similar_validation) - y_validation).mean())
            log.info("gamma %g, alpha %g: validation error %.4g of the spread", gamma, alpha, error)
            found.append(_Fitted(gamma / median, alpha, error, ridge.dual_coef_))
    return min(found, key=lambda fitted: fitted.error)


def _check(run: RunSpec, inputs: Inputs) -> None:
    if inputs.store.periodic:
        raise DataError(f"{run.data}: has periodic structures; kernel_ridge takes molecules only")
    n_train = len(inputs.parts["train"])
    if n_train > LARGEST:
        raise ConfigError(
            f"{run.split}: {n_train:,} training structures make a kernel matrix of "
            f"{8e-9 * n_train**2:.0f} GB; kernel_ridge takes {LARGEST:,} at most"
        )
    if not len(inputs.parts["validation"]):
        raise ConfigError(f"{run.split}: has no validation structures to choose gamma and alpha by")


def memory_mb(run: RunSpec) -> int:
    """Memory in MB for the matrices of all pairs of training structures."""
    return round(MATRICES * 8e-6 * (run.n_train or LARGEST) ** 2)


def fit(run: RunSpec, out: Path, *, threads: int, device: str) -> None:
    """Fit and choose hyper-parameters on the validation structures; see schnet.methods.fit."""
    from threadpoolctl import threadpool_limits

    p = Hyperparameters(**run.model)
    begin = time.monotonic()
    inputs = open_inputs(run)
    _check(run, inputs)
    n_atoms = int(np.diff(inputs.store.offsets).max())
    references = inputs.store.atomrefs.get(run.target) if run.atomrefs else None
    with threadpool_limits(threads):
        x, y = {}, {}
        for part in ("train", "validation"):
            data = inputs.load(inputs.parts[part], [run.target], dtype=torch.float64)
            if part == "train":
                baseline = Baseline.of(data, run.target, p.readout, references)
            y[part] = data.properties[run.target].numpy() - baseline(data)
            x[part] = descriptors(data, n_atoms)
        # of what is left to learn: per structure, unlike the baseline's own deviation
        scale = float(y["train"].std()) or 1.0
        between = distances(p.kernel, x["train"], x["train"])
        median = float(np.median(between[:SAMPLE, :SAMPLE])) or 1.0
        to_validation = distances(p.kernel, x["validation"], x["train"])
        targets = y["train"] / scale, y["validation"] / scale
        best = _choose(p, median, between, to_validation, *targets)
    arrays = baseline.arrays() | {
        "kernel": p.kernel,
        "gamma": best.gamma,
        "alpha": best.alpha,
        "descriptors": x["train"],
        "coefficients": scale * best.coefficients,
    }
    save_arrays(out, "kernel_ridge", run, arrays)
    result = {
        "seconds": time.monotonic() - begin,
        "parameters": len(best.coefficients),
        "chosen": {"gamma": best.gamma, "alpha": best.alpha},
        "best_validation_error": best.error * scale,
    }
    write_run_file(out, run, inputs, result, threads=threads, device="cpu")


class Predictor:
    """Σ_k c_k k(x, x_k) over the training structures k, plus the baseline."""

    cutoff = None
    device, dtype = torch.device("cpu"), torch.float64
    forces = False
    alternatives: tuple[str, ...] = ()
    name = "kernel"

    def __init__(self, arrays: dict):
        """Args: what ``fit`` saved."""
        self.baseline = Baseline.from_arrays(arrays)
        self.kernel, self.gamma = str(arrays["kernel"]), float(arrays["gamma"])
        self.descriptors, self.coefficients = arrays["descriptors"], arrays["coefficients"]

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, None]:
        """The property of B molecules, [B] float64."""
        x = descriptors(structures, round(np.sqrt(self.descriptors.shape[1])))
        similar = np.exp(-self.gamma * distances(self.kernel, x, self.descriptors))
        return similar @ self.coefficients + self.baseline(structures), None


def load(folder: Path, **_) -> Predictor:
    """The fitted kernel model of a run; see schnet.methods.load."""
    return Predictor(load_arrays(folder, "kernel_ridge"))
