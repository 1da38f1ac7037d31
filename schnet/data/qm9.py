"""QM9: 134k organic molecules with up to nine heavy atoms (Ramakrishnan et al., Sci. Data 1, 140022, 2014).

Upstream: a bzip2 tar archive with one extended xyz file per molecule, ``uncharacterized.txt`` with the
molecules that failed the consistency check, ``atomref.txt`` with single-atom energies.
"""

from __future__ import annotations

import bz2
import re
import tarfile
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers

from schnet.data.store import MAX_Z, Property, Structure, write_store
from schnet.errors import DataError
from schnet.units import HARTREE

#: property -> (position on the second line of a file, factor to the unit of Table I, unit, description)
COLUMNS = {
    "mu": (5, 1.0, "Debye", "dipole moment"),
    "alpha": (6, 1.0, "Bohr^3", "isotropic polarizability"),
    "homo": (7, HARTREE, "eV", "energy of the highest occupied orbital"),
    "lumo": (8, HARTREE, "eV", "energy of the lowest unoccupied orbital"),
    "gap": (9, HARTREE, "eV", "orbital energy gap"),
    "r2": (10, 1.0, "Bohr^2", "electronic spatial extent"),
    "zpve": (11, HARTREE * 1e3, "meV", "zero-point vibrational energy"),
    "U0": (12, HARTREE, "eV", "internal energy at 0 K"),
    "U": (13, HARTREE, "eV", "internal energy at 298.15 K"),
    "H": (14, HARTREE, "eV", "enthalpy at 298.15 K"),
    "G": (15, HARTREE, "eV", "free energy at 298.15 K"),
    "Cv": (16, 1.0, "cal/mol K", "heat capacity at 298.15 K"),
}
#: column of atomref.txt -> property
ATOMREF_COLUMNS = ("zpve", "U0", "U", "H", "G", "Cv")


def _number(text: str) -> float:
    return float(text.replace("*^", "e"))  # Mathematica's way to write exponents


def parse(text: str, where: str) -> Structure:
    """One QM9 molecule file; DataError naming the line when something is missing or not a number."""
    lines = text.splitlines()

    def fail(line, what):
        raise DataError(f"{where}, line {line}: {what}")

    try:
        n = int(lines[0])
    except (IndexError, ValueError):
        fail(1, "the number of atoms is missing")
    if len(lines) < n + 5:
        fail(len(lines) + 1, f"missing; a molecule of {n} atoms has {n + 5} lines")
    header = lines[1].split()
    if len(header) != 17 or header[0] != "gdb":
        fail(2, f"17 columns starting with 'gdb' expected, found {len(header)}")
    values, z, positions = {}, [], []
    for key, (column, factor, _, _) in COLUMNS.items():
        try:
            values[key] = _number(header[column]) * factor
        except ValueError:
            fail(2, f"{header[column]!r} is not a number ({key})")
        if not np.isfinite(values[key]):
            fail(2, f"{key} is {header[column]}")
    for k, line in enumerate(lines[2 : 2 + n]):
        words = line.split()
        if len(words) < 4 or words[0] not in atomic_numbers:
            fail(k + 3, "element and three coordinates expected")
        try:
            positions.append([_number(w) for w in words[1:4]])
        except ValueError:
            fail(k + 3, f"a coordinate is not a number: {line.strip()!r}")
        if not np.isfinite(positions[-1]).all():
            fail(k + 3, f"a coordinate is not finite: {line.strip()!r}")
        z.append(atomic_numbers[words[0]])
    return Structure(header[1], np.array(z), np.array(positions), values)


def members(path):
    """(name, text) of every molecule file of the archive, one at a time; DataError when it is cut off."""
    done = 0
    try:
        with tarfile.open(path, "r|bz2") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xyz"):
                    content = tar.extractfile(member).read()
                    if len(content) != member.size:
                        raise EOFError("last member is incomplete")
                    yield Path(member.name).name, content.decode("ascii", "replace")
                    done += 1
        if not done:
            raise tarfile.ReadError("no .xyz member")
        with bz2.open(path) as f:  # tarfile does not notice an archive cut off between members
            while f.read(1 << 24):
                pass
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: archive damaged or cut off after {done:,} molecules ({error}); delete it and fetch again") from error


def read_uncharacterized(path) -> set[str]:
    """Identifiers (1-based) of the molecules that upstream's consistency check rejected."""
    found = set(re.findall(r"^\s*(\d+)\s+\S", Path(path).read_text(encoding="utf-8", errors="replace"), re.M))
    if not found:
        raise DataError(f"{path}: lists no molecule; fetch it again")
    return found


def read_atomrefs(path) -> dict[str, np.ndarray]:
    """Single-atom values [100] by atomic number for each column of atomref.txt, in the units of COLUMNS."""
    table = {key: np.zeros(MAX_Z) for key in ATOMREF_COLUMNS}
    rows = 0
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) == len(ATOMREF_COLUMNS) + 1 and words[0] in atomic_numbers:
            rows += 1
            for key, word in zip(ATOMREF_COLUMNS, words[1:], strict=True):
                table[key][atomic_numbers[words[0]]] = _number(word) * COLUMNS[key][1]
    if not rows:
        raise DataError(f"{path}: no line with an element and {len(ATOMREF_COLUMNS)} numbers; fetch it again")
    return table


def convert(raw, out, *, name, about, approximate=(), **_):
    """raw: folder with the three upstream files; out: HDF5 file."""
    raw = Path(raw)
    excluded = read_uncharacterized(raw / "uncharacterized.txt")
    atomrefs = read_atomrefs(raw / "atomref.txt")
    notes = {"uncharacterized molecules listed upstream": len(excluded), "uncharacterized molecules removed": 0}
    archive = raw / "dsgdb9nsd.xyz.tar.bz2"

    def structures():
        for member, text in members(archive):
            structure = parse(text, f"{archive}: {member}")
            if structure.id in excluded:
                notes["uncharacterized molecules removed"] += 1
            else:
                yield structure

    properties = {k: Property(unit, text, approximate=k in approximate) for k, (_, _, unit, text) in COLUMNS.items()}
    used = {k: atomrefs[k] for k in ("U0", "U", "H", "G", "Cv")}

    return write_store(out, structures(), properties, name=name, notes=notes, atomrefs=used, **about)
