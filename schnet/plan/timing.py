"""Seconds per gradient step on this machine, on structures that are made up."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from schnet.run import Run, RunSpec

WARM_UP = 5  # steps before a measurement
BLOCK = 0.3  # seconds of steps that are timed together, at least
BLOCKS = 5  # the last so many must agree within AGREE, or time runs out
AGREE, PATIENCE = 0.05, 10.0  # relative; seconds
# Structures to train on, more than fit into a processor's caches; to validate, and as many to test.
MADE_UP, MADE_UP_VALIDATION = 1000, 8


def measure(run: Run, source: dict, threads: int, device: str) -> float:
    """Seconds per training step on this machine, with made-up structures.

    Args:
        run: of a method with gradient steps.
        source: what workflow/sources.yaml says of its data set: atoms, atoms_spread.
        threads, device: of the training.
    """
    from schnet.data.splits import make_split, save_split
    from schnet.data.store import Property, Store, write_store

    settings = run.settings
    cutoff = settings.model.get("cutoff")
    properties = {settings.target: Property("eV", "target")}
    if settings.forces:
        properties[settings.forces] = Property("eV/Å", "forces", per_atom=True)
    with tempfile.TemporaryDirectory() as folder:
        data, split = Path(folder) / "data.h5", Path(folder) / "split.npz"
        n_train = max(MADE_UP, settings.batch_size)
        structures = _made_up(settings, source, n_train + 2 * MADE_UP_VALIDATION)
        write_store(data, structures, properties, name="plan", cutoff=cutoff)
        store = Store(data)
        parts = make_split(store, n_train=n_train, n_validation=MADE_UP_VALIDATION, seed=0)
        save_split(split, store, parts)
        spec = replace(settings, n_train=n_train, n_validation=MADE_UP_VALIDATION)
        spec = replace(spec, data=str(data), split=str(split), neighbours=None)
        return seconds_per_step(spec, folder, threads, device)


def seconds_per_step(run: RunSpec, folder, threads: int, device: str) -> float:
    """Seconds per training step on this machine.

    Args:
        run: settings, with the paths of data and split.
        folder: of the training; nothing is written there.
        threads, device: of the training.
    """
    from schnet.training.loop import Trainer

    return _time(Trainer(run, folder, threads=threads, device=device).train_step)


def _time(step) -> float:
    """Seconds of one step, the median of blocks of steps once they agree.

    Args:
        step: takes one and returns its loss; reading that waits for a GPU.
    """
    for _ in range(WARM_UP):
        float(step())
    blocks: list[float] = []
    begin = time.perf_counter()
    while True:
        calls, block = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - block < BLOCK:
            loss = step()
            calls += 1
        float(loss)
        blocks.append((time.perf_counter() - block) / calls)
        last = blocks[-BLOCKS:]
        median = statistics.median(last)
        agree = len(last) == BLOCKS and max(last) - min(last) < AGREE * median
        if agree or (len(blocks) >= 2 and time.perf_counter() - begin > PATIENCE):
            return median


def _sizes(source: dict, count: int) -> np.ndarray:
    """Numbers of atoms as mixed as those of a data set: [count], log-normal."""
    mean, spread = source.get("atoms", 20), source.get("atoms_spread", 0.0)
    if not spread:
        return np.full(count, mean)
    width = np.sqrt(np.log(1 + spread**2))
    drawn = np.random.default_rng(1).lognormal(np.log(mean) - width**2 / 2, width, count)
    return np.maximum(2, np.rint(drawn)).astype(int)


def _made_up(settings: RunSpec, source: dict, count: int):
    """Structures on a jittered grid, as dense as molecules, or as crystals with a cutoff."""
    from schnet.data.store import Structure

    rng = np.random.default_rng(0)
    cutoff = settings.model.get("cutoff")
    spacing = 2.6 if cutoff else 1.3  # Å
    for k, atoms in enumerate(_sizes(source, count)):
        side = int(np.ceil(atoms ** (1 / 3)))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
        positions = grid[:atoms] * spacing + rng.normal(0, 0.1, (atoms, 3))
        # as many layers as there are atoms for: no cell is mostly empty
        layers = int(np.ceil(atoms / side**2))
        cell = np.diag([layers, side, side]) * spacing if cutoff else None
        values: dict[str, float | np.ndarray] = {settings.target: rng.normal()}
        if settings.forces:
            values[settings.forces] = rng.normal(size=(atoms, 3))
        yield Structure(str(k), rng.choice([1, 6, 7, 8], atoms), positions, values, cell=cell)
