"""MD17: molecular dynamics trajectories of small molecules.

Chmiela et al., Sci. Adv. 3, e1603015 (2017).
Upstream: one NumPy archive per molecule with z [n], R [M, n, 3] in Å, E [M, 1] in kcal/mol and
F [M, n, 3] in kcal/mol/Å.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from schnet.data.census import Census
from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError

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
        with np.load(path, allow_pickle=False) as f:
            missing = [f"{key!r} ({what})" for key, what in ARRAYS.items() if key not in f.files]
            if missing:
                raise DataError(
                    f"{path}: no array {', '.join(missing)}; found {', '.join(f.files)}"
                )
            z, r, e, forces = (f[key] for key in ARRAYS)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a NumPy archive ({error}); fetch it again") from error
    e = e.reshape(-1)
    if r.ndim != 3 or r.shape[1:] != (len(z), 3) or forces.shape != r.shape or len(e) != len(r):
        raise DataError(
            f"{path}: shapes do not fit: z {z.shape}, R {r.shape}, E {e.shape}, F {forces.shape}"
        )
    for name, array in (("R", r), ("E", e), ("F", forces)):
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(r), -1)).all(1))
        if len(bad):
            raise DataError(
                f"{path}: array {name!r} has a value that is not finite in frame {bad[0]}"
            )
    return {"z": z, "R": r, "E": e, "F": forces}


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
