"""ASE calculator: energies in eV and forces in eV/Å of a trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from schnet.data.structures import from_atoms
from schnet.engine.inference import Predictor
from schnet.errors import ModelError
from schnet.models import load_model
from schnet.units import factor


class SchNetCalculator(Calculator):
    """A trained energy model as an ASE calculator.

    Args: path or module from ``schnet.models.load_model``; device: "cpu" or "cuda"; threads: of the native
    engine; engine: auto, native or reference. Energies include all offsets; forces are -dE/dr (Eq. 4).
    Raises ModelError for a model whose target is not an energy.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, model, device: str = "cpu", threads: int = 1, engine: str = "auto", **options):
        super().__init__(**options)
        if isinstance(model, str | Path):
            model = load_model(model)
        try:
            self.energy_factor = factor(getattr(model, "unit", "eV"), "eV")
        except ValueError as error:
            raise ModelError(f"the model predicts {model.target} in {model.unit}, not an energy") from error
        self.predictor = Predictor(model, device=device, threads=threads, engine=engine)
        self.cutoff = model.hyperparameters.cutoff
        self._structures = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        p = self.predictor
        fresh = self._structures is None or self.cutoff is not None or {"numbers", "cell", "pbc"} & set(system_changes)
        if fresh:
            self._structures = from_atoms([atoms], cutoff=self.cutoff, device=p.device, dtype=p.dtype)
            self._batch = self._structures.batch(torch.zeros(1, dtype=torch.int64, device=p.device))
        else:
            self._batch.positions = torch.as_tensor(atoms.positions, dtype=p.dtype, device=p.device)
        energy, forces = p(self._batch, forces=True)
        self.results = {
            "energy": float(energy[0]) * self.energy_factor,
            "forces": np.asarray(forces.cpu(), dtype=float) * self.energy_factor,
        }
