"""QM9: 134k organic molecules with up to nine heavy atoms.

Ramakrishnan et al., Sci. Data 1, 140022 (2014). Upstream: a bzip2 tar archive with one extended xyz
file per molecule, ``uncharacterized.txt`` with the molecules that failed the consistency check,
``atomref.txt`` with single-atom energies.
"""

from __future__ import annotations

import bz2
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from schnet.data.census import Census
from schnet.data.store import MAX_Z, Property, Structure, write_store
from schnet.errors import DataError
from schnet.units import HARTREE

#: property -> (position on the second line of a file, factor to the unit of Table I, unit,
#: description)
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
#: what is a total energy; enthalpies and free energies are averages over motions of the nuclei
KINDS = {"U0": "energy"}
PROPERTIES = {
    key: Property(unit, text, kind=KINDS.get(key, "other"))
    for key, (_, _, unit, text) in COLUMNS.items()
}
#: column of atomref.txt -> property
ATOMREF_COLUMNS = ("zpve", "U0", "U", "H", "G", "Cv")


def _number(text: str) -> float:
    return float(text.replace("*^", "e"))  # Mathematica's way to write exponents


class _Molecule:
    """The lines of a molecule file, with an error that names one of them."""

    def __init__(self, text: str, where: str):
        self.lines, self.where = text.rstrip().splitlines(), where

    def error(self, line: int, what: str) -> DataError:
        return DataError(f"{self.where}, line {line}: {what}")

    def size(self) -> int:
        """Number of atoms, after which the file's number of lines is known."""
        try:
            n = int(self.lines[0])
        except (IndexError, ValueError):
            raise self.error(1, "the number of atoms is missing") from None
        expected = f"a molecule of {n} atoms has {n + 5} lines"
        if len(self.lines) < n + 5:
            raise self.error(len(self.lines) + 1, f"missing; {expected}")
        if len(self.lines) > n + 5:
            raise self.error(n + 6, f"one too many; {expected}")
        return n

    def header(self) -> tuple[str, dict[str, float]]:
        """Identifier, and the properties of COLUMNS in their units."""
        header = self.lines[1].split()
        if len(header) != 17 or header[0] != "gdb":
            raise self.error(2, f"17 columns starting with 'gdb' expected, found {len(header)}")
        values = {}
        for key, (column, factor, _, _) in COLUMNS.items():
            try:
                values[key] = _number(header[column]) * factor
            except ValueError:
                raise self.error(2, f"{header[column]!r} is not a number ({key})") from None
            if not np.isfinite(values[key]):
                raise self.error(2, f"{key} is {header[column]}")
        return header[1], values

    def atom(self, number: int) -> tuple[int, list[float]]:
        """Atomic number and position [3] in Å of the atom on line ``number`` (1-based)."""
        line = self.lines[number - 1]
        words = line.split()
        if len(words) < 4 or words[0] not in atomic_numbers:
            raise self.error(number, "element and three coordinates expected")
        try:
            position = [_number(w) for w in words[1:4]]
        except ValueError:
            raise self.error(number, f"a coordinate is not a number: {line.strip()!r}") from None
        if not np.isfinite(position).all():
            raise self.error(number, f"a coordinate is not finite: {line.strip()!r}")
        return atomic_numbers[words[0]], position


def parse(text: str, where: str) -> Structure:
    """One QM9 molecule file: its structure with the properties of COLUMNS.

    Raises:
        DataError: naming ``where`` and the line on which something is missing or not a number.
    """
    molecule = _Molecule(text, where)
    n = molecule.size()
    identifier, values = molecule.header()
    atoms = [molecule.atom(line) for line in range(3, n + 3)]
    numbers = np.array([z for z, _ in atoms])
    positions = np.array([position for _, position in atoms])
    return Structure(identifier, numbers, positions, values)


def members(path) -> Iterator[tuple[str, str]]:
    """(name, text) of every molecule file of the archive, one at a time.

    Raises:
        DataError: the archive is damaged, cut off or holds no molecule.
    """
    done = 0
    try:
        with tarfile.open(path, "r|bz2") as tar:
            for member in tar:
                if not (member.isfile() and member.name.endswith(".xyz")):
                    continue
                file = tar.extractfile(member)
                content = file.read() if file else b""
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
        raise DataError(
            f"{path}: archive damaged or cut off after {done:,} molecules ({error}); "
            "delete it and fetch again"
        ) from error


def read_uncharacterized(path) -> set[str]:
    """Identifiers (1-based) of the molecules that upstream's consistency check rejected.

    Raises:
        DataError: the file lists no molecule.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    found = set(re.findall(r"^\s*(\d+)\s+\S", text, re.M))
    if not found:
        raise DataError(f"{path}: lists no molecule; fetch it again")
    return found


def read_atomrefs(path) -> tuple[dict[str, np.ndarray], set[int]]:
    """Single-atom values [100] by atomic number, for each column of atomref.txt.

    In the units of COLUMNS; zero for elements that the file does not list.

    Returns: the values by property, and the elements that are listed.

    Raises:
        DataError: the file has no line with an element and its values, or a value is no number.
    """
    table = {key: np.zeros(MAX_Z) for key in ATOMREF_COLUMNS}
    listed = set()
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) != len(ATOMREF_COLUMNS) + 1 or words[0] not in atomic_numbers:
            continue
        z = atomic_numbers[words[0]]
        listed.add(z)
        for key, word in zip(ATOMREF_COLUMNS, words[1:], strict=True):
            try:
                table[key][z] = _number(word) * COLUMNS[key][1]
            except ValueError:
                table[key][z] = np.nan
            if not np.isfinite(table[key][z]):
                raise DataError(f"{path}: {words[0]}: {word!r} is not a number; fetch it again")
    if not listed:
        raise DataError(
            f"{path}: no line with an element and {len(ATOMREF_COLUMNS)} numbers; fetch it again"
        )
    return table, listed


def convert(
    raw, out, *, name: str, about: dict, approximate: tuple = (), upstream=None, **_
) -> dict:
    """Convert all molecules but the uncharacterized ones.

    Args:
        raw: folder with the three upstream files.
        out: HDF5 file.
        name: the data set.
        about: title, licence, citation and sources of the data set.
        approximate: properties that are only approximations of what upstream means.
        upstream: entry of workflow/sources.yaml, to compare the count and the elements with.

    Returns:
        Notes on the data, with the number of uncharacterized molecules removed.

    Raises:
        DataError: a file is missing or damaged.
    """
    raw = Path(raw)
    excluded = read_uncharacterized(raw / "uncharacterized.txt")
    atomrefs, listed = read_atomrefs(raw / "atomref.txt")
    census = Census(about.get("sources", []), upstream)
    notes = census.notes
    notes["uncharacterized molecules listed upstream"] = len(excluded)
    notes["uncharacterized molecules removed"] = 0
    archive = raw / "dsgdb9nsd.xyz.tar.bz2"

    def structures():
        everything = (parse(text, f"{archive}: {member}") for member, text in members(archive))
        for structure in census.count(everything):
            unlisted = set(structure.atomic_numbers.tolist()) - listed
            if unlisted:
                symbol = chemical_symbols[unlisted.pop()]
                raise DataError(
                    f"{raw / 'atomref.txt'}: no line for {symbol}, an element of molecule "
                    f"{structure.id}; fetch it again"
                )
            if structure.id in excluded:
                notes["uncharacterized molecules removed"] += 1
            else:
                yield structure

    properties = {key: replace(p, approximate=key in approximate) for key, p in PROPERTIES.items()}
    used = {key: atomrefs[key] for key in ("U0", "U", "H", "G", "Cv")}
    return write_store(
        out, structures(), properties, name=name, notes=notes, atomrefs=used, **about
    )
