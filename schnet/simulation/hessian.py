"""Hessians, and the frequencies that follow from them when rigid motions are projected out."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms, units

from schnet.data.structures import from_atoms
from schnet.models import Model
from schnet.simulation.potential import Evaluate, energy_factor
from schnet.simulation.relax import in_double

COPIES = 12  # of the structure, that the Hessian's rows are computed with at a time
STEP = 0.005  # Å, of finite differences
LINEAR = 0.01  # Å: atoms closer to an axis than this in the mean do not turn about it


def hessian(atoms: Atoms, models, device: str = "cpu") -> np.ndarray:
    """d²E/dr² [3n, 3n] in eV/Å², by automatic differentiation of the reference model in float64.

    Copies of the structure share a batch; one second derivative gives a row for each. Of several
    models it is the mean.

    Args:
        atoms: the structure, of elements that the models know.
        models: model files or Models.
        device: "cpu" or "cuda".
    """
    models, n = in_double(models), len(atoms)
    return np.mean([_hessian(atoms, m.to(device)) * energy_factor(m, n) for m in models], 0)


def _hessian(atoms: Atoms, model: Model) -> np.ndarray:
    n = 3 * len(atoms)
    device = next(model.parameters()).device
    cutoff = model.hyperparameters.cutoff
    copies = from_atoms([atoms] * COPIES, cutoff=cutoff, device=device, dtype=torch.float64)
    model.check_elements(copies.atomic_numbers)
    rows = []
    for part in torch.arange(n, device=device).split(COPIES):
        batch = copies.batch(torch.arange(len(part), device=device))
        with torch.enable_grad():
            batch.positions.requires_grad_()
            (gradient,) = torch.autograd.grad(
                model(batch).sum(), batch.positions, create_graph=True
            )
            picked = gradient.view(len(part), n).gather(1, part[:, None]).sum()
            (second,) = torch.autograd.grad(picked, batch.positions)
        rows.append(second.view(len(part), n))
    h = torch.cat(rows).cpu().numpy()
    return 0.5 * (h + h.T)


def finite_difference_hessian(
    evaluate: Evaluate, positions: np.ndarray, step: float = STEP
) -> np.ndarray:
    """d²E/dr² [3n, 3n] in eV/Å² from central differences of forces, the six of an atom at a time.

    Args:
        evaluate: energies and forces at positions [6, n, 3], see ``potential``.
        positions: [n, 3] in Å.
        step: displacement in Å.
    """
    n = positions.size
    moves = step * np.eye(n).reshape(n, *positions.shape)
    rows = []
    for three in np.split(moves, len(positions)):
        _, forces = evaluate(np.concatenate([positions + three, positions - three]))
        forces = forces.reshape(2, 3, n)
        rows.append((forces[1] - forces[0]) / (2 * step))
    h = np.concatenate(rows)
    return 0.5 * (h + h.T)


def rigid_motions(atoms: Atoms) -> np.ndarray:
    """Translations and, without periodicity, rotations in mass-weighted coordinates.

    Returns:
        Orthonormal columns [3n, 6]; 5 for linear molecules, 3 for atoms and periodic structures.
    """
    root = np.sqrt(atoms.get_masses())
    n = len(atoms)
    moves = [np.tile(axis, (n, 1)) for axis in np.eye(3)]
    if not atoms.pbc.any():
        centred = atoms.positions - atoms.get_center_of_mass()
        moves += [np.cross(axis, centred) for axis in np.eye(3)]
    columns = np.array([(root[:, None] * m).ravel() for m in moves]).T
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    # about the centre of mass the singular values are sqrt(M) and sqrt(M) times radii of gyration
    return u[:, s > LINEAR * np.sqrt(root @ root)]


def frequencies(atoms: Atoms, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies [k] in cm⁻¹ and eigenvectors [k, n, 3], rigid motions projected out.

    Imaginary frequencies are negative numbers.

    Args:
        atoms: the structure, which has the masses.
        h: its Hessian [3n, 3n] in eV/Å².
    """
    root = np.repeat(np.sqrt(atoms.get_masses()), 3)
    rigid = rigid_motions(atoms)
    # what is orthogonal to the rigid motions: the other columns of a full basis
    basis = np.linalg.svd(rigid, full_matrices=True)[0][:, rigid.shape[1] :]
    values, vectors = np.linalg.eigh(basis.T @ (h / np.outer(root, root)) @ basis)
    # sqrt(eV / Å² / u) as an energy ħω in eV, then in cm⁻¹
    scale = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm
    found = np.sign(values) * np.sqrt(np.abs(values)) * scale
    return found, (basis @ vectors).T.reshape(len(found), -1, 3)
