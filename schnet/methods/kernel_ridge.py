"""Kernel ridge regression on Coulomb-like matrices.

Of molecules: Rupp et al., PRL 108, 058301 (2012); of crystals: Faber et al., Int. J. Quantum Chem.
115, 1094 (2015). A structure is its sorted matrix, as if padded with zeros to the largest one;
schnet.descriptors has the formulas. The regression comes from scikit-learn. Width and
regularisation are chosen by the mean absolute error on the validation structures. It predicts no
forces.
"""

from __future__ import annotations

import logging
import os
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schnet.cost import Cost
from schnet.data.structures import Structures
from schnet.descriptors import (
    DESCRIPTORS,
    FROM_DSCRIBE,
    NUMBER,
    Matrices,
    check_periodic,
    distances,
    matrices,
    memory,
)
from schnet.errors import ConfigError, known_or_nearest
from schnet.methods.mean import READOUTS, Baseline, load_arrays, save_arrays
from schnet.record import Inputs, open_inputs, write_run_file
from schnet.run import RunSpec

__all__ = ["FORCES", "HISTORY", "Hyperparameters", "fit", "load", "memory_mb", "packages"]

log = logging.getLogger("schnet")
HISTORY = False
FORCES = False
KERNELS = {"laplacian": 1, "gaussian": 2}  # power of |x - y|
LARGEST = 30_000  # training structures: a kernel matrix of 7 GB
MATRICES = 7  # of that size at a time: 6.1 to 6.4 measured with 4,000 and 6,000 structures
ATOMS = 100  # root mean square over all structures that there is memory for descriptors of
SAMPLE = 1000  # training structures for the median distance


def _numbers(name: str, values) -> tuple[float, ...]:
    """A grid of positive numbers, given as one number or several."""
    grid = values if isinstance(values, list | tuple) else (values,)
    numbers = all(type(v) in (int, float) for v in grid)
    if not grid or not numbers or not all(np.isfinite(v) and v > 0 for v in grid):
        raise ConfigError(f"{name}: {values!r} is no list of positive numbers")
    return tuple(float(v) for v in grid)


@dataclass(frozen=True)
class Hyperparameters:
    """What ``model:`` of a kernel run can say.

    Attributes:
        descriptor: of molecules ``coulomb``; of crystals ``extended_coulomb``, ``ewald``, ``sine``.
        kernel: with the descriptors x, y of two structures, ``laplacian`` exp(-γ' Σ|x - y|),
            or ``gaussian`` exp(-γ' Σ(x - y)²).
        gamma: values of γ to choose from, in units of the inverse median of that sum over pairs of
            training structures, so that one grid serves all data sets: γ' = γ / median.
        alpha: values of the regularisation to choose from (targets are divided by their spread).
        readout: ``sum`` for a target that grows with the number of atoms, ``mean`` otherwise; says
            what is subtracted before, see schnet.methods.mean.
    """

    descriptor: str = "coulomb"
    kernel: str = "laplacian"
    gamma: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    alpha: tuple[float, ...] = (1e-9, 1e-7, 1e-5, 1e-3, 1e-1)
    readout: str = "sum"

    def __post_init__(self):
        known_or_nearest(self.descriptor, DESCRIPTORS, "descriptor", "model")
        if self.kernel not in KERNELS:
            raise ConfigError(f"kernel: {self.kernel!r} is none of {', '.join(KERNELS)}")
        if self.readout not in READOUTS:
            raise ConfigError(f"readout: {self.readout!r} is none of {', '.join(READOUTS)}")
        object.__setattr__(self, "gamma", _numbers("gamma", self.gamma))
        object.__setattr__(self, "alpha", _numbers("alpha", self.alpha))


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


def _check(p: Hyperparameters, run: RunSpec, inputs: Inputs) -> None:
    """Refuse what cannot be fitted, before anything is computed."""
    check_periodic(p.descriptor, inputs.store.periodic, str(run.data))
    train, validation = inputs.parts["train"], inputs.parts["validation"]
    if len(train) > LARGEST:
        raise ConfigError(
            f"{run.split}: {len(train):,} training structures make a kernel matrix of "
            f"{8e-9 * len(train) ** 2:.0f} GB; kernel_ridge takes {LARGEST:,} at most"
        )
    kernels, there = _kernel_bytes(len(train)), _memory_here()
    if kernels > there:
        raise ConfigError(
            f"{run.split}: the kernel matrices of {len(train):,} training structures take "
            f"{1e-9 * kernels:.3g} GB; here a process may have {1e-9 * there:.3g} GB"
        )
    if not len(validation):
        raise ConfigError(f"{run.split}: has no validation structures to choose gamma and alpha by")
    sizes = np.diff(inputs.store.offsets)[np.concatenate([train, validation])]
    needed, limit = memory(sizes), memory(np.full(len(sizes), ATOMS))
    if needed > limit:
        raise ConfigError(
            f"{run.data}: the {p.descriptor} matrices of {len(sizes):,} structures to fit and to "
            f"choose by take {1e-9 * needed:.3g} GB, more than {1e-9 * limit:.3g} GB, those of "
            f"{ATOMS} atoms each; take fewer large ones"
        )


def _kernel_bytes(n_train: int) -> int:
    """Of all matrices of pairs of training structures that are there at a time."""
    return MATRICES * NUMBER * n_train**2


def _memory_here() -> float:
    """Bytes that a process can have: the machine's memory, or less where a limit is set."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return machine if limit == resource.RLIM_INFINITY else min(limit, machine)


def packages(run: RunSpec) -> tuple[str, ...]:
    """What a fit needs beside scikit-learn."""
    descriptor = Hyperparameters(**run.model).descriptor
    return ("dscribe",) if descriptor in FROM_DSCRIBE else ()


def memory_mb(run: RunSpec) -> int:
    """Memory in MB for the matrices of all pairs of training structures, and for descriptors."""
    n_train = run.n_train or LARGEST
    described = memory(np.full(n_train + (run.n_validation or 0), ATOMS))
    return round(1e-6 * (_kernel_bytes(n_train) + described))


def fit(run: RunSpec, out: Path, *, threads: int, device: str) -> None:
    """Fit and choose hyper-parameters on the validation structures; see schnet.methods.fit."""
    from threadpoolctl import threadpool_limits

    p = Hyperparameters(**run.model)
    begin = Cost.now()
    inputs = open_inputs(run)
    _check(p, run, inputs)
    references = inputs.store.atomrefs.get(run.target) if run.atomrefs else None
    with threadpool_limits(threads):
        x, y = {}, {}
        for part in ("train", "validation"):
            data = inputs.load(inputs.parts[part], [run.target], dtype=torch.float64)
            if part == "train":
                baseline = Baseline.of(data, run.target, p.readout, references)
            y[part] = data.properties[run.target].numpy() - baseline(data)
            x[part] = matrices(p.descriptor, data)
        # of what is left to learn: per structure, unlike the baseline's own deviation
        scale = float(y["train"].std()) or 1.0
        between = distances(KERNELS[p.kernel], x["train"], x["train"])
        median = float(np.median(between[:SAMPLE, :SAMPLE])) or 1.0
        to_validation = distances(KERNELS[p.kernel], x["validation"], x["train"])
        targets = y["train"] / scale, y["validation"] / scale
        best = _choose(p, median, between, to_validation, *targets)
    arrays = baseline.arrays() | {
        "kernel": p.kernel,
        "gamma": best.gamma,
        "alpha": best.alpha,
        "descriptor": p.descriptor,
        "descriptors": x["train"].values,
        "sizes": x["train"].sizes,
        "coefficients": scale * best.coefficients,
    }
    save_arrays(out, "kernel_ridge", run, arrays)
    result = {
        **vars(Cost.now() - begin),
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
        self.power, self.gamma = KERNELS[str(arrays["kernel"])], float(arrays["gamma"])
        self.descriptor = str(arrays.get("descriptor", "coulomb"))
        values, sizes = arrays["descriptors"], arrays.get("sizes")
        if sizes is None:  # files of earlier versions hold the padding: matrices of one size
            sizes = np.full(len(values), round(np.sqrt(values.shape[1])))
        self.training = Matrices(values.ravel(), sizes)
        self.coefficients = arrays["coefficients"]

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, None]:
        """The property of B structures, [B] float64; crystals come with their cells.

        Raises:
            DataError: crystals for a model of molecules, or the other way round.
        """
        x = matrices(self.descriptor, structures)
        similar = np.exp(-self.gamma * distances(self.power, x, self.training))
        return similar @ self.coefficients + self.baseline(structures), None


def load(folder: Path, **_) -> Predictor:
    """The fitted kernel model of a run; see schnet.methods.load."""
    return Predictor(load_arrays(folder, "kernel_ridge"))
