"""MD17: molecular dynamics trajectories of small molecules (Chmiela et al., Sci. Adv. 3, e1603015, 2017).

Upstream: one NumPy archive per molecule with z [n], R [M, n, 3] in Å, E [M, 1] in kcal/mol and
F [M, n, 3] in kcal/mol/Å.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

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
    "energy": Property("kcal/mol", "total energy"),
    "forces": Property("kcal/mol/Å", "forces on the atoms", per_atom=True),
}


def read(path) -> dict[str, np.ndarray]:
    """The arrays of an upstream archive; DataError naming what is missing or misshapen."""
    try:
        with np.load(path, allow_pickle=False) as f:
            missing = [k for k in "zREF" if k not in f.files]
            if missing:
                what = {"z": "atomic numbers", "R": "positions", "E": "energies", "F": "forces"}
                raise DataError(f"{path}: no array {', '.join(f'{k!r} ({what[k]})' for k in missing)}; found {', '.join(f.files)}")
            z, r, e, forces = (f[k] for k in "zREF")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a NumPy archive ({error}); fetch it again") from error
    e = e.reshape(-1)
    if r.ndim != 3 or r.shape[1:] != (len(z), 3) or forces.shape != r.shape or len(e) != len(r):
        raise DataError(f"{path}: shapes do not fit: z {z.shape}, R {r.shape}, E {e.shape}, F {forces.shape}")
    for name, array in (("R", r), ("E", e), ("F", forces)):
        bad = np.flatnonzero(~np.isfinite(array.reshape(len(r), -1)).all(1))
        if len(bad):
            raise DataError(f"{path}: array {name!r} has a value that is not finite in frame {bad[0]}")
    return {"z": z, "R": r, "E": e, "F": forces}


def convert(raw, out, *, name, about, **_):
    """raw: folder with md17_NAME.npz; out: HDF5 file."""
    molecule = name.removeprefix("md17_")
    data = read(Path(raw) / f"md17_{MOLECULES.get(molecule, molecule)}.npz")
    structures = (
        Structure(f"{molecule}-{k + 1}", data["z"], data["R"][k], {"energy": data["E"][k], "forces": data["F"][k]}) for k in range(len(data["R"]))
    )
    return write_store(out, structures, PROPERTIES, name=name, **about)
