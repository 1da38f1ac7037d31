"""Metal crystals and alloys with EMT energies (ase), in the file format of the Materials Project snapshot."""

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
#: prototype -> (fractional positions, species A or B, lattice constant over that of the cubic fcc cell)
PROTOTYPES = {
    "fcc": ([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], "AAAA", 1.0),
    "bcc": ([(0, 0, 0), (0.5, 0.5, 0.5)], "AA", 0.79),
    "L1_2": ([(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)], "BAAA", 1.0),
    "L1_0": ([(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)], "AABB", 1.0),
    "B2": ([(0, 0, 0), (0.5, 0.5, 0.5)], "AB", 0.79),
    "primitive": ([(0, 0, 0)], "A", 0.0),
}


def _energy(atoms) -> float:
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def make(dataset: str, folder, *, workers: int = 1, crystals: int = 340, seed: int = 0):
    """Write mp.2018.6.1.json.zip: strained and rattled prototypes, formation energy per atom against the elements' fcc crystals."""
    from pymatgen.io.ase import AseAtomsAdaptor

    rng = np.random.default_rng([seed, 3])
    lattice = {e: bulk(e, cubic=True).cell[0, 0] for e in ELEMENTS}
    reference = {e: _energy(bulk(e)) for e in ELEMENTS}
    items, names = [], list(PROTOTYPES)
    while len(items) < crystals:
        a, b = rng.choice(ELEMENTS, 2, replace=False)
        kind = names[len(items) % len(names)]
        if kind == "primitive":
            atoms = bulk(str(a))
        else:
            positions, species, factor = PROTOTYPES[kind]
            symbols = [str({"A": a, "B": b}[s]) for s in species]
            length = factor * np.mean([lattice[s] for s in symbols])
            atoms = Atoms(symbols, scaled_positions=positions, cell=[length] * 3, pbc=True)
        strain = np.eye(3) + rng.normal(0, 0.015, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain * rng.uniform(0.97, 1.06), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        energy = (_energy(atoms) - sum(reference[s] for s in atoms.get_chemical_symbols())) / len(atoms)
        structure = AseAtomsAdaptor.get_structure(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
        items.append(
            {
                "material_id": f"emt-{len(items) + 1}",
                "structure": str(structure.to(fmt="cif")),
                "graph": None,
                "formation_energy_per_atom": energy,
                "band_gap": None,
            }
        )
    path = Path(folder) / "mp.2018.6.1.json.zip"
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mp.2018.6.1.json", json.dumps(items))
    return "made here: EMT (ase)", [path]
