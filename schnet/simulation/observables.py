"""Observables of trajectories (frames × beads × atoms), with error bars by blocking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pandas as pd
from ase import Atoms
from scipy.spatial.distance import pdist
from scipy.stats import skew

from schnet.errors import ConfigError, DataError

EQUILIBRATION = 0.1  # share of the frames at the beginning that is discarded


@dataclass
class Frames:
    """A trajectory.

    Attributes:
        positions: [T, P, n, 3] in Å; P is 1 for classical dynamics.
        numbers: [n] atomic numbers.
        log: one row for each frame: time_ps, temperature_K, … as in log.csv.
    """

    positions: np.ndarray
    numbers: np.ndarray
    log: pd.DataFrame

    def equilibrated(self, share: float = EQUILIBRATION) -> Frames:
        """Without the first ``share`` of the frames, rounded up."""
        first = int(np.ceil(share * len(self.positions)))
        return Frames(self.positions[first:], self.numbers, self.log.iloc[first:])


def read_frames(path) -> Frames:
    """The trajectory in the folder of ``md`` or of a finished ``pimd``, or its trajectory.h5.

    Raises:
        DataError: there is none.
        ConfigError: it is periodic: distances here know no images.
    """
    path = Path(path)
    file = path / "trajectory.h5" if path.is_dir() else path
    if file.suffix == ".h5" and file.exists():
        with h5py.File(file) as h5:
            _refuse_periodic(h5["pbc"][:], file)
            log = pd.DataFrame({name: h5[f"log/{name}"][:] for name in h5["log"]})
            return Frames(h5["positions"][:], h5["numbers"][:], log)
    file = path / "trajectory.extxyz"
    if (path / "exploded.h5").exists():
        raise DataError(f"{path}: the trajectory exploded; what there is of it: exploded.h5")
    if not file.exists():
        raise DataError(f"{path}: no trajectory.h5 or trajectory.extxyz; has the run finished?")
    from ase.io import read

    images = cast("list[Atoms]", read(file, ":"))
    _refuse_periodic(images[0].pbc, file)
    positions = np.array([image.positions for image in images])[:, None]
    log = pd.read_csv(path / "log.csv")
    return Frames(positions, images[0].numbers, log.iloc[: len(positions)])


def _refuse_periodic(pbc, file) -> None:
    if np.any(pbc):
        raise ConfigError(f"{file}: periodic; these observables are those of molecules")


def blocking(series) -> tuple[float, float]:
    """Mean and its standard error from correlated numbers, by blocking.

    H. Flyvbjerg and H. G. Petersen, J. Chem. Phys. 91, 461: neighbours are averaged again and again
    until the blocks are independent. Which block length B = 2^k is taken: the smallest with
    B³ > 2 N (s_B / s_1)⁴, where s_B is the error estimated from blocks of B of the N numbers (R. M.
    Lee et al., Phys. Rev. E 83, 066706). The longest with 4 blocks where none is long enough: then
    the run is too short for an error, and it is a lower bound.

    Args:
        series: [N], N ≥ 2.
    """
    x = np.asarray(series, float)
    mean, n = float(x.mean()), len(x)
    if n < 2:
        return mean, float("nan")
    errors: list[float] = []
    length = 1
    while len(x) >= 4 or not errors:
        errors.append(x.std(ddof=1) / np.sqrt(len(x)))
        if errors[0] == 0 or length**3 > 2 * n * (errors[-1] / errors[0]) ** 4:
            break
        x, length = x[: len(x) // 2 * 2].reshape(-1, 2).mean(1), 2 * length
    return mean, float(errors[-1])


def pair_distances(positions: np.ndarray) -> np.ndarray:
    """Distances of all pairs, [..., n (n - 1) / 2] in Å, from positions [..., n, 3]."""
    flat = positions.reshape(-1, *positions.shape[-2:])
    found = np.array([pdist(r) for r in flat])
    return found.reshape(*positions.shape[:-2], -1)


def nearest_neighbours(positions: np.ndarray, k: int = 1) -> np.ndarray:
    """Distances of every atom to its k nearest, [..., n, k] in Å, nearest first.

    Args:
        positions: [..., n, 3] in Å.
        k: 1 for the nearest; the number of bonds for all of them (3 in C20).

    Raises:
        ConfigError: an atom has fewer neighbours.
    """
    flat = positions.reshape(-1, *positions.shape[-2:])
    n = flat.shape[1]
    if not 1 <= k < n:
        raise ConfigError(f"observables: {k} nearest neighbours of {n} atoms: there are none such")
    out = np.empty((len(flat), n, k))
    upper = np.triu_indices(n, 1)
    square = np.full((n, n), np.inf)
    for row, r in zip(out, flat, strict=True):
        square[upper] = pdist(r)
        square.T[upper] = square[upper]
        row[:] = np.sort(np.partition(square, k - 1, axis=1)[:, :k], axis=1)
    return out.reshape(*positions.shape[:-2], n, k)


def diameters(positions: np.ndarray) -> np.ndarray:
    """The largest distance of two atoms, [...] in Å, from positions [..., n, 3]."""
    return pair_distances(positions).max(-1)


def distribution(values: np.ndarray, edges: np.ndarray, blocks: int = 10) -> pd.DataFrame:
    """Density of values, whose first dimension is time, with standard errors.

    Args:
        values: [T, …]: distances, diameters.
        edges: of the bins, [K + 1].
        blocks: the error is that of the mean over so many consecutive parts.

    Returns:
        r (bin centres), density (its integral over all values is 1) and error.
    """
    edges = np.asarray(edges, float)
    width = np.diff(edges)
    parts = np.array_split(values, min(blocks, len(values)))
    each = np.array([np.histogram(p, edges)[0] / (p.size * width) for p in parts])
    share = np.array([p.size for p in parts]) / values.size
    error = np.full(len(width), np.nan)  # of one part there is none
    if len(each) > 1:
        error = each.std(0, ddof=1) / np.sqrt(len(each))
    centres = 0.5 * (edges[1:] + edges[:-1])
    return pd.DataFrame({"r": centres, "density": share @ each, "error": error})


def difference(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float]:
    """How much of a distribution lies elsewhere in another: half the area between the two.

    Args:
        one, other: from ``distribution``, with the same bins.

    Returns:
        The share, from 0 (the same) to 1 (no overlap), and the share that is expected of two
        samples of the same distribution with these standard errors.
    """
    width = one["r"].diff().median()
    share = 0.5 * width * (one["density"] - other["density"]).abs().sum()
    error = np.hypot(one["error"], other["error"])
    return float(share), float(0.5 * width * np.sqrt(2 / np.pi) * error.sum())


def skewness(values: np.ndarray, blocks: int = 10) -> tuple[float, float]:
    """Third standardized moment of values, whose first dimension is time, with a standard error.

    Args:
        values: [T, …]; a symmetric distribution has 0, a tail to long distances more.
        blocks: the error is that of the mean over so many consecutive parts.
    """
    parts = np.array_split(values, min(blocks, len(values)))
    each = np.array([skew(part, axis=None) for part in parts])
    error = each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else float("nan")
    return float(skew(values, axis=None)), float(error)


def pair_distribution(frames: Frames, edges, blocks: int = 10) -> pd.DataFrame:
    """h(r): the density of all distances between two atoms of the same bead (Figs. 8, 11).

    Args and returns as of ``distribution``.
    """
    return distribution(pair_distances(frames.positions), edges, blocks)


def drift(time, values) -> float:
    """Slope of a straight line through values against time, by least squares."""
    return float(np.polyfit(time, values, 1)[0]) if len(time) > 1 else float("nan")


def observables(
    frames: Frames, *, neighbours: int = 1, equilibration: float = EQUILIBRATION
) -> pd.DataFrame:
    """Means with errors by blocking; beads are averaged first.

    Args:
        frames: from ``read_frames``.
        neighbours: how many nearest neighbours of every atom count as such.
        equilibration: share of the frames that is discarded at the beginning.

    Returns:
        observable, mean, error, unit; the frames are counted in ``attrs["frames"]``. Virial kinetic
        energy (kinetic_cv) of path-integral runs only. The drift is that of the conserved quantity
        (of the total energy in classical dynamics) over all frames, and has no error.
    """
    kept = frames.equilibrated(equilibration)
    if len(kept.positions) < 2:
        raise ConfigError("observables: fewer than two frames are left after equilibration")
    series = {
        "nearest neighbour": (
            nearest_neighbours(kept.positions, neighbours).mean((1, 2, 3)), "Å"),
        "diameter": (diameters(kept.positions).mean(1), "Å"),
        "temperature": (kept.log["temperature_K"].to_numpy(), "K"),
        "potential energy": (kept.log["potential_eV"].to_numpy(), "eV"),
    }  # fmt: skip
    if "kinetic_cv_eV" in kept.log:
        series["virial kinetic energy"] = kept.log["kinetic_cv_eV"].to_numpy(), "eV"
    rows = [(name, *blocking(values), unit) for name, (values, unit) in series.items()]
    conserved = "conserved_eV" if "conserved_eV" in frames.log else "total_eV"
    slope = drift(frames.log["time_ps"].to_numpy(), frames.log[conserved].to_numpy())
    rows.append(("drift of the conserved quantity", slope, float("nan"), "eV/ps"))
    table = pd.DataFrame(rows, columns=["observable", "mean", "error", "unit"])
    table.attrs["frames"] = len(kept.positions)
    return table
