"""C20 fullerene: trajectories in extended xyz with energy and forces.

The paper's DFT trajectory is not published. What stands in for it is made by `schnet reference c20`
(frames of a 500 K Nosé–Hoover run driven by the authors' released force model, or by GFN2-xTB at
the demo scale): one file ``c20_trajectory_K.extxyz`` per trajectory, energies in kcal/mol.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schnet.data.census import Census
from schnet.data.store import Property, Structure, write_store
from schnet.data.structures import check_lengths
from schnet.errors import DataError, first_line

PROPERTIES = {
    "energy": Property("kcal/mol", "total energy", kind="energy"),
    "forces": Property("kcal/mol/Å", "forces on the atoms", per_atom=True, kind="forces"),
}


def convert(raw, out, *, name: str, about: dict, **_) -> dict:
    """Convert all trajectories; each becomes a group of the converted file.

    Args:
        raw: folder with c20_trajectory_*.extxyz.
        out: HDF5 file.
        name: the data set.
        about: title, licence, citation and sources of the data set.

    Returns:
        Notes on the data.

    Raises:
        DataError: there is no trajectory, or one is damaged.
    """
    from ase.io import iread

    files = sorted(Path(raw).glob("c20_trajectory_*.extxyz"))
    if not files:
        raise DataError(f"{raw}: no c20_trajectory_*.extxyz")
    census = Census(about.get("sources", []))

    def structures():
        for k, path in enumerate(files):
            check_lengths(path)
            try:
                for frame, atoms in enumerate(iread(path, index=":")):
                    values = {
                        "energy": float(atoms.info["energy_kcal"]),
                        "forces": np.asarray(atoms.arrays["forces_kcal"], float),
                    }
                    identifier = f"{path.stem}-{frame}"
                    yield Structure(identifier, atoms.numbers, atoms.positions, values, group=k)
            except Exception as error:  # ASE's reader raises anything
                reason = f"{type(error).__name__}: {first_line(error)}"
                raise DataError(
                    f"{path}: damaged, or without energy_kcal and forces_kcal ({reason})"
                ) from error

    return write_store(
        out,
        census.count(structures()),
        PROPERTIES,
        name=name,
        notes=census.notes,
        group_names=[f.stem for f in files],
        **about,
    )
