"""The molecules and crystals of Figs. 2, 5 and 6, by name."""

from __future__ import annotations

import math
from pathlib import Path

from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii, reference_states
from ase.io import read
from ase.lattice.hexagonal import Graphite

from schnet.errors import known_or_nearest

#: geometries by GFN2-xTB, relaxed to 0.002 eV/Å
MOLECULES = Path(__file__).with_name("molecules.xyz")
LATTICE_DIAMOND = 3.567  # Å, experiment
LATTICE_GRAPHITE = {"a": 2.461, "c": 6.708}  # Å, experiment
#: structure -> nearest neighbours' distance over the lattice constant
NEAREST = {"fcc": math.sqrt(0.5), "bcc": math.sqrt(0.75), "hcp": 1.0, "diamond": math.sqrt(3) / 4}


def named_molecule(name: str, where: str = "molecules") -> Atoms:
    """A molecule of Fig. 5, or one that ``ase.build.molecule`` knows.

    Raises:
        ConfigError: no such molecule, with the nearest name; ``where`` begins the message.
    """
    own = {atoms.info["name"]: atoms for atoms in read(MOLECULES, index=":")}
    known_or_nearest(name, [*own, *g2.names], "molecule", where)
    return own[name] if name in own else molecule(name)


def diamond() -> Atoms:
    """The cubic cell of diamond."""
    return bulk("C", "diamond", a=LATTICE_DIAMOND, cubic=True)


def graphite() -> Atoms:
    """The hexagonal cell of graphite."""
    return Graphite("C", latticeconstant=LATTICE_GRAPHITE)


def close_packed(symbol: str) -> tuple[Atoms, Atoms]:
    """The hexagonal and the cubic close-packed crystal of an element, hcp and fcc.

    Their nearest neighbours are as far apart as in the element's own crystal, or twice its covalent
    radius where ASE does not know that.
    """
    z = atomic_numbers[symbol]
    state: dict = reference_states[z] or {}
    length = 2 * covalent_radii[z]
    if state.get("symmetry") in NEAREST:
        length = NEAREST[state["symmetry"]] * state["a"]
    hexagonal = bulk(symbol, "hcp", a=length, c=math.sqrt(8 / 3) * length)
    return hexagonal, bulk(symbol, "fcc", a=math.sqrt(2) * length, cubic=True)
