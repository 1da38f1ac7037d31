"""ISO17: trajectories of C7O2H10 isomers (Schütt et al., NIPS 2017).

Upstream: a tar archive of five ASE databases, of which reference.db (training and validation),
test_within.db and test_other.db are used, and validation_ids.txt: 1-based row numbers in
reference.db.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from schnet.data.census import Census
from schnet.data.store import Property, Structure, write_store
from schnet.errors import DataError, first_line
from schnet.files import DISK, scratch

PROPERTIES = {
    "energy": Property("eV", "total energy", kind="energy"),
    "forces": Property("eV/Å", "forces on the atoms", per_atom=True, kind="forces"),
}
#: groups of the converted file; reference.db holds the first two
GROUPS = ["train", "validation", "test_within", "test_other"]
PARTS = ("reference", "test_within", "test_other")
BATCH = 1000  # rows


@contextmanager
def databases(raw) -> Iterator[Path]:
    """The folder with the databases of iso17.tar.gz, unpacked for the time of the block.

    Members outside the folder, links and devices are refused, and the archive's own checksum (gzip
    CRC) is looked at. Without an archive, databases placed in ``raw``/iso17 by hand are taken.

    Args:
        raw: folder with iso17.tar.gz.

    Raises:
        DataError: the archive is damaged, cut off or holds no folder iso17.
        SchNetError: there is no space for the databases.
    """
    raw = Path(raw)
    archive = raw / "iso17.tar.gz"
    if not archive.exists():
        yield raw / "iso17"
        return
    with scratch(raw / "iso17") as work:
        _unpack(archive, work)
        if not (work / "iso17").is_dir():
            raise DataError(f"{archive}: holds no folder iso17; delete it and fetch again")
        yield work / "iso17"


def _unpack(archive: Path, folder: Path) -> None:
    """All of a gzipped tar archive into ``folder``, and the rest of the stream up to its CRC."""
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                tar.extractall(folder, filter="data")
            while stream.read(1 << 24):  # tarfile stops before the end, where the CRC is
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise DataError(
            f"{archive}: archive damaged or cut off ({error}); delete it and fetch again"
        ) from error


def rows(path) -> Iterator[tuple[int, Structure]]:
    """(row number, structure) of every row of an ASE database, BATCH of them in memory at a time.

    Energies are in eV, forces [n, 3] in eV/Å.

    Raises:
        DataError: the file is missing, is no ASE database, or a row lacks energy or forces.
    """
    from ase.db import connect

    path = Path(path)
    if not path.exists():
        raise DataError(f"{path.name}: missing in the archive; fetch it again")
    last, found = 0, True
    try:
        with connect(path, type="db") as database:
            while found:
                found = False
                # ASE reads all that it selects before it gives the first row
                for row in database.select(f"id>{last}", sort="id", limit=BATCH):
                    last, found = row.id, True
                    yield row.id, _structure(row, path)
    except DataError:
        raise
    except Exception as error:  # ASE raises anything for a database of another kind
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path.name}: not an ASE database ({reason}); fetch it again") from error


def _structure(row, path: Path) -> Structure:
    """The structure of a row of an ASE database."""
    forces = row.data.get("atomic_forces") if row.data else None
    if forces is None or "total_energy" not in row.key_value_pairs:
        raise DataError(f"{path.name}: row {row.id} has no total_energy or atomic_forces")
    values = {"energy": float(row.total_energy), "forces": np.asarray(forces, float)}
    return Structure(f"{path.stem}-{row.id}", row.numbers, row.positions, values)


def read_validation(path) -> set[int]:
    """The row numbers in reference.db that validation_ids.txt lists.

    Raises:
        DataError: the file is missing or holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path.name}: missing in the archive; fetch it again")
    try:
        return {int(word) for word in path.read_text(encoding="utf-8").split()}
    except ValueError as error:
        raise DataError(f"{path.name}: not a list of row numbers ({first_line(error)})") from error


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
    census = Census(about.get("sources", []), upstream)

    def structures(folder):
        validation = read_validation(folder / "validation_ids.txt")
        for part in PARTS:
            for row, structure in rows(folder / f"{part}.db"):
                group = part
                if part == "reference":
                    group = "validation" if row in validation else "train"
                structure.group = GROUPS.index(group)
                yield structure

    with databases(raw) as folder:
        return write_store(
            out,
            census.count(structures(folder)),
            PROPERTIES,
            name=name,
            notes=census.notes,
            group_names=GROUPS,
            **about,
        )
