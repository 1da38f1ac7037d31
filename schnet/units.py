"""Conversion factors, and nothing else (docs/protocol.md says which are whose).

Hartree and the powers of Bohr are those of the paper's authors: QM9 is converted with them, so its
labels are theirs digit for digit. kcal/mol is ASE's, to the last bit. No data set is converted
between kcal/mol and eV (MD17 and C20 keep kcal/mol, ISO17 is published in eV); the factor is for
what goes through ASE, whose users convert back with ``ase.units``. The authors' 0.0433641 eV is off
by 9·10⁻⁸ of that, 0.043 kcal/mol in the total energy of C20.
"""

from ase import units as ase_units

HARTREE = 27.211386  # eV
KCAL_PER_MOL = ase_units.kcal / ase_units.mol  # eV
BOHR2 = 0.280029  # Å^2
BOHR3 = 0.148185  # Å^3

#: unit -> (quantity, value in the quantity's base unit)
UNITS = {
    "eV": ("energy", 1.0),
    "meV": ("energy", 1e-3),
    "kcal/mol": ("energy", KCAL_PER_MOL),
    "Hartree": ("energy", HARTREE),
    "eV/atom": ("energy per atom", 1.0),
    "meV/atom": ("energy per atom", 1e-3),
    "eV/Å": ("force", 1.0),
    "kcal/mol/Å": ("force", KCAL_PER_MOL),
    "Bohr^3": ("polarizability", BOHR3),
    "Å^3": ("polarizability", 1.0),
    "Bohr^2": ("area", BOHR2),
    "Å^2": ("area", 1.0),
    "Debye": ("dipole", 1.0),
    "cal/mol K": ("heat capacity", 1.0),
}


def factor(source: str, target: str) -> float:
    """Factor that turns a number in unit ``source`` into unit ``target``.

    Raises:
        ValueError: a unit is unknown, or the two measure different quantities.
    """
    for unit in (source, target):
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; known: {', '.join(UNITS)}")
    (quantity, a), (other, b) = UNITS[source], UNITS[target]
    if quantity != other:
        raise ValueError(f"cannot convert {source} ({quantity}) to {target} ({other})")
    return a / b
