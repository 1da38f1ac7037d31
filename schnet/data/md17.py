"""MD17: molecular dynamics trajectories of small molecules.

Chmiela et al., Sci. Adv. 3, e1603015 (2017).
Upstream: one NumPy archive per molecule with z [n], R [M, n, 3] in Å, E [M, 1] in kcal/mol and
F [M, n, 3] in kcal/mol/Å.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from schnet.data.census import Census
from schnet.data.store import MAX_Z, Property, Structure, write_store
from schnet.errors import DataError, first_line

#: name here -> name in the upstream file
MOLECULES = {
    "benzene": "benzene2017",
    "toluene": "toluene",
    "malonaldehyde": "malonaldehyde",
    "salicylic_acid": "salicylic",
    "aspirin": "aspirin",
    "ethanol": "ethanol",
    "uracil": "uracil",
    "naphthalene": "naphthalene",
    "paracetamol": "paracetamol",
    "azobenzene": "azobenzene",
}
PROPERTIES = {
    "energy": Property("kcal/mol", "total energy", kind="energy"),
    "forces": Property("kcal/mol/Å", "forces on the atoms", per_atom=True, kind="forces"),
}


#: arrays of an upstream file
ARRAYS = {"z": "atomic numbers", "R": "positions", "E": "energies", "F": "forces"}


def read(path) -> dict[str, np.ndarray]:
    """Read an upstream archive.

    Returns: z [n], R [M, n, 3] in Å, E [M] in kcal/mol, F [M, n, 3] in kcal/mol/Å.

    Raises:
        DataError: naming the array that is missing, misshapen or not finite.
    """
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as f:
            missing = [f"{key!r} ({what})" for key, what in ARRAYS.items() if key not in f.files]
            if missing:
                raise DataError(
                    f"{path}: no array {', '.join(missing)}; found {', '.join(f.files)}"
                )
            z, r, e, forces = (_numbers(f[key], f"{path}: array {key!r}") for key in ARRAYS)
    except DataError:
        raise
    except Exception as error:  # NumPy and zipfile raise anything
        raise DataError(
            f"{path}: not a NumPy archive ({first_line(error)}); fetch it again"
        ) from error
    e = e.reshape(-1)
    if not len(e):
        raise DataError(f"{path}: no structure in it; fetch it again")
    shape = (len(e), z.size, 3)
    if z.ndim != 1 or r.shape != shape or forces.shape != shape:
        raise DataError(
            f"{path}: shapes do not fit: z {z.shape}, R {r.shape}, E {e.shape}, F {forces.shape}"
        )
    bad = np.flatnonzero(~((z >= 1) & (z < MAX_Z) & (z == np.round(z))))
    if len(bad):
        raise DataError(f"{path}: array 'z': {z[bad[0]]} of atom {bad[0]} is no atomic number")
    for name, array in (("R", r), ("E", e), ("F", forces)):
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(r), -1)).all(1))
        if len(bad):
            raise DataError(
                f"{path}: array {name!r} has a value that is not finite in frame {bad[0]}"
            )
    return {"z": z.astype(int), "R": r, "E": e, "F": forces}


def _numbers(array, where: str) -> np.ndarray:
    """The array, if it is one of real numbers."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        raise DataError(f"{where}: holds no numbers")
    return array


def convert(raw, out, *, name: str, about: dict, upstream=None, **_) -> dict:
    """Convert the trajectory of one molecule.

    Args:
        raw: folder with md17_NAME.npz.
        out: HDF5 file.
        name: the data set, md17_ and a key of MOLECULES.
        about: title, licence, citation and sources of the data set.
        upstream: entry of workflow/sources.yaml, to compare the count with.

    Returns:
        Notes on the data.

    Raises:
        DataError: the file is missing or damaged.
    """
    molecule = name.removeprefix("md17_")
    data = read(Path(raw) / f"md17_{MOLECULES.get(molecule, molecule)}.npz")
    census = Census(about.get("sources", []), upstream)

    def structures():
        for k in range(len(data["R"])):
            values = {"energy": data["E"][k], "forces": data["F"][k]}
            yield Structure(f"{molecule}-{k + 1}", data["z"], data["R"][k], values)

    return write_store(
        out, census.count(structures()), PROPERTIES, name=name, notes=census.notes, **about
    )
