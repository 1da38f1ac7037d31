"""ASE calculator: energies in eV, forces in eV/Å and stress in eV/Å³ of trained models."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from schnet.simulation.copies import SKIN
from schnet.simulation.potential import Potential, energy_factor, load_models


class SchNetCalculator(Calculator):
    """A trained energy model, or a committee of several, as an ASE calculator.

    Energies include all offsets; forces are -dE/dr (Eq. 4). Stress is there for periodic structures
    and computed only when asked for: it costs as much as the reference engine.

    Several models give the mean of their results, and the properties ``energy_std`` (eV),
    ``forces_std`` [n, 3] (eV/Å) and, where stress was asked for, ``stress_std`` [6] (eV/Å³): the
    sample standard deviation over the models (divided by M - 1), component by component. Read them
    with ``calc.get_property("forces_std", atoms)`` or from ``calc.results``. One model has none.

    Args:
        models: path of a model file, a name that ``schnet models`` lists, a model of
            ``schnet.load_model``, or several of them.
        device: "cpu" or "cuda".
        threads: of the C++ engine.
        engine: auto, native, table or reference.
        skin: where models have a cutoff, pairs within cutoff + skin (Å) are kept between steps.
        options: of ase.calculators.calculator.Calculator.

    Attributes:
        models: the models.

    Raises:
        ModelError: a model does not predict total energies, see ``energy_factor``.

    Example:
        >>> from ase.build import molecule
        >>> atoms = molecule("CH3CH2OH")
        >>> atoms.calc = SchNetCalculator("md17_ethanol")  # or a path
        >>> print(f"{atoms.get_potential_energy():.0f} eV")
        -4210 eV
        >>> atoms.get_forces().shape
        (9, 3)
    """

    implemented_properties = ["energy", "forces", "stress"]
    SPREAD = ["energy_std", "forces_std", "stress_std"]

    def __init__(
        self,
        models,
        device: str = "cpu",
        threads: int = 1,
        engine: str = "auto",
        skin: float = SKIN,
        **options,
    ):
        super().__init__(**options)
        self.models = load_models(models)
        for model in self.models:
            energy_factor(model, 1)  # refused here, not at the first step
        self.options: dict[str, Any] = dict(
            device=device, threads=threads, engine=engine, skin=skin
        )
        self.potential: Potential | None = None
        if len(self.models) > 1:
            self.implemented_properties = [*self.implemented_properties, *self.SPREAD]

    def __getstate__(self) -> dict:
        """Copies, pickled or not, share neither results nor what makes them."""
        return self.__dict__ | {"potential": None, "results": dict(self.results)}

    def check_state(self, atoms, tol=0.0):
        """What has changed; exact, and without the cost of ASE's comparison."""
        if self.atoms is None:
            return list(all_changes)
        changes = [
            name
            for name in ("positions", "numbers", "pbc")
            if not np.array_equal(getattr(self.atoms, name), getattr(atoms, name))
        ]
        return changes if np.array_equal(self.atoms.cell, atoms.cell) else [*changes, "cell"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Energy in eV, forces [n, 3] in eV/Å and, if asked for, stress [6] in eV/Å³.

        They are kept in ``results`` as ASE wants it.

        Raises:
            DataError: an element that a model was not trained on, atoms closer than 0.3 Å, or a
                periodic structure for a model without a cutoff.
            PropertyNotImplementedError: the stress of a structure that is not periodic.
        """
        super().calculate(atoms, properties, system_changes)
        self._follow(system_changes)
        found = self.potential.evaluate(self.atoms.positions[None])
        self._keep("energy", found.energies[:, 0])
        self._keep("forces", found.forces[:, 0])
        if {"stress", "stress_std"} & set(properties):
            if not self.atoms.pbc.all():
                raise PropertyNotImplementedError("stress of a structure that is not periodic")
            stress = self.potential.stress(self.atoms.positions)
            self._keep("stress", np.array([full_3x3_to_voigt_6_stress(s) for s in stress]))

    def _follow(self, changes) -> None:
        """Make ``potential`` that of the present atoms."""
        potential, self.potential = self.potential, None  # nothing stale stays after an error
        if potential is None:
            potential = Potential(self.models, self.atoms, **self.options)
        elif {"numbers", "pbc"} & set(changes):
            potential.bind(self.atoms)
        elif "cell" in changes and potential.cell is not None:
            potential.cell = self.atoms.cell.array.copy()
        self.potential = potential

    def _keep(self, name: str, values: np.ndarray) -> None:
        """Mean and spread over the models of values [M, …]."""
        mean = values.mean(0)
        self.results[name] = mean if mean.ndim else float(mean)
        if len(values) > 1:
            spread = values.std(0, ddof=1)
            self.results[f"{name}_std"] = spread if spread.ndim else float(spread)
