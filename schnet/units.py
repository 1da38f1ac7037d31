"""Conversion factors, as used by the paper's authors (see docs/protocol.md), and nothing else."""

HARTREE = 27.211386  # eV
KCAL_PER_MOL = 0.0433641  # eV
BOHR = 0.52917721092  # Å
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

    Raises ValueError when a unit is unknown or the two measure different quantities.
    """
    for unit in (source, target):
        if unit not in UNITS:
            raise ValueError(f"unknown unit {unit!r}; known: {', '.join(UNITS)}")
    (quantity, a), (other, b) = UNITS[source], UNITS[target]
    if quantity != other:
        raise ValueError(f"cannot convert {source} ({quantity}) to {target} ({other})")
    return a / b
