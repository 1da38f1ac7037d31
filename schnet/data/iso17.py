"""ISO17: trajectories of C7O2H10 isomers (Schütt et al., NIPS 2017).

Upstream: a tar archive of five ASE databases, of which reference.db (training and validation),
test_within.db and test_other.db are used, and validation_ids.txt: 1-based row numbers in
reference.db.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from schnet.data.census import Census
from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError
from schnet.files import file_digest

PROPERTIES = {
    "energy": Property("eV", "total energy", kind="energy"),
    "forces": Property("eV/Å", "forces on the atoms", per_atom=True, kind="forces"),
}
#: groups of the converted file; reference.db holds the first two
GROUPS = ["train", "validation", "test_within", "test_other"]
PARTS = ("reference", "test_within", "test_other")


def extract(raw) -> Path:
    """Unpack iso17.tar.gz beside itself, again when the archive is another than the unpacked one.

    The archive's SHA-256 is written into the folder when it is complete. Members outside the
    folder, links and devices are refused, and the archive's own checksum (gzip CRC) is looked at.
    Without an archive, databases placed there by hand are taken as they are.

    Args:
        raw: folder with iso17.tar.gz.

    Returns:
        The folder with the databases.

    Raises:
        DataError: the archive is damaged, cut off or holds no folder iso17.
    """
    raw = Path(raw)
    folder, archive = raw / "iso17", raw / "iso17.tar.gz"
    if not archive.exists():
        return folder
    marker, digest = folder / ".complete", file_digest(archive)
    if marker.exists() and marker.read_text().strip() == digest:
        return folder
    work = raw / f".iso17.{os.getpid()}.tmp"
    try:
        _unpack(archive, work)
        if not (work / "iso17").is_dir():
            raise DataError(f"{archive}: holds no folder iso17; delete it and fetch again")
        (work / "iso17" / ".complete").write_text(digest + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(work / "iso17", folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    """All of a gzipped tar archive into ``folder``, and the rest of the stream up to its CRC."""
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                tar.extractall(folder, filter="data")
            while stream.read(1 << 24):  # tarfile stops before the end, where the CRC is
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{archive}: archive damaged or cut off ({error}); delete it and fetch again"
        ) from error


def rows(path) -> Iterator[tuple[int, Structure]]:
    """(row number, structure) of every row of an ASE database, one at a time.

    Energies are in eV, forces [n, 3] in eV/Å.

    Raises:
        DataError: the file is missing, is no ASE database, or a row lacks energy or forces.
    """
    from ase.db import connect

    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: missing in the archive; fetch it again")
    try:
        with connect(path) as database:
            for row in database.select():
                forces = row.data.get("atomic_forces") if row.data else None
                if forces is None or "total_energy" not in row.key_value_pairs:
                    raise DataError(f"{path}: row {row.id} has no total_energy or atomic_forces")
                values = {
                    "energy": float(row.total_energy),
                    "forces": np.asarray(forces, float),
                }
                name = f"{path.stem}-{row.id}"
                yield row.id, Structure(name, row.numbers, row.positions, values)
    except (sqlite3.DatabaseError, KeyError) as error:
        raise DataError(f"{path}: not an ASE database ({error}); fetch it again") from error


def convert(raw, out, *, name: str, about: dict, upstream=None, **_) -> dict:
    """Convert the three parts; the data set's own split becomes the groups of the converted file.

    Args:
        raw: folder with iso17.tar.gz.
        out: HDF5 file.
        name: the data set.
        about: title, licence, citation and sources of the data set.
        upstream: entry of workflow/sources.yaml, to compare the count with.

    Returns:
        Notes on the data.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = extract(raw)
    listed = folder / "validation_ids.txt"
    if not listed.exists():
        raise DataError(f"{listed}: missing in the archive; fetch it again")
    validation = {int(word) for word in listed.read_text().split()}
    census = Census(about.get("sources", []), upstream)

    def structures():
        for part in PARTS:
            for row, structure in rows(folder / f"{part}.db"):
                group = part
                if part == "reference":
                    group = "validation" if row in validation else "train"
                structure.group = GROUPS.index(group)
                yield structure

    return write_store(
        out,
        census.count(structures()),
        PROPERTIES,
        name=name,
        notes=census.notes,
        group_names=GROUPS,
        **about,
    )
