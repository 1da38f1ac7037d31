"""Metal crystals and alloys with EMT energies (ase), in the file of the Materials Project."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from schnet.files import atomic

ELEMENTS = ("Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")
#: prototype -> (fractional positions, species A or B, lattice constant over that of the fcc cell)
PROTOTYPES = {
    "fcc": ([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], "AAAA", 1.0),
    "bcc": ([(0, 0, 0), (0.5, 0.5, 0.5)], "AA", 0.79),
    "L1_2": ([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], "BAAA", 1.0),
    "L1_0": ([(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)], "AABB", 1.0),
    "B2": ([(0, 0, 0), (0.5, 0.5, 0.5)], "AB", 0.79),
    "primitive": ([(0, 0, 0)], "A", 0.0),
}


def _energy(atoms: Atoms) -> float:
    """EMT energy of the cell in eV."""
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def _prototype(kind: str, a: str, b: str, lattice: dict[str, float]) -> Atoms:
    """An unstrained crystal of ``a`` and ``b``; lattice: constants of their fcc cells in Å."""
    if kind == "primitive":
        return bulk(a)
    positions, species, factor = PROTOTYPES[kind]
    symbols = [{"A": a, "B": b}[s] for s in species]
    length = factor * np.mean([lattice[s] for s in symbols])
    return Atoms(symbols, scaled_positions=positions, cell=[length] * 3, pbc=True)


def _cif(atoms: Atoms) -> str:
    """CIF text as pymatgen writes it."""
    from pymatgen.io.ase import AseAtomsAdaptor

    clean = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    return str(AseAtomsAdaptor.get_structure(clean).to(fmt="cif"))


def make(
    dataset: str, folder, *, workers: int = 1, crystals: int = 340, seed: int = 0
) -> tuple[str, list[Path]]:
    """Write mp.2018.6.1.json.zip: strained and rattled prototypes.

    Formation energies are per atom, in eV, against the elements' fcc crystals.

    Args:
        dataset: not used.
        folder: where the file goes.
        workers: not used.
        crystals: how many.
        seed: of species, strain and displacements.

    Returns:
        How the file was made, and the file.
    """
    rng = np.random.default_rng([seed, 3])
    lattice = {e: bulk(e, cubic=True).cell[0, 0] for e in ELEMENTS}
    reference = {e: _energy(bulk(e)) for e in ELEMENTS}
    items: list[dict] = []
    names = list(PROTOTYPES)
    for number in range(crystals):
        a, b = (str(e) for e in rng.choice(ELEMENTS, 2, replace=False))
        atoms = _prototype(names[number % len(names)], a, b, lattice)
        strain = np.eye(3) + rng.normal(0, 0.015, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain * rng.uniform(0.97, 1.06), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        apart = sum(reference[s] for s in atoms.get_chemical_symbols())
        items.append(
            {
                "material_id": f"emt-{number + 1}",
                "structure": _cif(atoms),
                "graph": None,
                "formation_energy_per_atom": (_energy(atoms) - apart) / len(atoms),
                "band_gap": None,
            }
        )
    path = Path(folder) / "mp.2018.6.1.json.zip"
    with (
        atomic(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr("mp.2018.6.1.json", json.dumps(items))
    return "made here: EMT (ase)", [path]
