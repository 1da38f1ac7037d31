"""Normal modes: degeneracies, modes matched between models, and a folder with all of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms, units
from ase.io import write
from scipy.optimize import linear_sum_assignment

from schnet.errors import ConfigError, SchNetError
from schnet.files import atomic, write_text
from schnet.simulation.folder import Folder, describe, model_digest, require_positive
from schnet.simulation.hessian import finite_difference_hessian, frequencies, hessian
from schnet.simulation.potential import potential
from schnet.simulation.relax import in_double, relax

log = logging.getLogger("schnet")

TOLERANCE = 0.5  # cm⁻¹ between neighbours of a group that counts as degenerate
LARGE_FORCE = 1e-3  # eV/Å above which a structure is no stationary point


@dataclass
class Modes:
    """Normal modes of a structure with n atoms, lowest first.

    Attributes:
        atoms: the structure.
        frequencies: [k] in cm⁻¹; negative for imaginary ones. k is 3n less rigid motions.
        vectors: [k, n, 3], orthonormal in mass-weighted coordinates.
        groups: [k], the same number for modes that count as degenerate.
        max_force: largest force on an atom in eV/Å; not small: no stationary point.
    """

    atoms: Atoms
    frequencies: np.ndarray
    vectors: np.ndarray
    groups: np.ndarray
    max_force: float

    @property
    def n_imaginary(self) -> int:
        """How many modes are imaginary."""
        return int((self.frequencies < 0).sum())

    @property
    def zero_point_energy(self) -> float:
        """Sum of ħω/2 over the modes that are not imaginary, in eV."""
        return float(0.5 * units.invcm * self.frequencies[self.frequencies > 0].sum())

    def table(self) -> pd.DataFrame:
        """mode, frequency (cm⁻¹, negative: imaginary), imaginary, degeneracy, group."""
        degeneracy = np.bincount(self.groups)[self.groups]
        return pd.DataFrame(
            {
                "mode": np.arange(1, len(self.frequencies) + 1),
                "frequency_cm-1": self.frequencies,
                "imaginary": self.frequencies < 0,
                "degeneracy": degeneracy,
                "group": self.groups + 1,
            }
        )


def degenerate(values: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Group numbers [k] from 0 of ascending values: a gap wider than ``tolerance`` ends a group."""
    return np.concatenate([[0], np.cumsum(np.diff(values) > tolerance)]).astype(int)


def normal_modes(
    atoms: Atoms,
    models,
    *,
    method: str = "autodiff",
    tolerance: float = TOLERANCE,
    **options,
) -> Modes:
    """Normal modes of a structure where it is: relax it first for those of a minimum.

    Args:
        atoms: the structure.
        models: model files or Models (a committee: of the mean energy), or an ASE calculator, which
            means finite differences.
        method: "autodiff" of the reference model in float64, or "finite" differences of the engine.
        tolerance: in cm⁻¹, of what counts as degenerate.
        options: device; with "finite" also threads, engine.
    """
    if method not in ("autodiff", "finite"):
        raise ConfigError(f"modes: method {method!r} is none of autodiff, finite")
    if len(atoms) < 2 and not atoms.pbc.any():
        raise ConfigError(f"modes: {atoms.get_chemical_formula()}: one atom has no modes")
    require_positive("modes", tolerance=tolerance)
    if hasattr(models, "get_potential_energy"):
        method = "finite"
    if method == "autodiff":
        models = in_double(models)
        options = {"device": options.get("device", "cpu"), "engine": "reference"}
        h = hessian(atoms, models, options["device"])
    else:
        evaluate = potential(models, atoms, 6, **options)
        h = finite_difference_hessian(evaluate, atoms.positions)
    evaluate = potential(models, atoms, 1, **options)
    fmax = float(np.linalg.norm(evaluate(atoms.positions[None])[1][0], axis=1).max())
    found, vectors = frequencies(atoms, h)
    return Modes(atoms.copy(), found, vectors, degenerate(found, tolerance), fmax)


def _rotation(a: Atoms, b: Atoms) -> np.ndarray:
    """The rotation [3, 3] that turns b's positions, as rows, onto a's (Kabsch)."""
    w = a.get_masses()[:, None]
    pa, pb = a.positions - a.get_center_of_mass(), b.positions - b.get_center_of_mass()
    u, _, vt = np.linalg.svd((w * pb).T @ pa)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return u @ sign @ vt


def compare(a: Modes, b: Modes) -> pd.DataFrame:
    """Which mode of b is which of a, and how much higher it is (Fig. 7, bottom).

    Modes are matched one to one so that the sum of the squared overlaps of their eigenvectors is
    largest, after b was turned onto a. ``overlap`` is the squared overlap with the whole group of
    degenerate modes that the partner belongs to, 1 where both describe the same motion.

    Args:
        a: modes of the reference.
        b: modes of the same atoms in the same order by another model.

    Returns:
        One row for each mode of a: mode, reference and other frequency (cm⁻¹), other mode,
        difference (per cent of the reference), overlap.

    Raises:
        ConfigError: the two are not of the same atoms.
    """
    same = np.array_equal(a.atoms.numbers, b.atoms.numbers)
    if not same or len(a.frequencies) != len(b.frequencies):
        raise ConfigError("modes: only modes of the same atoms can be compared")
    turned = b.vectors
    if not a.atoms.pbc.any():
        turned = turned @ _rotation(a.atoms, b.atoms)
    k = len(a.frequencies)
    squared = (a.vectors.reshape(k, -1) @ turned.reshape(k, -1).T) ** 2
    rows, partner = linear_sum_assignment(-squared)
    shared = np.array(
        [squared[i, b.groups == b.groups[j]].sum() for i, j in zip(rows, partner, strict=True)]
    )
    other = b.frequencies[partner]
    return pd.DataFrame(
        {
            "mode": rows + 1,
            "reference_cm-1": a.frequencies,
            "other_cm-1": other,
            "other_mode": partner + 1,
            "difference_percent": 100 * (other - a.frequencies) / np.abs(a.frequencies),
            "overlap": shared,
        }
    )


def modes(
    atoms: Atoms,
    models,
    output,
    *,
    others=(),
    relaxed: bool = True,
    fmax: float = 1e-5,
    method: str = "autodiff",
    tolerance: float = TOLERANCE,
    **options,
) -> Modes:
    """Relax a structure, compute its normal modes, and compare them with those of other models.

    The folder gets modes.csv, modes.npz (frequencies, vectors, positions, max_force) and
    modes.extxyz (a frame for each mode: the structure, and the displacements of its atoms), and for
    every other model K = 1, 2, … other_K.csv, other_K.npz, other_K.extxyz and comparison_K.csv.
    What is there is not computed again.

    Args:
        atoms: where to start.
        models: model files or Models (a committee), or an ASE calculator: the reference.
        output: folder.
        others: model files, Models or ASE calculators whose modes are compared with the
            reference's, each at its own minimum.
        relaxed: whether to relax first; False: the modes at the given positions, of a saddle point
            for instance.
        fmax: largest force after relaxation in eV/Å.
        method, tolerance: see ``normal_modes``.
        options: device, threads, engine.

    Returns:
        The modes of ``models``.

    Raises:
        ConfigError: the folder holds modes with other settings.
    """
    settings = describe(
        atoms, models, verb="modes", relaxed=relaxed, fmax=fmax, method=method, tolerance=tolerance
    )
    settings["others"] = describe(atoms, list(others))["models"]
    folder = Folder(output, settings)
    found: list[Modes] = []
    with folder.locked():
        for k, each in enumerate([models, *others]):
            name = f"other_{k}" if k else "modes"
            kept = folder / f"{name}.npz"
            if kept.exists():
                found.append(_read(kept, atoms, tolerance))
                continue
            at = _minimum(atoms, each, fmax, options) if relaxed else atoms
            m = normal_modes(at, each, method=method, tolerance=tolerance, **options)
            _say(name, m)
            write_text(folder / f"{name}.csv", m.table().to_csv(index=False))
            with atomic(folder / f"{name}.extxyz") as temporary:
                write(temporary, frames(m), format="extxyz")
            _write(kept, m)
            found.append(m)
        for k, m in enumerate(found[1:], 1):
            _compare(folder / f"comparison_{k}.csv", found[0], m, model_name(others[k - 1]))
    return found[0]


def frames(m: Modes) -> list[Atoms]:
    """A structure for each mode, with its displacements [n, 3] in Å, the largest of them 1 Å."""
    images = []
    mass_root = np.sqrt(m.atoms.get_masses())[:, None]
    for k, (frequency, vector) in enumerate(zip(m.frequencies, m.vectors, strict=True), 1):
        image = m.atoms.copy()
        image.set_constraint()
        moved = vector / mass_root
        image.arrays["displacement"] = moved / np.linalg.norm(moved, axis=1).max()
        image.info = {"mode": k, "frequency_cm-1": frequency}
        images.append(image)
    return images


def model_name(model) -> str:
    """What a person calls a model: its file, or the calculator's name."""
    return str(model) if isinstance(model, str | Path) else model_digest(model)[:12]


def _compare(file: Path, reference: Modes, other: Modes, name: str) -> None:
    table = compare(reference, other)
    write_text(file, table.to_csv(index=False))
    change = table["difference_percent"]
    worst = table.iloc[int(np.argmax(change.abs()))]
    log.info(
        "%s: frequencies differ from the reference's by %.2f %% in the mean, by %+.2f %% at most "
        "(mode %d, %.1f cm⁻¹); %s",
        name, change.abs().mean(), worst["difference_percent"], worst["mode"],
        worst["reference_cm-1"], file,
    )  # fmt: skip


def _minimum(atoms: Atoms, models, fmax: float, options: dict) -> Atoms:
    """The relaxed structure, with ASE calculators to what they can do at least."""
    if not hasattr(models, "get_potential_energy"):
        return relax(atoms, models, fmax=fmax, **options)
    from ase.optimize import BFGS

    at = atoms.copy()
    at.calc = models
    if not BFGS(at, logfile=None).run(fmax=max(fmax, LARGE_FORCE / 10), steps=1000):
        raise SchNetError("modes: the other calculator's relaxation does not converge")
    return at


def _say(name: str, m: Modes) -> None:
    if m.max_force > LARGE_FORCE:
        log.warning(
            "%s: no stationary point, the largest force is %.2g eV/Å; its modes mean little",
            name,
            m.max_force,
        )
    if m.n_imaginary:
        log.warning("%s: %d imaginary modes, this is no minimum", name, m.n_imaginary)
    log.info(
        "%s: %.1f to %.1f cm⁻¹, zero-point energy %.4f eV",
        name, m.frequencies[0], m.frequencies[-1], m.zero_point_energy,
    )  # fmt: skip


def _write(path: Path, m: Modes) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as f:
        np.savez(
            f,
            frequencies=m.frequencies,
            vectors=m.vectors,
            positions=m.atoms.positions,
            max_force=m.max_force,
        )


def _read(path: Path, atoms: Atoms, tolerance: float) -> Modes:
    with np.load(path) as kept:
        at = atoms.copy()
        at.positions = kept["positions"]
        found = kept["frequencies"]
        groups = degenerate(found, tolerance)
        return Modes(at, found, kept["vectors"], groups, float(kept["max_force"]))


def read_modes(folder, atoms: Atoms, name: str = "modes", tolerance: float = TOLERANCE) -> Modes:
    """Modes of a folder that ``modes`` has written; ``name`` is "modes" or "other_K"."""
    return _read(Path(folder) / f"{name}.npz", atoms, tolerance)
