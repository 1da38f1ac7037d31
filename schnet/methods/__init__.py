"""How something is fitted to data. Every file here is a method.

A method NAME is ``schnet/methods/NAME.py`` with

- ``HISTORY``: whether it is trained in steps from a seed and writes history.csv;
- ``FORCES``: whether it can be fitted to forces;
- ``Hyperparameters``: a dataclass, what ``model:`` of a run can say, with defaults;
- ``fit(run, out, *, threads, device)``: write model.pt and run.yaml into a directory;
- ``load(folder, *, threads, device, engine, weights)``: a ``Predictor`` for a fitted model;
- ``memory_mb(run)``, where a fit needs more memory than the scale's ``mem_mb``: how much more;
- ``packages(run)``, where a fit needs packages that may not be there: their names.

What comes after it (evaluation, tables, figures) knows nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Protocol, get_type_hints

import numpy as np
import torch

from schnet.data.structures import Structures
from schnet.errors import ConfigError
from schnet.lock import locked
from schnet.models.contract import check_type
from schnet.record import is_finished
from schnet.run import METRICS_FILE, PREDICTIONS_FILE, RunSpec

log = logging.getLogger("schnet")
LOCK = ".lock"  # in a run's directory, while it is fitted


class Predictor(Protocol):
    """A fitted model of any method.

    Attributes:
        cutoff: structures need neighbours within this distance in Å; None: all pairs, or none.
        device, dtype: where and as what structures are expected.
        forces: whether it can predict forces.
        alternatives: names of other weights that model.pt holds; ``load`` takes them.
        name: of what computes the predictions, for metrics.json.
    """

    cutoff: float | None
    device: torch.device
    dtype: torch.dtype
    forces: bool
    alternatives: tuple[str, ...]
    name: str

    def predict(self, structures: Structures, forces: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """The property of B structures with N atoms, [B] float64, and forces [N, 3] or None."""
        ...


def methods() -> list[str]:
    """Names of all methods, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def method(name: str) -> ModuleType:
    """The module of a method. Raises ConfigError for an unknown one, with the nearest name."""
    known = methods()
    if name not in known:
        near = get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"no method {name!r}; {hint}")
    return importlib.import_module(f"{__name__}.{name}")


def hyperparameters_of_method(name: str) -> type:
    """The dataclass of a method's hyper-parameters.

    Raises:
        ConfigError: no such method, or it is ``neural``, whose hyper-parameters are those of the
            architecture.
    """
    cls = getattr(method(name), "Hyperparameters", None)
    if cls is None:
        raise ConfigError(f"method {name}: its hyper-parameters are those of its architecture")
    return cls


def check_method(name: str, values: dict, forces: str | None = None):
    """The hyper-parameters of a method from a dictionary, checked.

    Args:
        name: of the method, other than neural.
        values: hyper-parameters.
        forces: the force property of the run, or None.

    Raises:
        ConfigError: an unknown method or hyper-parameter (with the nearest valid name), a value
            that cannot be used, or forces for a method that takes none.
    """
    cls = hyperparameters_of_method(name)
    types = get_type_hints(cls)
    for key, value in values.items():
        if key not in types:
            near = get_close_matches(str(key), types, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(types)}"
            raise ConfigError(f"model: {name} has no hyper-parameter {key!r}; {hint}")
        check_type(key, value, types[key])
    if forces and not method(name).FORCES:
        raise ConfigError(f"forces: {forces!r} is given, but {name} is fitted to energies only")
    return cls(**values)


def fit(run: RunSpec, out, *, threads: int = 1, device: str = "cpu", wait: float = 0.0) -> None:
    """Fit what the settings of a run say, into a directory; once, a finished run stays as it is.

    Args:
        run: settings, with the paths of data and split.
        out: the directory; gets model.pt, run.yaml and what else the method writes.
        threads: of the CPU.
        device: cpu or cuda.
        wait: seconds to wait for another process that fits into the same directory.

    Raises:
        ConfigError, DataError: settings, data and split do not fit together, see ``check_method``.
        SchNetError: another process fits into the directory, and which.
    """
    module = method(run.method)
    if hasattr(module, "Hyperparameters"):
        check_method(run.method, run.model, run.forces)
    if _finished(out, run):
        return
    with locked(Path(out) / LOCK, str(out), wait=wait):
        if not _finished(out, run):  # by the one that was waited for
            _discard_errors(Path(out))
            module.fit(run, Path(out), threads=threads, device=device)


def _finished(out, run: RunSpec) -> bool:
    if not is_finished(out, run):
        return False
    log.info("%s: finished before; delete the directory to do it again", out)
    return True


def _discard_errors(out: Path) -> None:
    """Remove the errors of an earlier model, which the next one must never stand beside."""
    there = [out / name for name in (METRICS_FILE, PREDICTIONS_FILE) if (out / name).exists()]
    if there:
        log.warning("%s: data, split or files have changed since it was finished: done again", out)
    for file in there:
        file.unlink()


def memory_mb(run: RunSpec) -> int:
    """Memory in MB that a fit needs beyond what the scale says of all runs."""
    needed = getattr(method(run.method), "memory_mb", None)
    return needed(run) if needed else 0


def missing_packages(run: RunSpec) -> list[str]:
    """Packages that a fit needs and that are not installed."""
    needed = getattr(method(run.method), "packages", None)
    names = needed(run) if needed else ()
    return [name for name in names if importlib.util.find_spec(name) is None]


def load(
    folder,
    name: str,
    *,
    threads: int = 1,
    device: str = "cpu",
    engine: str = "auto",
    weights: str | None = None,
) -> Predictor:
    """The fitted model in a run's directory.

    Args:
        folder: the directory.
        name: of the method that fitted it.
        threads, device: see ``fit``.
        engine: see schnet.engine; for networks only.
        weights: an alternative that model.pt holds, see ``Predictor.alternatives``.
    """
    return method(name).load(
        Path(folder), threads=threads, device=device, engine=engine, weights=weights
    )
