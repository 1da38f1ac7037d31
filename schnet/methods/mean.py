"""The mean of the training targets: what every other method starts from and has to improve on.

Where the target is a sum over atoms (``readout: sum``) it is a mean per atom, after the data set's
single-atom references are removed: exactly the offset of a network before its first step.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from schnet.cost import Cost
from schnet.data.structures import Structures
from schnet.errors import ConfigError, ModelError
from schnet.models.files import read_tensors, write_tensors
from schnet.record import check_origin, open_inputs, write_run_file
from schnet.run import MODEL_FILE, RunSpec, read_finished
from schnet.training.objective import statistics

log = logging.getLogger("schnet")
FORMAT = "schnet-method"
HISTORY = False
FORCES = False
READOUTS = ("sum", "mean")


@dataclass(frozen=True)
class Hyperparameters:
    """readout: ``sum`` for a target that grows with the number of atoms, ``mean`` otherwise."""

    readout: str = "sum"

    def __post_init__(self):
        if self.readout not in READOUTS:
            raise ConfigError(f"readout: {self.readout!r} is none of {', '.join(READOUTS)}")


@dataclass(frozen=True)
class Baseline:
    """The mean of a target, per atom or per structure.

    Attributes:
        readout: see Hyperparameters.
        mean: per atom for ``sum``, per structure for ``mean``.
        deviation: standard deviation of the same.
        atomrefs: single-atom values by atomic number, [100].
    """

    readout: str
    mean: float
    deviation: float
    atomrefs: np.ndarray

    @classmethod
    def of(cls, data: Structures, target: str, readout: str, atomrefs=None) -> Baseline:
        """The baseline of training structures; atomrefs: the data set's, or None."""
        usual = statistics(data, target, readout, atomrefs)
        return cls(readout, usual.mean, usual.deviation, usual.atomrefs.cpu().numpy())

    def __call__(self, structures: Structures) -> np.ndarray:
        """The baseline of M structures, [M] float64."""
        counts = structures.counts.cpu().numpy()
        if self.readout == "mean":
            return np.full(len(counts), self.mean)
        atoms = self.atomrefs[structures.atomic_numbers.cpu().numpy()]
        structure = np.repeat(np.arange(len(counts)), counts)
        return counts * self.mean + np.bincount(structure, atoms, minlength=len(counts))

    def arrays(self) -> dict:
        """Itself as arrays, for a file."""
        return {
            "readout": self.readout,
            "mean": self.mean,
            "deviation": self.deviation,
            "atomrefs": self.atomrefs,
        }

    @classmethod
    def from_arrays(cls, arrays: dict) -> Baseline:
        """The inverse of ``arrays``."""
        mean, deviation = float(arrays["mean"]), float(arrays["deviation"])
        return cls(str(arrays["readout"]), mean, deviation, arrays["atomrefs"])


def save_arrays(folder: Path, method: str, run: RunSpec, arrays: dict) -> None:
    """Write a fitted model, arrays, numbers and text, into a run's directory."""
    values = {k: torch.as_tensor(v) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}
    settings = json.dumps(run.scientific(), sort_keys=True)
    content = {"format": FORMAT, "method": method, "run": settings, "arrays": values}
    write_tensors(Path(folder) / MODEL_FILE, content)


def load_arrays(folder: Path, method: str) -> dict:
    """What ``save_arrays`` wrote.

    Raises:
        ModelError: the file is missing, damaged, or of another method or run.
    """
    path = Path(folder) / MODEL_FILE
    if not path.exists():
        raise ModelError(f"{path}: no such model file")
    try:
        content = read_tensors(path)
    except ValueError as error:
        raise ModelError(f"{path}: not a model file ({error}); fit it again") from error
    arrays = content.get("arrays")
    if content.get("method") != method or not isinstance(arrays, dict):
        raise ModelError(f"{path}: is not a model of the method {method}")
    check_origin(path, content, read_finished(folder))
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in arrays.items()}


def fit(run: RunSpec, out: Path, *, threads: int, device: str) -> None:
    """Take the mean of the training targets; see schnet.methods.fit."""
    p = Hyperparameters(**run.model)
    begin = Cost.now()
    inputs = open_inputs(run)
    data = inputs.load(inputs.parts["train"], [run.target])
    references = inputs.store.atomrefs.get(run.target) if run.atomrefs else None
    baseline = Baseline.of(data, run.target, p.readout, references)
    save_arrays(out, "mean", run, baseline.arrays())
    result = vars(Cost.now() - begin) | {"parameters": 1}
    write_run_file(out, run, inputs, result, threads=threads, device="cpu")
    log.info("mean of %s training structures: %.6g", f"{len(data):,}", baseline.mean)


class Predictor:
    """The mean, of any structures."""

    cutoff = None
    device, dtype = torch.device("cpu"), torch.float64
    forces = False
    alternatives: tuple[str, ...] = ()
    name = "mean"

    def __init__(self, baseline: Baseline):
        self.baseline = baseline

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, None]:
        """The property of B structures, [B] float64."""
        return self.baseline(structures), None


def load(folder: Path, **_) -> Predictor:
    """The mean of a run; see schnet.methods.load."""
    return Predictor(Baseline.from_arrays(load_arrays(folder, "mean")))
