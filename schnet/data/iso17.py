"""ISO17: trajectories of C7O2H10 isomers (Schütt et al., NIPS 2017).

Upstream: a tar archive of five ASE databases, of which reference.db (training and validation),
test_within.db and test_other.db are used, and validation_ids.txt: 1-based row numbers in reference.db.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import numpy as np

from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError

PROPERTIES = {
    "energy": Property("eV", "total energy"),
    "forces": Property("eV/Å", "forces on the atoms", per_atom=True),
}
GROUPS = ["train", "validation", "test_within", "test_other"]


def extract(raw) -> Path:
    """Unpack iso17.tar.gz beside itself (members outside the folder, links and devices are refused)."""
    raw = Path(raw)
    folder, archive = raw / "iso17", raw / "iso17.tar.gz"
    if not (folder / ".complete").exists() and archive.exists():
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(raw, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{archive}: archive damaged or cut off ({error}); delete it and fetch again") from error
        (folder / ".complete").touch()
    return folder


def rows(path):
    """(id, structure) of every row of an ASE database, one at a time."""
    from ase.db import connect

    if not Path(path).exists():
        raise DataError(f"{path}: missing in the archive; fetch it again")
    try:
        with connect(path) as database:
            for row in database.select():
                forces = row.data.get("atomic_forces") if row.data else None
                if forces is None or "total_energy" not in row.key_value_pairs:
                    raise DataError(f"{path}: row {row.id} has no total_energy or atomic_forces")
                yield (
                    row.id,
                    Structure(
                        f"{Path(path).stem}-{row.id}",
                        row.numbers,
                        row.positions,
                        {"energy": float(row.total_energy), "forces": np.asarray(forces, float)},
                    ),
                )
    except (sqlite3.DatabaseError, KeyError) as error:
        raise DataError(f"{path}: not an ASE database ({error}); fetch it again") from error


def convert(raw, out, *, name, about, **_):
    """raw: folder with iso17.tar.gz; out: HDF5 file."""
    folder = extract(raw)
    listed = folder / "validation_ids.txt"
    if not listed.exists():
        raise DataError(f"{listed}: missing in the archive; fetch it again")
    validation = {int(word) for word in listed.read_text().split()}

    def structures():
        for k, part in ((0, "reference"), (2, "test_within"), (3, "test_other")):
            for row, structure in rows(folder / f"{part}.db"):
                structure.group = 1 if k == 0 and row in validation else k
                yield structure

    return write_store(out, structures(), PROPERTIES, name=name, group_names=GROUPS, **about)
