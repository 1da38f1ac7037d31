"""What is measured: structures and the sizes of the models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase.build import bulk, molecule

from schnet.data.structures import Structures, from_atoms
from schnet.models.schnet import Hyperparameters, SchNet
from schnet.reference import build


def molecules(names, count, seed=0):
    """``count`` rattled copies of molecules, without cutoff."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        atoms = names[k % len(names)].copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        out.append(atoms)
    return from_atoms(out)


def qm9_like(count, seed=0):
    """Molecules of about 18 atoms and 9 heavy atoms."""
    rng = np.random.default_rng(seed)
    out = []
    while len(out) < count:
        atoms = molecule("CH4")
        for _ in range(40):
            if (atoms.numbers > 1).sum() >= 9:
                break
            group = str(rng.choice(["CH3", "OH", "NH2", "CH3", "CHO"]))
            atoms = build.substitute(
                atoms, int(rng.choice(np.flatnonzero(atoms.numbers == 1))), group
            )
        d = atoms.get_all_distances() + 9 * np.eye(len(atoms))
        if d.min() > 0.7:
            out.append(atoms)
    return from_atoms(out)


def crystals(count, seed=0):
    rng = np.random.default_rng(seed)
    kinds = [
        bulk("NaCl", "rocksalt", a=5.64, cubic=True),
        bulk("Cu", "fcc", a=3.61, cubic=True),
        bulk("Si", "diamond", a=5.43, cubic=True),
        bulk("CsCl", "cesiumchloride", a=4.12).repeat((2, 2, 2)),
        bulk("MgO", "rocksalt", a=4.21, cubic=True),
        bulk("Fe", "bcc", a=2.87, cubic=True).repeat((2, 2, 1)),
    ]
    out = []
    for k in range(count):
        atoms = kinds[k % len(kinds)].copy()
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        out.append(atoms)
    data = from_atoms(out, cutoff=5.0)
    data.n_neighbours = None
    return data


def c20(count):
    from schnet.reference.trajectories import dodecahedron

    return molecules([dodecahedron()], count)


@dataclass(frozen=True)
class Case:
    """Structures, the model's T, F, r_max (Å) and readout, and what is computed of them."""

    structures: Callable[[], Structures]
    T: int
    F: int
    r_max: float
    forces: bool
    training: bool
    readout: str = "sum"


CASES = {
    "QM9-like step, batch 32": Case(lambda: qm9_like(32), 6, 64, 20.0, False, True),
    "QM9-like step, batch 100": Case(lambda: qm9_like(100), 6, 64, 20.0, False, True),
    "QM9-like dipole step, batch 32": Case(
        lambda: qm9_like(32), 6, 64, 20.0, False, True, "dipole"
    ),
    "aspirin E+F step, batch 32": Case(
        lambda: molecules([build.named("aspirin")], 32),
        3,
        64,
        20.0,
        True,
        True,
    ),
    "ethanol E+F step, batch 32": Case(
        lambda: molecules([build.named("ethanol")], 32),
        3,
        64,
        20.0,
        True,
        True,
    ),
    "crystals 5 Å step, batch 32": Case(lambda: crystals(32), 6, 64, 5.0, False, True),
    "one C20, E+F": Case(lambda: c20(1), 6, 128, 20.0, True, False),
    "8 C20, E+F": Case(lambda: c20(8), 6, 128, 20.0, True, False),
    "32 C20, E+F": Case(lambda: c20(32), 6, 128, 20.0, True, False),
    "one aspirin, E+F": Case(
        lambda: molecules([build.named("aspirin")], 1), 3, 64, 20.0, True, False
    ),
    "8 aspirin, E+F": Case(
        lambda: molecules([build.named("aspirin")], 8), 3, 64, 20.0, True, False
    ),
    "32 aspirin, E+F": Case(
        lambda: molecules([build.named("aspirin")], 32), 3, 64, 20.0, True, False
    ),
}


def model_for(T, F, r_max, readout="sum"):
    torch.manual_seed(0)
    model = SchNet(Hyperparameters(n_interactions=T, n_features=F, r_max=r_max, readout=readout))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.03 * torch.randn_like(p))
        model.embedding.weight[0] = 0
    return model
