"""A simulation's folder: what it was asked for, progress, files that grow and are cut back."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms

from schnet.errors import ConfigError, SchNetError
from schnet.files import file_digest, read_json, write_json
from schnet.lock import locked
from schnet.models import Model
from schnet.trained import find_model

log = logging.getLogger("schnet")


class Exploded(SchNetError):
    """A trajectory cannot go on; what was written stays."""


def structure_digest(atoms: Atoms) -> str:
    """Digest of elements, positions, masses, momenta, cell, periodicity and constraints."""
    digest = hashlib.sha256()
    momenta = atoms.get_momenta()
    for array in (atoms.numbers, atoms.positions, atoms.get_masses(), momenta, atoms.cell.array):
        digest.update(np.ascontiguousarray(array, float).tobytes())
    digest.update(bytes(atoms.pbc.tolist()))
    for constraint in atoms.constraints:
        digest.update(json.dumps(constraint.todict(), default=np.ndarray.tolist).encode())
    return digest.hexdigest()


def model_digest(model) -> str:
    """Digest of a model file, or of a Model's weights; the name of anything else."""
    if isinstance(model, str | Path):
        return file_digest(find_model(model))
    if isinstance(model, Model):
        digest = hashlib.sha256()
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()
    return getattr(model, "name", type(model).__name__)


def describe(atoms: Atoms, models, **settings) -> dict:
    """What makes a simulation the one that it is; a restart must come with the same."""
    several = isinstance(models, list | tuple)
    return {
        "structure": structure_digest(atoms),
        "models": [model_digest(m) for m in (models if several else [models])],
        **settings,
    }


class Folder:
    """The folder of one simulation.

    Args:
        path: the folder; made if it is not there.
        settings: what must be the same at a restart, from ``describe``.

    Raises:
        ConfigError: the folder cannot be made, or holds a simulation with other settings.
    """

    def __init__(self, path, settings: dict):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.path}: cannot be made a folder ({error.strerror}); choose another"
            ) from error
        file = self.path / "settings.json"
        if not file.exists():
            write_json(file, settings)
            return
        there = read_json(file)
        for key in {**there, **settings}:
            if there.get(key) != settings.get(key):
                raise ConfigError(
                    f"{self.path}: holds a simulation with {key}: {_short(there.get(key))}, asked "
                    f"for is {_short(settings.get(key))}; choose another folder, or delete this one"
                )

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def locked(self):
        """Keep other processes out, which would write into the same files; see ``locked``."""
        return locked(self / ".lock", str(self.path))


def require_positive(verb: str, **values: float) -> None:
    """Raise ConfigError unless all are finite numbers above zero."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"{verb}: {name}: {value} is not a positive number")


def _short(value) -> str:
    text = str(value)
    return text if len(text) < 50 else text[:47] + "…"


class Growing:
    """A file that is appended to; a restart cuts it back to where the checkpoint was.

    Args:
        path: the file.
        size: bytes to keep of what is there.

    Raises:
        SchNetError: less is there than the checkpoint says.
    """

    def __init__(self, path: Path, size: int = 0):
        there = path.stat().st_size if path.exists() else 0
        if there < size:
            raise SchNetError(
                f"{path}: {there} bytes, the checkpoint knows of {size}; delete the folder"
            )
        self.path = path
        self.file = open(path, "ab")
        self.file.truncate(size)
        self.size = size

    def write(self, content: bytes) -> None:
        """Append; SchNetError when the disk is full."""
        try:
            self.file.write(content)
        except OSError as error:
            raise self._full(error) from error
        self.size += len(content)

    def sync(self) -> int:
        """Make sure that everything is on the disk; returns the size."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self._full(error) from error
        return self.size

    def close(self) -> None:
        """Close the file; SchNetError when the disk is full."""
        try:
            self.file.close()
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error) -> SchNetError:
        return SchNetError(
            f"{self.path}: cannot be written ({error.strerror}); free some space and run again, "
            "it continues from the last checkpoint"
        )


class Progress:
    """Speed and remaining time: a bar on a terminal, a line in the log now and then otherwise.

    Args:
        total: steps in all.
        done: steps done before.
        what: name in the log.
    """

    EVERY = 30.0  # s between lines

    def __init__(self, total: int, done: int = 0, what: str = "step"):
        self.total, self.start, self.done, self.what = total, done, done, what
        self.begin = self.last = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=done, unit=what, dynamic_ncols=True)

    def to(self, done: int) -> None:
        """So many steps are done."""
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done
        now = time.monotonic()
        if self.bar is None and now - self.last > self.EVERY:
            self.last = now
            left = (self.total - done) / self.speed
            log.info(
                "%s %d of %d, %.1f/s, %d min left",
                self.what, done, self.total, self.speed, round(left / 60),
            )  # fmt: skip

    @property
    def speed(self) -> float:
        """Steps per second since the beginning."""
        return max(self.done - self.start, 1e-9) / max(time.monotonic() - self.begin, 1e-9)

    def close(self) -> None:
        """Finish the bar; the log gets the speed."""
        if self.bar is not None:
            self.bar.close()
        if self.done > self.start:
            log.info("%d %ss, %.1f/s", self.done - self.start, self.what, self.speed)
