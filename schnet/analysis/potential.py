"""Local chemical potentials: the energy of a probe atom that senses the others only (Eq. 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import wrap_positions
from scipy.spatial import cKDTree
from torch import Tensor

from schnet.data.structures import Batch, from_atoms
from schnet.engine import why_no_table
from schnet.engine.table import TableEngine
from schnet.errors import ConfigError, DataError, ModelError
from schnet.models.contract import MAX_Z, Model
from schnet.models.schnet import SchNet

PAIRS = 2**15  # pairs at a time: few enough for the features of a pair to stay in a cache


def local_potential(
    model: Model, atoms: Atoms, points, probe: str = "C", *, device: str = "cpu"
) -> np.ndarray:
    """Ω_Z(r), the local chemical potential of a probe atom of element Z at points r.

    Every probe is refined by the atoms' features as an atom of the structure would be, layer by
    layer (Eq. 6), while the atoms do not sense it and have the features that they have without it;
    nor do probes sense each other. Ω is the output of the network for the probe, times the scale of
    the model. The offsets, which are constants of the probe's element, are left out. Under periodic
    boundary conditions all images of the atoms within the cutoff are sensed, and where filter
    responses are divided by a number of neighbours it is that of the probe.

    Args:
        model: of an architecture with ``probes``.
        atoms: the structure that is probed, of elements that the model was trained on; periodic for
            models of crystals and for no others.
        points: [M, 3] in Å.
        probe: symbol of the probe's element, which the model was trained on as well.
        device: "cpu" or "cuda".

    Returns:
        [M] float64 in the unit of the model; of a mean per atom, the probe's share before division.

    Raises:
        ConfigError: no such element, or one that models do not know.
        DataError: an element or a periodicity that the model was not trained on.
        ModelError: the architecture has no probes, or the model predicts no sum or mean over atoms.
    """
    z = atomic_numbers.get(probe, 0)
    if not 0 < z < MAX_Z:
        raise ConfigError(f"probe {probe!r}: no element that models know; use a symbol like C")
    _check(model, atoms, z)
    model = model.to(device)
    dtype, cutoff = next(model.parameters()).dtype, model.hyperparameters.cutoff
    structure = from_atoms([atoms], cutoff=cutoff, device=device, dtype=dtype)
    batch = structure.batch(torch.zeros(1, dtype=torch.int64))
    points = np.asarray(points, float).reshape(-1, 3)
    surroundings = Surroundings(atoms, cutoff)
    size = max(1, PAIRS // surroundings.per_point)
    atomwise = _evaluator(model, surroundings.farthest(points))
    found = [np.zeros(0)]
    with torch.no_grad():
        for start in range(0, len(points), size):
            part = surroundings.wrapped(points[start : start + size])
            y = atomwise(with_probes(batch, z, part, *surroundings.pairs(part)))
            found.append(y[len(atoms) :].double().cpu().numpy())
    return float(model.scale) * np.concatenate(found)


def _evaluator(model: Model, farthest: float) -> Callable[[Batch], Tensor]:
    """``atomwise`` of the model, by a filter table up to a distance in Å where there is one."""
    if why_no_table(model):
        return model.atomwise
    engine = TableEngine(cast(SchNet, model), (0.0, farthest), frozen=True)
    engine.checked = False  # the range is known, and a probe may lie on an atom
    return engine.atomwise


def trained_on_crystals(model: Model) -> bool:
    """Whether the training data were periodic; of files that do not tell, by the unit."""
    return bool(model.provenance.get("periodic", model.unit.endswith("/atom")))


def _check(model: Model, atoms: Atoms, probe: int) -> None:
    """Raise unless the model can probe this structure with this element."""
    if not model.probes:
        raise ModelError(
            f"{model.name}: this architecture has no probe atoms; its atomwise() would have to "
            "heed batch.sends, and its class to say `probes = True` (docs/extending.md)"
        )
    if model.hyperparameters.readout == "dipole":
        raise ModelError(f"{model.target}: a dipole moment is no energy, it has no potential")
    formula = atoms.get_chemical_formula()
    if trained_on_crystals(model) and not atoms.pbc.any():
        raise DataError(f"{formula}: not periodic, but the model was trained on crystals")
    if atoms.pbc.any() and not trained_on_crystals(model):
        raise DataError(f"{formula}: periodic, but the model was trained on molecules")
    model.check_elements(torch.as_tensor(atoms.numbers))
    model.check_elements(torch.as_tensor([probe]))


class Surroundings:
    """The atoms that points sense: all of a molecule, or all images within a cutoff.

    Attributes:
        per_point: about how many atoms a point senses, at least 1.
    """

    def __init__(self, atoms: Atoms, cutoff: float | None):
        self.atoms, self.cutoff = atoms, cutoff
        self.periodic = bool(atoms.pbc.any())
        self.per_point = len(atoms)
        if cutoff is None:
            return
        images = np.zeros((1, 3))
        inside = atoms.positions
        if self.periodic:
            # images of cells whose atoms are within the cutoff of a point in the first one
            heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell.array), axis=0)
            reach = [np.arange(-n, n + 1) for n in np.ceil(cutoff / heights).astype(int)]
            images = np.stack(np.meshgrid(*reach, indexing="ij"), -1).reshape(-1, 3)
            images = images @ atoms.cell.array
            inside = atoms.get_positions(wrap=True)
            density = len(atoms) / atoms.get_volume()
            self.per_point = max(1, round(density * 4 / 3 * math.pi * cutoff**3))
        self.shifts = (images[:, None] + (inside - atoms.positions)).reshape(-1, 3)
        self.tree = cKDTree(np.tile(atoms.positions, (len(images), 1)) + self.shifts)

    def wrapped(self, points: np.ndarray) -> np.ndarray:
        """The images of the points in the cell, [M, 3] in Å."""
        if not self.periodic:
            return points
        return wrap_positions(points, self.atoms.cell, pbc=True)

    def farthest(self, points: np.ndarray) -> float:
        """A distance in Å that no pair of atoms, or of a point and an atom, exceeds."""
        if self.cutoff is not None:
            return self.cutoff
        return float(np.linalg.norm(np.ptp(np.concatenate([self.atoms.positions, points]), axis=0)))

    def pairs(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of points (wrapped) and atoms: indices [P] of both, shifts [P, 3] of the atoms."""
        n = len(self.atoms)
        if self.cutoff is None:
            point, atom = np.divmod(np.arange(len(points) * n), n)
            return point, atom, np.zeros((len(point), 3))
        near = cKDTree(points).sparse_distance_matrix(self.tree, self.cutoff, output_type="ndarray")
        return near["i"], near["j"] % n, self.shifts[near["j"]]


def with_probes(
    batch: Batch, probe: int, points: np.ndarray, point: np.ndarray, atom: np.ndarray, shift
) -> Batch:
    """A batch of one structure with probe atoms, which receive but send nothing.

    Args:
        batch: one structure of N atoms.
        probe: atomic number of the M probes.
        points: where they are, [M, 3] in Å.
        point, atom: pairs of them and atoms that they sense, [P].
        shift: of the atoms to the images that are sensed, [P, 3] in Å.

    Returns:
        A batch whose first N atoms are those of the structure.
    """
    n = len(batch.positions)

    def like(old: Tensor, new) -> Tensor:
        return torch.cat([old, torch.as_tensor(new).to(old)])

    counts = batch.n_neighbours
    if counts is not None:
        # at least 1, as for atoms: a probe without neighbours has no response to divide
        counts = like(counts, np.bincount(point, minlength=len(points)).clip(1))
    return Batch(
        atomic_numbers=like(batch.atomic_numbers, np.full(len(points), probe)),
        positions=like(batch.positions, points),
        atom_ptr=batch.atom_ptr + torch.tensor([0, len(points)]).to(batch.atom_ptr),
        pair_ptr=batch.pair_ptr + torch.tensor([0, len(point)]).to(batch.pair_ptr),
        i=like(batch.i, n + point),
        j=like(batch.j, atom),
        shift=None if batch.shift is None else like(batch.shift, shift),
        n_neighbours=counts,
        sends=like(torch.ones_like(batch.positions[:, 0]), np.zeros(len(points))),
    )
