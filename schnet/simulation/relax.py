"""Relaxation to a minimum of a model's energy with ASE's optimizers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ase.optimize
import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, write

from schnet.errors import ConfigError, SchNetError, known_or_nearest
from schnet.files import atomic
from schnet.models import Model
from schnet.simulation.calculator import SchNetCalculator
from schnet.simulation.folder import Folder, Progress, describe, require_positive
from schnet.simulation.potential import load_models

log = logging.getLogger("schnet")

OPTIMIZERS = ("BFGS", "LBFGS", "BFGSLineSearch", "FIRE", "FIRE2", "MDMin", "GPMin")
#: eV/Å: below it the rounding of float32 forces shows, and the float64 reference model goes on
FLOAT32_FMAX = 1e-3


def in_double(models) -> list[Model]:
    """Copies of models in float64; the models stay as they are."""
    return [copy.deepcopy(m).double() for m in load_models(models)]


def largest_force(atoms: Atoms) -> float:
    """The largest force on an atom in eV/Å."""
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def _read_trajectory(path: Path) -> list[Atoms]:
    """Steps done before, none where there is no readable file."""
    if not path.exists():
        return []
    try:
        with Trajectory(path) as there:
            return list(there)
    except Exception as error:  # a file whose first frame was not finished
        log.warning("%s: cannot be read (%s); begins anew", path, error)
        path.unlink()
        return []


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say which file cannot be written."""
    try:
        yield
    except OSError as error:
        raise SchNetError(
            f"{path}: cannot be written ({error.strerror}); free some space and run again"
        ) from error


def _minimise(atoms, cell, optimizer, fmax, steps, trajectory, done, progress) -> bool:
    """Run one optimizer; whether the forces fell below ``fmax``."""
    target = FrechetCellFilter(atoms) if cell else atoms
    kind = getattr(ase.optimize, optimizer)
    with kind(target, logfile=None) as dynamics:
        if done and not cell and hasattr(dynamics, "_replay_trajectory"):
            dynamics.replay_trajectory(done)  # what was learnt of the curvature
        if trajectory is not None:
            with _writing(trajectory), Trajectory(trajectory, "a", atoms) as file:
                dynamics.attach(file)
                dynamics.attach(lambda: progress.to(dynamics.nsteps))
                return bool(dynamics.run(fmax=fmax, steps=steps))
        return bool(dynamics.run(fmax=fmax, steps=steps))


def relax(
    atoms: Atoms,
    models,
    output=None,
    *,
    fmax: float = 0.01,
    optimizer: str = "BFGS",
    steps: int = 1000,
    cell: bool = False,
    **options,
) -> Atoms:
    """Relax a structure; continues from the last geometry after an interruption.

    Forces below 10⁻³ eV/Å are at the rounding of float32: the engine goes to there, and then the
    reference model in float64 to ``fmax``.

    Args:
        atoms: where to start; constraints hold.
        models: model files or Models, several are a committee.
        output: folder for relaxed.extxyz and relaxation.traj; None: nothing is written.
        fmax: largest force on an atom at the end, in eV/Å.
        optimizer: one of OPTIMIZERS, ASE's.
        steps: give up after so many.
        cell: relax the cell of a periodic structure as well; its stress costs as much as the
            reference engine.
        options: of SchNetCalculator: device, threads, engine, skin.

    Returns:
        The relaxed structure, with its calculator.

    Raises:
        ConfigError: unknown optimizer, or the folder holds another relaxation.
        SchNetError: not converged; what was reached is in the trajectory, and the next call goes on
            from there.
    """
    known_or_nearest(optimizer, OPTIMIZERS, "optimizer", "relax")
    require_positive("relax", fmax=fmax, steps=steps)
    if cell and not atoms.pbc.all():
        raise ConfigError("relax: the cell can be relaxed of periodic structures only")
    settings = describe(
        atoms, models, verb="relax", fmax=fmax, optimizer=optimizer, cell=cell,
        engine=options.get("engine", "auto"),
    )  # fmt: skip
    folder = None if output is None else Folder(output, settings)
    relaxed = atoms.copy()
    relaxed.calc = SchNetCalculator(models, **options)
    relaxed.get_forces()
    with folder.locked() if folder else nullcontext():
        good = _relax(relaxed, models, folder, cell, optimizer, fmax, steps, options)
        if not good:
            raise SchNetError(
                f"{atoms.get_chemical_formula()}: not relaxed after {steps} steps, the largest "
                f"force is {largest_force(relaxed):.2g} eV/Å; give more steps, or another optimizer"
            )
        relaxed.calc.potential.caution()
        if folder:
            with atomic(folder / "relaxed.extxyz") as temporary:
                write(temporary, relaxed, format="extxyz")
    return relaxed


def _relax(atoms, models, folder, cell, optimizer, fmax, steps, options) -> bool:
    """From where the folder is, with the engine and then in float64; whether that was enough."""
    trajectory = folder / "relaxation.traj" if folder else None
    done = _read_trajectory(trajectory) if trajectory else []
    if done:
        log.info("%s: continues after %d geometries", folder.path, len(done))
        atoms.set_cell(done[-1].cell)
        atoms.set_positions(done[-1].positions, apply_constraint=False)
    progress = Progress(steps)
    try:
        good = _minimise(
            atoms, cell, optimizer, max(fmax, FLOAT32_FMAX), steps, trajectory, done, progress
        )
        if not good or fmax >= FLOAT32_FMAX:
            return good
        log.info("forces below %g eV/Å: the reference model in float64 goes on", FLOAT32_FMAX)
        atoms.calc = SchNetCalculator(in_double(models), **options | {"engine": "reference"})
        return _minimise(atoms, cell, optimizer, fmax, steps, trajectory, [], progress)
    finally:
        progress.close()
