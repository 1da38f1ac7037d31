"""ASE calculator: energies in eV and forces in eV/Å of a trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from schnet.data.structures import from_atoms
from schnet.engine.inference import Predictor
from schnet.errors import ModelError
from schnet.models import Model, load_model
from schnet.models.files import kind_of
from schnet.units import factor


def energy_factor(model: Model) -> float:
    """What the energies of a model are multiplied by to be in eV.

    An energy here is a total energy of the whole structure, of which -dE/dr are the forces: the
    property is of the kind "energy" and the readout a sum over atoms. Orbital energies, enthalpies
    and energies per atom are none, although their unit may be eV.

    Raises:
        ModelError: the model predicts something else.
    """
    what = f"the model predicts {model.target} in {model.unit}"
    if (model.kind or kind_of(model.target, model.force_unit)) != "energy":
        raise ModelError(f"{what}, not a total energy with forces; use `schnet predict`")
    if model.hyperparameters.readout != "sum":
        raise ModelError(
            f"{what} by a {model.hyperparameters.readout} over atoms, not the energy of the whole "
            "structure; train with readout: sum on total energies"
        )
    try:
        return factor(model.unit, "eV")
    except ValueError as error:
        raise ModelError(f"{what}, which is not an energy ({error})") from error


class SchNetCalculator(Calculator):
    """A trained energy model as an ASE calculator.

    Energies include all offsets; forces are -dE/dr (Eq. 4).

    Args:
        model: path of a model file, or a model from ``schnet.models.load_model``.
        device: "cpu" or "cuda".
        threads: of the C++ engine.
        engine: auto, native, table or reference.
        options: of ase.calculators.calculator.Calculator.

    Raises:
        ModelError: the model does not predict total energies, see ``energy_factor``.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(
        self, model, device: str = "cpu", threads: int = 1, engine: str = "auto", **options
    ):
        super().__init__(**options)
        if isinstance(model, str | Path):
            model = load_model(model)
        self.energy_factor = energy_factor(model)
        self.predictor = Predictor(model, device=device, threads=threads, engine=engine)
        self.cutoff = model.hyperparameters.cutoff
        self._batch = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy in eV and forces [n, 3] in eV/Å, kept in ``results`` as ASE wants it.

        Raises:
            DataError: an element that the model was not trained on, or impossible positions.
        """
        super().calculate(atoms, properties, system_changes)
        p = self.predictor
        # without a cutoff the pairs stay the same when only positions change
        same_pairs = self.cutoff is None and not {"numbers", "cell", "pbc"} & set(system_changes)
        if self._batch is not None and same_pairs:
            self._batch.positions = torch.as_tensor(
                self.atoms.positions, dtype=p.dtype, device=p.device
            )
        else:
            self._batch = None  # nothing stale stays where the atoms are refused
            structures = from_atoms(
                [self.atoms], cutoff=self.cutoff, device=p.device, dtype=p.dtype
            )
            self._batch = structures.batch(torch.zeros(1, dtype=torch.int64, device=p.device))
        energy, forces = p(self._batch, forces=True)
        self.results = {
            "energy": float(energy[0]) * self.energy_factor,
            "forces": np.asarray(forces.cpu(), dtype=float) * self.energy_factor,
        }
