"""What i-PI calls for the forces on all beads at once (``ffdirect`` with a custom pes)."""

import numpy as np
from ipi.utils.units import unit_to_internal

from schnet.simulation.ipi_input import evaluators

__DRIVER_NAME__ = "schnet"
__DRIVER_CLASS__ = "Beads"

ANGSTROM = unit_to_internal("length", "angstrom", 1.0)
EV = unit_to_internal("energy", "electronvolt", 1.0)


class Beads:
    """Energies and forces of the beads in atomic units.

    Args:
        key: which of ``schnet.simulation.ipi_input.evaluators``.
        verbosity: i-PI's, not used.
    """

    def __init__(self, key: str, verbosity=None):
        self.evaluate = evaluators[key]

    def __call__(self, cell, positions):
        """A list with (energy, forces [n, 3], virial, extras) of every bead; the virial is zero.

        Args:
            cell: list of cells, not used; with one bead a cell.
            positions: list of positions [n, 3] in Bohr; with one bead those.
        """
        if not isinstance(positions, list):
            return self([cell], [positions])[0]
        energies, forces = self.evaluate(np.stack(positions) / ANGSTROM)
        energies, forces = energies * EV, forces * (EV / ANGSTROM)
        virial = np.zeros((3, 3))
        return [(e, f, virial, "") for e, f in zip(energies, forces, strict=True)]
