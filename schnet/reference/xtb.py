"""GFN2-xTB through tblite: energies, forces, relaxation, response properties."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from schnet.errors import SchNetError

HARTREE_EV, BOHR_ANGSTROM = 27.211386245988, 0.529177210903


class XTB(Calculator):
    """ASE calculator (eV, eV/Å) that restarts each SCF from the last one.

    Args:
        accuracy: tblite's factor of all thresholds; small for second derivatives.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, accuracy: float = 1.0):
        super().__init__()
        self.accuracy = accuracy
        self._single = self._result = None

    def _new(self, numbers, bohr):
        single = single_point(numbers, bohr)
        single.set("accuracy", self.accuracy)
        return single

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy in eV and forces [n, 3] in eV/Å; SchNetError when the SCF does not converge."""
        super().calculate(atoms, properties, system_changes)
        bohr = atoms.positions / BOHR_ANGSTROM
        if self._single is None or "numbers" in system_changes:
            self._single, self._result = self._new(atoms.numbers, bohr), None
        else:
            self._single.update(bohr)
        try:
            self._result = self._single.singlepoint(self._result)
        except RuntimeError:
            self._single = self._new(atoms.numbers, bohr)
            try:
                self._result = self._single.singlepoint()
            except RuntimeError as error:
                raise SchNetError(
                    f"GFN2-xTB does not converge for {atoms.get_chemical_formula()}"
                ) from error
        self.results = {
            "energy": float(self._result.get("energy")) * HARTREE_EV,
            "forces": -np.asarray(self._result.get("gradient")) * (HARTREE_EV / BOHR_ANGSTROM),
        }


def single_point(numbers, bohr, field=None, uhf: int | None = None):
    """A quiet tblite calculator.

    Args:
        numbers: atomic numbers [n].
        bohr: positions [n, 3] in Bohr.
        field: homogeneous electric field [3] in atomic units.
        uhf: number of unpaired electrons.
    """
    from tblite.interface import Calculator as Tblite

    c = Tblite("GFN2-xTB", np.asarray(numbers), np.asarray(bohr), uhf=uhf)
    c.set("verbosity", 0)
    if field is not None:
        from tblite.library import ffi

        c.add("electric-field", ffi.new("double[3]", [float(x) for x in field]))
    return c


def relax(atoms: Atoms, fmax: float = 0.01, steps: int = 400) -> bool:
    """Relax with GFN2-xTB in place; whether the largest force fell below ``fmax`` in eV/Å."""
    atoms.calc = XTB()
    return minimise(atoms, fmax, steps)


def minimise(atoms: Atoms, fmax: float, steps: int) -> bool:
    """Relax with the calculator that ``atoms`` have; whether the forces fell below ``fmax``."""
    from ase.optimize import LBFGS

    optimizer = LBFGS(atoms, logfile=None)  # type: ignore[arg-type]  # no log
    return bool(optimizer.run(fmax=fmax, steps=steps))


def hessian(atoms: Atoms, step: float = 0.005) -> np.ndarray:
    """d²E/dr² [3n, 3n] in eV/Å² from central differences of forces, symmetrised.

    Args:
        atoms: a molecule with a calculator.
        step: displacement in Å.
    """
    calc, n = atoms.calc, len(atoms)
    reference = atoms.positions.copy()
    h = np.zeros((3 * n, 3 * n))
    for k in range(3 * n):
        forces = []
        for sign in (1, -1):
            moved = reference.copy()
            moved.flat[k] += sign * step
            atoms.positions = moved
            forces.append(calc.get_forces(atoms).ravel())
        h[k] = (forces[1] - forces[0]) / (2 * step)
    atoms.positions = reference
    return 0.5 * (h + h.T)


def polarizability(numbers, bohr, field: float = 1e-3) -> float:
    """Isotropic polarizability in Bohr^3 from dipoles in finite fields.

    Args:
        numbers: atomic numbers [n].
        bohr: positions [n, 3] in Bohr.
        field: strength in atomic units.
    """
    total = 0.0
    for axis in range(3):
        dipoles = []
        for sign in (1, -1):
            e = np.zeros(3)
            e[axis] = sign * field
            result = single_point(numbers, bohr, field=e).singlepoint()
            dipoles.append(np.asarray(result.get("dipole"))[axis])
        total += abs(dipoles[0] - dipoles[1]) / (2 * field)
    return total / 3
