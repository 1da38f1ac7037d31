"""Cuts through learned filters, with and without periodic boundary conditions (Fig. 2)."""

from __future__ import annotations

import numpy as np
import torch

from schnet.errors import ModelError
from schnet.models.contract import Model
from schnet.models.schnet import SchNet


def filter_cut(
    model: Model, *, cell=None, size: float = 5.0, points: int = 101, block: int = 0
) -> np.ndarray:
    """Filters W(r) of an interaction block in the plane z = 0, an atom in its middle.

    Without a cell it is the filter of one atom, which depends on |r| alone and is zero beyond the
    cutoff. With one it is the sum over the atom's periodic images, W(r) = sum_n W(|r + n·cell|) for
    |r + n·cell| < cutoff (Sec. II D 2): what atoms of a kind, one per cell, are convolved with.
    The division of filter responses by the number of neighbours is not in it.

    Args:
        model: a SchNet; with a cutoff, where there is a cell.
        cell: [3, 3] in Å, rows are lattice vectors; None: no periodicity.
        size: length of the cut's sides in Å.
        points: along each of them.
        block: which interaction block, from 0.

    Returns:
        [points, points, F], float64; the first index is y, the second x.

    Raises:
        ModelError: the model has no filters, or no cutoff that ends the sum.
    """
    if not isinstance(model, SchNet):
        raise ModelError(f"{model.name}: this architecture has no filters; SchNet has")
    cutoff = model.hyperparameters.cutoff
    if cell is not None and cutoff is None:
        raise ModelError("periodic filters need a model with a cutoff: the sum would not end")
    axis = np.linspace(-size / 2, size / 2, points)
    x, y = np.meshgrid(axis, axis)
    plane = np.stack([x, y, np.zeros_like(x)], -1).reshape(-1, 3)
    network = model.blocks()[block].filter_network
    like = next(model.parameters())
    total = np.zeros((points**2, model.hyperparameters.n_features))
    with torch.no_grad():
        for shift in _images(cell, cutoff, size):
            d = np.linalg.norm(plane + shift, axis=1)
            near = slice(None) if cutoff is None else d < cutoff
            if len(d[near]):
                e = model.radial_basis(torch.as_tensor(d[near]).to(like))
                total[near] += network(e).double().cpu().numpy()
    return total.reshape(points, points, -1)


def _images(cell, cutoff: float | None, size: float) -> np.ndarray:
    """Lattice vectors that may bring a point of the cut within the cutoff, [n, 3] in Å."""
    if cell is None or cutoff is None:
        return np.zeros((1, 3))
    cell = np.asarray(cell, float)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil((cutoff + size / np.sqrt(2)) / heights).astype(int)
    steps = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
    return np.stack(steps, -1).reshape(-1, 3) @ cell
