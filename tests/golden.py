"""What committed models say of committed structures: `python tests/golden.py` writes golden.json.

It is to be run when a model is committed, not when a number has changed.
"""

import json
from pathlib import Path

import torch
from ase.io import read

from schnet.data.structures import from_atoms
from schnet.models import load_model

TESTS = Path(__file__).resolve().parent
STRUCTURES, NUMBERS = TESTS / "golden.extxyz", TESTS / "golden.json"
RUNS = TESTS.parent / "results" / "replication" / "small" / "runs"
#: structure -> the run whose model is asked, the only one of these that has kept it
MODELS = {
    "ethanol": "md17_ethanol/energy+forces/schnet-T3-*/n1000/rep0",
    "aspirin": "qm9/U0/schnet-T6-F64-short-*/n10000/rep0",
    "toluene": "md17_toluene/energy+forces/schnet-T3-*-600k-*/n1000/rep0",
    "C20": "c20/energy+forces/schnet-T3-*-100k-*/n20000/rep0",
    "NaCl": "materials_project/formation_energy_per_atom/schnet-T6-*/n3000/rep0",
    "Si": "materials_project/formation_energy_per_atom/schnet-T6-*/n3000/rep0",
}


def structures():
    """The committed structures by name."""
    return {atoms.info["name"]: atoms for atoms in read(STRUCTURES, ":")}


def model_file(name):
    """The model that is asked about a structure."""
    (file,) = RUNS.glob(f"{MODELS[name]}/model.pt")
    return file


def reference(name, atoms):
    """Property and forces [n, 3] by the equations of the paper in float64."""
    model = load_model(model_file(name)).double()
    data = from_atoms([atoms], cutoff=model.hyperparameters.cutoff, dtype=torch.float64)
    batch = data.batch(torch.tensor([0]))
    energy, forces = model.energy_and_forces(batch)
    return (energy + model.offset(batch)).item(), forces.tolist()


def main():
    numbers = {}
    for name, atoms in structures().items():
        energy, forces = reference(name, atoms)
        numbers[name] = {"value": energy, "forces": forces}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
